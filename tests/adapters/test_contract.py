"""What every adapter keeps, and what the core may ask of it."""

import ast
import dataclasses
import re
import shlex
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from annotated_types import Gt

import evalkit
from evalkit import api, plugins
from evalkit.api import Adapter, AdapterSettings, Example, Prediction, Training
from evalkit.cli import main
from evalkit.config.keys import adapter_defaults, known_keys, settings_class
from evalkit.errors import UserError
from evalkit.pipeline.settings import adapter_settings, grid_passes, refuse_idle
from evalkit.results import run_folder, validate
from evalkit.weights import trained_adapter
from tests.given import TASK, make_adapter, small

ROOT = Path(evalkit.__file__).parents[1]
MEMBERS = {name for name in vars(Adapter) if not name.startswith("_")} | set(Adapter.__annotations__)
CONSTANTS = {"grid", "light", *(name for name in vars(AdapterSettings) if name.isupper())}


@pytest.mark.parametrize("name", ["probe", "contrastive", "multiple_choice"])
def test_every_adapter_fulfils_the_contract(name: str, vocabulary: Path, lm: Path) -> None:
    settings = {"lm": str(lm)} if name == "multiple_choice" else {}
    assert isinstance(make_adapter(name, small(vocabulary), TASK, **settings), Adapter)


@pytest.mark.parametrize("name", plugins.names("adapter"))
def test_every_adapter_has_settings_of_which_each_is_a_key(name: str) -> None:
    kind = settings_class(name)
    assert {field.name for field in dataclasses.fields(kind)} == adapter_defaults(name).keys()
    assert kind() == kind(**adapter_defaults(name))
    assert {*kind.STACKABLE, *kind.INFERENCE_SETTINGS} <= adapter_defaults(name).keys()
    for other, settings in kind.COMPATIBLE_ADAPTERS.items():
        assert set(settings) <= adapter_defaults(other).keys()


def test_the_core_looks_up_no_member_of_an_adapter_by_its_name() -> None:
    """Each member has a place in the base class, so that mypy sees a misspelt one."""
    assert {"points", "select", "solve", "finalize", "frozen"} <= MEMBERS and "STACKABLE" in CONSTANTS
    for file in (ROOT / "evalkit").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                looked_up = node.args[1]
                if isinstance(looked_up, ast.Constant):
                    assert looked_up.value not in MEMBERS | CONSTANTS, f"{file}:{node.lineno}: {looked_up.value}"


def test_the_contract_is_imported_from_api_when_it_is_asked_for() -> None:
    assert api.Adapter is Adapter and issubclass(Training, AdapterSettings)
    with pytest.raises(AttributeError, match="Adaptor"):
        api.Adaptor  # noqa: B018


