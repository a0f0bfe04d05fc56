"""Words and files become a checked configuration; every message is tested as the user sees it."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from evalkit.config.config import Config
from evalkit.config.keys import known_keys
from evalkit.config.options import Options, Trainer
from evalkit.config.parse import resolve
from evalkit.errors import UserError

TASK = '''
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalkit.api import Task

ADAPTER = "./head.py"


def task(root: Path, mini: bool = False, *, tag: str = "", subset: bool = True, fold: int | None = 3,
         kinds: Sequence[str] = (), note: str | None = None) -> Task:
    """Tells shapes apart.

    Args:
        root: folder that holds
            the videos.
        mini: not a data key.
        tag (str): any text.
    """
'''
ADAPTER = '''
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt
from evalkit.api import AdapterSettings

@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings.

    Attributes:
        lr: step size.
    """

    lr: Annotated[float, Gt(0)] = 1e-3
    heads: int = 8
    pool: Literal["mean", "max"] = "mean"
    lm: str = ""
    betas: tuple[float, float] = (0.9, 0.999)
    layers: int = 2

def adapter(encoder, task, points) -> None:
    """Linear layer."""
'''
BARE_TASK = "def task(size: int = 1):\n    '''Has no miniature.'''\n"
BARE_ADAPTER = '''
from evalkit.api import Training as Settings

def adapter(encoder, task, points):
    """Has no lm."""