class Smallest(Adapter):
    """What an adapter is that defines no more than it must."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.encoder = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

    def predict(self, examples: Any, features: Any) -> list[Prediction]:
        return [Prediction(0) for _ in examples]


def test_the_defaults_are_those_of_an_adapter_that_is_not_fitted() -> None:
    smallest = Smallest()
    assert (smallest.epochs, smallest.batch_size, smallest.points, smallest.frozen) == (0, 1, 1, {})
    assert smallest.needs_video and not (smallest.closed_form or smallest.trains_encoder or smallest.saves_encoder)
    examples = [Example("1", Path("1"))]
    assert smallest.predict_all(examples, None) == [smallest.predict(examples, None)]
    assert (
        smallest.finalize(examples, [Prediction(3)]) == [Prediction(3)] and smallest.flops(None, torch.ones(1)) is None
    )
    assert smallest.adapter_state().keys() == {"head.weight", "head.bias"}
    smallest.load_adapter_state({name: torch.ones_like(value) for name, value in smallest.adapter_state().items()})
    assert smallest.head.weight.eq(1).all() and smallest.head.weight.requires_grad
    smallest.select(0)
    with pytest.raises(UserError, match="no solve"):
        smallest.solve(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="abstract"):
        Adapter()  # type: ignore[abstract]


# --- settings --------------------------------------------------------------------------------------------------------


def test_the_users_settings_stand_above_the_protocols_and_these_above_the_defaults() -> None:
    defaults, prescribed = {"lr": 1.0, "epochs": 1, "beams": 1}, {"epochs": 2, "beams": 2}
    assert adapter_settings(defaults, prescribed, {"epochs": 3}) == {"lr": 1.0, "epochs": 3, "beams": 2}
    trained = adapter_settings(defaults, prescribed, {}, trained={"lr": 4.0, "epochs": 4}, inference=["beams"])
    assert trained == {"lr": 4.0, "epochs": 4, "beams": 2} and list(trained) == list(defaults)
    assert adapter_settings(defaults, prescribed, {}, trained={}) == defaults


def test_points_share_a_pass_where_they_differ_in_stackable_settings_only() -> None:
    points = [{"lr": lr, "head": head} for lr in (1, 2) for head in "ab"]
    assert grid_passes(points, ["lr"]) == [[0, 2], [1, 3]]
    assert grid_passes(points, []) == [[0], [1], [2], [3]] and grid_passes(points, ["lr", "head"]) == [[0, 1, 2, 3]]


def test_a_setting_of_fitting_is_refused_where_nothing_is_fitted() -> None:
    refuse_idle(["head"], Smallest(), {}, None)
    with pytest.raises(UserError, match=r"^adapter.lr has no effect: the adapter is not trained with these settings$"):
        refuse_idle(["lr"], Smallest(), {}, None)
    with pytest.raises(UserError, match=r"^adapter.epochs has no effect: the adapter comes trained from there\. adap"):
        refuse_idle(["epochs"], Smallest(), {}, Path("there"))
    refuse_idle(["lr"], Smallest(), {"epochs": 0}, None)  # that was the user's wish


def test_keys_of_a_derived_class_keep_the_types_and_the_help_of_its_bases() -> None:
    keys = known_keys("run", "folder", "captioner")
    assert list(adapter_defaults("captioner"))[:9] == [
        "lm",
        "lm_precision",
        "join",
        "gate",
        "temporal",
        "stride",
        "latents",
        "depth",
        "prompt",
    ]
    assert (
        keys["adapter.stride"].type == Annotated[int, Gt(0)]
        and keys["adapter.stride"].meaning == "for temporal=strided."
    )
    assert keys["adapter.join"].default == "cross_attention" and "adapter.lm" not in keys


# --- an adapter of one's own -----------------------------------------------------------------------------------------


def test_the_adapter_of_the_documents_runs_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    assert len(code.splitlines()) <= 40
    Path("my_adapter.py").write_text(code)
    command = re.search(r"evalkit (run .*adapter=\./my_adapter\.py .*)$", text, re.MULTILINE)
    assert command
    assert main([*shlex.split(command[1]), "adapter.epochs=2", "canary=false"]) == 0
    (run,) = Path("results/demo/folder@mini").iterdir()
    assert validate.validate(run) == []
    record = run_folder.load(run)
    assert record["adapter"]["name"] == "my_adapter" and record["adapter"]["trainable_parameters"] > 0
    assert record["adapter"]["settings"] == {
        "lr": 1e-3,
        "weight_decay": 0.05,
        "epochs": 2,
        "batch_size": 32,
        "hidden": 32,
        "from": "",
    }
    assert main(["run", "task=folder", "mini=true", "ckpt=demo", "adapter=./my_adapter.py", "adapter.hiden=3"]) == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def adapter(encoder, task, points): ...", "has no class `Settings` of evalkit.api.AdapterSettings"),
        (
            "from evalkit.api import AdapterSettings as Settings\ndef adapter(encoder, task, points): return 1",
            "returned a int; wanted an evalkit.api.Adapter",
        ),
    ],
)
def test_a_file_that_breaks_the_contract_is_told(
    code: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    (tmp_path / "broken.py").write_text(code)
    words = ["task=folder", "mini=true", f"ckpt={tiny}", f"adapter={tmp_path / 'broken.py'}", f"out={tmp_path}"]
    assert main(["run", *words]) == 2
    assert message in capsys.readouterr().err


BROKEN = """
from dataclasses import dataclass

from evalkit.api import Adapter, AdapterSettings, Prediction

@dataclass(frozen=True)
class Settings(AdapterSettings):
    '''No settings.'''

class Broken(Adapter):
    def {method}

def adapter(encoder, task, points):
    '''Breaks.'''
    return Broken()
"""


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("flops(self, encoder, video): return 1", r"adapter \S+ fails: broken\.py, line \d+: TypeError: .*abstract"),
        ("predict(self, examples, features): return None", "Broken: predict gave a NoneType; wanted a list of"),
        ("predict(self, examples, features): return [1] * len(examples)", "predict gave a int among its predictions"),
        ("predict(self, examples, features): return [Prediction(0)]", "predict gave a list of 1; wanted a list of"),
    ],
)
def test_an_adapter_that_breaks_the_contract_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, films: Path, tiny: Path, method: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text(BROKEN.format(method=method))
    rows = [f"{films / f'{i:02d}.mp4'},{'ab'[i % 2]},test" for i in range(2)]
    Path("labels.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    with pytest.raises(UserError, match=message) as caught:
        evalkit.run("folder", str(tiny), data={"root": "labels.csv"}, adapter="./broken.py", canary=False, quiet=True)
    assert "\n" not in str(caught.value)


def test_settings_that_are_no_dataclass_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = BROKEN.format(method="predict(self, examples, features): return []")
    code = source.replace("@dataclass(frozen=True)\n", "")
    Path("plain.py").write_text(code.replace("'''No settings.'''", "width: int = 1"))
    with pytest.raises(UserError, match=r"`Settings` is not a dataclass.* put @dataclass\(frozen=True\) above it"):
        settings_class("./plain.py")


def test_settings_of_records_in_former_spelling_are_read(tmp_path: Path) -> None:
    (tmp_path / "adapter.json").write_text('{"settings": {"standardise": false, "lambdas": 1}}')
    assert trained_adapter.adapter_settings(tmp_path) == {"standardize": False, "lambdas": 1}
    (tmp_path / "adapter.json").write_text("{}")
    with pytest.raises(UserError, match=r"adapter\.json has no settings, so it is not an adapter that evalkit wrote"):
        trained_adapter.adapter_settings(tmp_path)