'''
WORDS = ("task=./shapes.py", "ckpt=demo", "data.root=/d")


@pytest.fixture(autouse=True)
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    sources = {"shapes.py": TASK, "head.py": ADAPTER, "bare.py": BARE_TASK, "bare_head.py": BARE_ADAPTER}
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
    return tmp_path


def run(*words: str) -> Config:
    return resolve("run", [*WORDS, *words])


def message(words: Sequence[str], command: Literal["run", "adapt"] = "run") -> str:
    with pytest.raises(UserError) as caught:
        resolve(command, words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(*words: str) -> str:
    return message([*WORDS, *words])


def from_file(text: str) -> str:
    Path("x.yaml").write_text(text)
    return refused("config=x.yaml")


def test_the_sections_hold_only_what_was_set_and_the_rest_has_defaults() -> None:
    config = run("adapter.lr=1e-4", "clip.frames=32", "trainer.max_minutes=5", "batch=4")
    assert config.command == "run"
    assert config.words == (*WORDS, "adapter.lr=1e-4", "clip.frames=32", "trainer.max_minutes=5", "batch=4")
    assert config.options == Options(task="./shapes.py", ckpt="demo", batch=4)
    assert config.data == {"root": Path("/d")}
    assert config.adapter == {"lr": 1e-4}
    assert config.clip == {"frames": 32}
    assert config.trainer == Trainer(max_minutes=5.0)


@pytest.mark.parametrize(
    ("word", "section", "value"),
    [
        ("data.tag=001", "data", "001"),
        ("data.tag=no", "data", "no"),
        ("data.tag=a=b", "data", "a=b"),
        ("data.tag=", "data", ""),
        ("data.tag=none", "data", "none"),
        ("data.tag=${x}", "data", "${x}"),
        ("data.subset=false", "data", False),
        ("data.fold=none", "data", None),
        ("data.fold=-2", "data", -2),
        ("data.note=none", "data", None),
        ("data.note=5", "data", "5"),
        ("data.kinds=[a,b]", "data", ("a", "b")),
        ("data.kinds=a, b", "data", ("a", "b")),
        ("data.kinds=[]", "data", ()),
        ("clip.crops=3", "clip", 3),
        ("clip.size=none", "clip", None),
        ("clip.fps=2", "clip", 2.0),
        ("adapter.betas=0.5,1e-2", "adapter", (0.5, 0.01)),
        ("adapter.layers=4", "adapter", 4),
        ("adapter.pool=max", "adapter", "max"),
    ],
)
def test_a_value_becomes_what_its_key_declares(word: str, section: str, value: object) -> None:
    settings = getattr(run(word), section)
    settings.pop("root", None)
    assert list(settings.values()) == [value]
    assert type(next(iter(settings.values()))) is type(value)


def test_only_the_first_equals_sign_splits() -> None:
    ckpt = "/d/epoch=3-step=100.ckpt"
    assert resolve("run", ["task=./shapes.py", f"ckpt={ckpt}", "data.root=/d"]).options.ckpt == ckpt


def test_paths_may_start_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert run("out=~/results").options.out == Path("/home/someone/results")


def test_words_overrule_the_file_and_the_file_overrules_defaults() -> None:
    Path("x.yaml").write_text("batch: 4\nseed: 7\nadapter.lr: 1e-2\ndata: {root: /file, tag: '001'}\nclip.size: null\n")
    config = resolve("run", ["config=x.yaml", "task=./shapes.py", "ckpt=demo", "batch=8"])
    assert (config.options.batch, config.options.seed, config.options.workers) == (8, 7, 0)
    assert (config.data, config.adapter, config.clip) == (
        {"root": Path("/file"), "tag": "001"},
        {"lr": 0.01},
        {"size": None},
    )


def test_a_file_may_use_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOS", "/videos")
    Path("x.yaml").write_text("task: ./shapes.py\nckpt: demo\ndata.root: ${oc.env:VIDEOS}/shapes\n")
    assert resolve("run", ["config=x.yaml"]).data == {"root": Path("/videos/shapes")}


def test_the_yaml_gives_an_equal_configuration_again() -> None:
    config = run(
        "adapter.lr=1e-05", "adapter.betas=0.5,0.9", "data.tag=001", "data.note=two\nlines: # x",
        "data.kinds=no,null,${x},1e3", "clip.frames=none",
        "lm=tiny", "adapter.from=trained", "trainer.precision=bf16-mixed", "out=é/x",
    )  # fmt: skip
    Path("config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    again = resolve("run", ["config=config.yaml"])
    assert again == config
    assert again.to_yaml().splitlines()[1:] == config.to_yaml().splitlines()[1:]


def test_the_words_above_the_yaml_of_a_grid_point_can_be_typed_again() -> None:
    points = ({"betas": (0.5, 1e-05), "layers": 3}, {"layers": None, "pool": True})
    config = replace(run("adapter.lr=1e-4"), points=points)
    first = config.at(0)
    typed = shlex.split(first.to_yaml().splitlines()[0].removeprefix("# evalkit run "))
    assert resolve("run", typed) == first and first.adapter == {"lr": 1e-4, **points[0]}
    assert config.at(1).words[-2:] == ("adapter.layers=none", "adapter.pool=true")


def test_the_yaml_has_every_key_and_leaves_the_protocol_alone() -> None:
    lines = run("adapter.lr=1e-4").to_yaml().splitlines()
    assert lines[0] == "# evalkit run task=./shapes.py ckpt=demo data.root=/d adapter.lr=1e-4"
    assert {"batch: auto", "data.root: /d", "adapter.lr: 0.0001", "trainer.max_minutes: 0.0"} <= set(lines)
    assert {"# data.subset: true", "# clip.sampling: uniform", "# adapter.heads: 8", "# adapter.betas:"} <= set(lines)
    present = {line.removeprefix("# ").partition(":")[0] for line in lines}
    assert set(known_keys("run", "./shapes.py")) - present == {"log.group"}  # of no record


def test_the_keys_are_those_of_the_chosen_plug_ins() -> None:
    known = known_keys("run", "./shapes.py")
    assert [name for name in known if name.startswith(("data.", "adapter."))] == [
        "adapter.from",
        *(f"data.{name}" for name in ("root", "tag", "subset", "fold", "kinds", "note", "expect", "videos")),
        *(f"adapter.{name}" for name in ("lr", "heads", "pool", "betas", "layers")),
    ]
    assert known["data.root"].meaning == "folder that holds the videos."
    assert known["data.tag"].meaning == "any text."
    assert known["adapter.lr"].meaning == "step size."
    assert known["adapter.from"].parameter == "adapter_from"
    assert "adapter.heads" not in known_keys("run", "./shapes.py", "./bare_head.py")
    assert "data.root" not in known_keys("run")
    assert all(key.meaning for key in known_keys("run").values())


def test_lm_goes_to_the_adapter() -> None:
    config = run("lm=tiny")
    assert config.options.lm == config.adapter["lm"] == "tiny"
    assert "lm" not in run().adapter
    assert refused("lm=tiny", "adapter=./bare_head.py") == "lm=tiny: adapter 'bare_head' takes no language model"
    assert refused("adapter.lm=tiny") == "unknown key 'adapter.lm'. Did you mean 'lm'?"


def test_mini_needs_a_task_that_has_it() -> None:
    assert run("mini=true").options.mini
    told = "mini=true: task 'bare' has no miniature data; leave mini out"
    words = ["task=./bare.py", "adapter=./head.py", "ckpt=demo"]
    assert message([*words, "mini=true"]) == told
    assert not resolve("run", [*words, "mini=false"]).options.mini
    assert refused("data.mini=true") == "unknown key 'data.mini'. Did you mean 'mini'?"


def test_a_task_that_names_no_adapter_is_probed() -> None:
    from evalkit.config.keys import default_adapter

    assert default_adapter("./bare.py") == "probe"
    assert default_adapter("./shapes.py") == "./head.py"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["adapter.lr=fast"], "adapter.lr=fast: expected a number"),
        (["adapter.lr="], "adapter.lr=: expected a number"),
        (
            ["adapter.lr=1e-4,1e-3"],
            "adapter.lr=1e-4,1e-3: expected a number; evalkit sweep tries several, adapter.lr=1e-4,1e-3",
        ),
        (["adapter.heads=2.5"], "adapter.heads=2.5: expected a whole number"),
        (["adapter.heads=1_0"], "adapter.heads=1_0: expected a whole number"),
        (["adapter.betas=1"], "adapter.betas=1: expected 2 values [a,b], each a number"),
        (["adapter.betas=1,b"], "adapter.betas=1,b: expected 2 values [a,b], each a number"),
        (["clip.frames=few"], "clip.frames=few: expected a whole number or none"),
        (["controls=yes"], "controls=yes: expected true or false. Did you mean controls=true?"),
        (["mini=True"], "mini=True: expected true or false. Did you mean mini=true?"),
        (["out="], "out=: expected a path"),
        (["batch=0"], "batch=0: expected a whole number above 0"),
        (["clip.fps=0"], "clip.fps=0: expected a number above 0"),
        (["workers=-1"], "workers=-1: expected a whole number of at least 0"),
        (["adapter.lr=-1"], "adapter.lr=-1: expected a number above 0"),
        (["seed=4294967296"], "seed=4294967296: expected a whole number below 2 to the 32nd"),
        (
            ["clip.sampling=unifrom"],
            "clip.sampling=unifrom is not one of uniform, segments, linspace, middle, interleaved, fps, dense, "
            "leading. Did you mean 'uniform'?",
        ),
        (["device=gpu"], "device=gpu is not one of auto, cpu, cuda, mps. Did you mean 'cuda'?"),
        (["clip.crops=2"], "clip.crops=2 is not one of 1, 3."),
        (["lr=1"], "unknown key 'lr'. Did you mean 'adapter.lr'?"),
        (["--lr=1"], "unknown key '--lr'. Did you mean 'adapter.lr'?"),
        (["probe.lr=1"], "unknown key 'probe.lr'. Did you mean 'adapter.lr'?"),
        (["adapter.headz=1"], "unknown key 'adapter.headz'. Did you mean 'adapter.heads'?"),
        (["precison=1"], "unknown key 'precison'. Did you mean 'precision'?"),
        (["adapter_from=x"], "unknown key 'adapter_from'. Did you mean 'adapter.from'?"),
        (
            ["trainer.qqq=1"],
            "unknown key 'trainer.qqq'. Known: trainer.precision, trainer.max_minutes, trainer.views, trainer.shots, "
            "trainer.share",
        ),
        (
            ["qqq=1"],
            "unknown key 'qqq'. Known: task, ckpt, adapter, mini, lm, log, out, seed, device, devices, nodes, workers, "
            "threads, batch, precision, compile, cache, canary, trained_on, trust, confirm, controls, time_limit, "
            "decoder",
        ),
        (["batch=1", "batch=2"], "batch is given twice: batch=1 and batch=2"),
        (["batch"], "expected key=value, got 'batch'."),
        (["=5"], "expected key=value, got '=5'."),
        (["adapter=./gone.py"], "no adapter file './gone.py'"),
        (["config=gone.yaml"], "config=gone.yaml: no such file or directory"),
    ],
)
def test_a_mistaken_word_is_told_in_one_line(words: list[str], told: str) -> None:
    assert refused(*words) == told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            [],
            "run needs task=... (the benchmark: a name from `evalkit list tasks`, or a file such as ./my_task.py)",
        ),
        (
            ["task=./shapes.py"],
            "run needs ckpt=... (the encoder: a name from `evalkit list encoders`, a folder or file, "
            "organization/model on the Hugging Face hub, random:NAME, or package.module:function)",
        ),
        (["tsak=./shapes.py"], "unknown key 'tsak'. Did you mean 'task'?"),
        (["task=./shapes.py", "ckpt=demo"], "task 'shapes' needs data.root=... (folder that holds the videos)"),
        (["task=./shapes.py", "ckpt=demo", "root=/d"], "unknown key 'root'. Did you mean 'data.root'?"),
        (["task=./shapes.py", "ckpt=demo", "dat.root=/d"], "unknown key 'dat.root'. Did you mean 'data.root'?"),
    ],
)
def test_a_missing_key_is_told_with_its_meaning(words: list[str], told: str) -> None:
    assert message(words) == told


def test_adapt_needs_a_folder_to_write_into() -> None:
    told = "adapt needs out=... (output folder for the result or the trained adapter)"
    assert message(WORDS, "adapt") == told
    assert resolve("adapt", [*WORDS, "out=trained"]).options.out == Path("trained")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("adapter.lr: fast", "x.yaml: adapter.lr=fast: expected a number"),
        ("lr: 1", "x.yaml: unknown key 'lr'. Did you mean 'adapter.lr'?"),
        ("trainer: {precison: 1}", "x.yaml: unknown key 'trainer.precison'. Did you mean 'trainer.precision'?"),
        ("data.tag: 001", "x.yaml: data.tag=1: expected text, in quotes"),
        ("batch: true", "x.yaml: batch=True: expected a whole number or auto"),
        ("batch: [1]", "x.yaml: batch=[1]: expected a whole number or auto"),
        ("data: {tag: a}\ndata.tag: b", "x.yaml: data.tag is given twice"),
        ("- 1", "config=x.yaml: expected lines of key: value"),
        ("task=egoschema ckpt=demo", "config=x.yaml: expected lines of key: value"),
        ("# task: egoschema", "config=x.yaml: expected lines of key: value"),
        ("lm: tiny\nadapter: ./bare_head.py", "x.yaml: lm=tiny: adapter 'bare_head' takes no language model"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(text: str, told: str) -> None:
    assert from_file(text) == told


@pytest.mark.parametrize("text", ["a: [1", "batch: ${nothing}", "batch: 1\nbatch: 2", "\x00"])
def test_a_file_that_is_no_yaml_is_told_in_one_line(text: str) -> None:
    assert from_file(text).startswith("config=x.yaml: not readable as yaml: ")


def test_an_annotation_that_is_not_there_at_run_time_is_told() -> None:
    Path("lost.py").write_text(
        "from __future__ import annotations\n\ndef task(root: Path = 1) -> None:\n    '''Is lost.'''\n"
    )
    told = message(["task=./lost.py", "ckpt=demo"])
    assert told.endswith(": parameter 'root': name 'Path' is not defined; import it outside TYPE_CHECKING")


def test_a_word_that_is_a_task_is_recognized(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import evalkit

    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "egoschema.py").touch()
    monkeypatch.setattr(evalkit, "__path__", [evalkit.__path__[0], str(tmp_path)])
    assert message(["egoschema", "ckpt=demo"]) == "expected key=value, got 'egoschema'. Did you mean 'task=egoschema'?"
    told = message(["task=egoshema", "ckpt=demo"])
    assert told == "no task named 'egoshema'. Did you mean 'egoschema'? `evalkit list tasks` shows all"
