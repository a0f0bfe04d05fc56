"""What came from a stranger runs nothing: each attack would write a file, and is told in one line instead."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit import encoders, plugins
from evalkit.api import Clip, Views
from evalkit.cli import main
from evalkit.encoders._frames import refuse_files
from evalkit.errors import UserError
from evalkit.language.models import load as load_lm
from evalkit.video.clips import Decoded, Request
from evalkit.video.workers import read_clips
from evalkit.weights import checkpoint, huggingface, trained_adapter
from tests import hostile
from tests.hostile import EVIL, told

mark = hostile.mark


@pytest.fixture
def evil(tmp_path: Path, tiny: Path, mark: Path, module_here: Callable[[str], str]) -> str:
    """A module in the current folder, which leaves a mark where it is imported."""
    return module_here(EVIL.format(mark=str(mark), tiny=str(tiny)))


@pytest.fixture
def sha256(tiny: Path) -> str:
    """Of the tiny encoder's weights."""
    module: Any = encoders.load_encoder(tiny)
    return checkpoint.sha256(module)


def refusal(ckpt: object, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        encoders.load_encoder(str(ckpt), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pointer(folder: Path, **values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder.json").write_text(json.dumps({"sha256": "0" * 64, "settings": {}} | values))
    return folder


# --- a folder with an encoder ----------------------------------------------------------------------------------------


def test_a_folder_cannot_name_a_command(tmp_path: Path, mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pointer(tmp_path / "model", ckpt="os:system", settings={"command": f"touch {mark}"})
    line = refusal(folder)
    assert line.startswith(f"{folder} wants to run code, 'os:system' (encoder.json): add trust=true")
    line = told(capsys, "run", "task=egoschema", "mini=true", f"ckpt={folder}", f"out={tmp_path / 'out'}")
    assert line.startswith(f"evalkit: {folder} wants to run code, 'os:system'") and not mark.exists()


@pytest.mark.parametrize("trust", [True, "true", 1])
def test_a_folder_cannot_trust_itself(tmp_path: Path, mark: Path, evil: str, trust: Any) -> None:
    pointer(tmp_path / "inner", ckpt=f"{evil}:make", settings={"trust": trust})
    pointer(tmp_path / "model", ckpt=str(tmp_path / "inner"), settings={"trust": trust}, trust=trust)
    assert "wants to run code" in refusal(tmp_path / "inner")
    assert refusal(tmp_path / "model").startswith(f"{tmp_path / 'inner'} wants to run code")
    assert not mark.exists()


def test_a_folder_that_names_code_is_read_where_the_user_trusts_it(
    tmp_path: Path, mark: Path, evil: str, sha256: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pointer(tmp_path / "model", ckpt=f"{evil}:make", sha256=sha256)
    outer = pointer(tmp_path / "outer", ckpt=str(folder), sha256=sha256)
    assert f"'{evil}:make'" in refusal(folder) and "trust=True" in refusal(outer) and not mark.exists()
    assert f"'{evil}:make'" in told(capsys, "canary", f"ckpt={folder}") and not mark.exists()
    assert main(["canary", f"ckpt={folder}", "trust=true", "workers=1"]) in (0, 1)
    assert "wants to run code" not in capsys.readouterr().err and mark.exists()
    for place in (folder, outer):
        module: Any = encoders.load_encoder(place, trust=True)
        assert checkpoint.sha256(module) == sha256


def test_code_in_the_users_own_words_is_run_as_ever(mark: Path, evil: str) -> None:
    encoders.load_encoder(f"{evil}:make")
    assert mark.exists()


def test_what_evalkit_adapt_wrote_of_an_own_encoder_says_how_it_is_used_again(
    tmp_path: Path, mark: Path, evil: str, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.csv").write_text(
        "path,label,split\n"
        + "".join(f"{films}/{i:02d}.mp4,{'ab'[i % 2]},{('train', 'val', 'test')[i % 3]}\n" for i in range(12))
    )
    words = ["task=folder", f"data.root={tmp_path / 'labels.csv'}", "workers=1"]
    fit = ["adapter=ridge", f"ckpt={evil}:make", f"out={tmp_path / 'fitted'}", "canary=false"]
    assert main(["adapt", *words, *fit]) == 0
    again = ["run", *words, "adapter=ridge", f"ckpt={tmp_path / 'fitted'}", f"out={tmp_path / 'results'}"]
    assert f"wants to run code, '{evil}:make'" in told(capsys, *again)
    assert main([*again, "trust=true", "canary=false", "controls=false"]) == 0


@pytest.mark.parametrize(
    "family", ["{}/evil.py", "evil.py", "./evil.py", "evil:encoder", "os:system", ["longvivit"], None]
)
def test_a_configuration_names_an_installed_family_or_nothing(
    tmp_path: Path, tiny: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, family: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(EVIL.format(mark=str(mark), tiny=str(tiny)))
    shutil.copytree(tiny, tmp_path / "model")
    values = json.loads((tiny / "config.json").read_text())
    values["encoder"] = family.format(tmp_path) if isinstance(family, str) else family
    (tmp_path / "model/config.json").write_text(json.dumps(values))
    weights = tmp_path / "model/model.safetensors"
    for words in ({}, {"trust": True}):
        line = refusal(tmp_path / "model", **words)
        assert "may name only those that are installed: " in line or "does not describe an encoder" in line
        assert line == refusal(weights, **words) == refusal(weights, model=str(tmp_path / "model"), **words)
    assert not mark.exists()


def test_a_folder_of_the_hub_is_held_to_the_same(
    tmp_path: Path, mark: Path, evil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface, "fetch", lambda name: tmp_path / "snapshot")
    pointer(tmp_path / "snapshot", ckpt=f"{evil}:make")
    assert "wants to run code" in refusal("someone/model")
    pointer(tmp_path / "model", ckpt="someone/model")
    pointer(tmp_path / "snapshot", ckpt="someone/model")
    assert "is reached from itself" in refusal(tmp_path / "model")
    assert not mark.exists()


@pytest.mark.parametrize("model", ["{}:make", "os:getcwd"])
def test_settings_of_a_folder_cannot_name_a_function(
    tmp_path: Path, tiny: Path, mark: Path, evil: str, model: str
) -> None:
    weights = shutil.copyfile(tiny / "model.safetensors", tmp_path / "alone.safetensors")
    folder = pointer(tmp_path / "model", ckpt=str(weights), settings={"model": model.format(evil)})
    assert "wants to run code" in refusal(folder) and not mark.exists()


def test_settings_of_a_folder_may_name_another_folder(tmp_path: Path, tiny: Path, sha256: str) -> None:
    weights = shutil.copyfile(tiny / "model.safetensors", tmp_path / "alone.safetensors")
    folder = pointer(tmp_path / "model", ckpt=str(weights), sha256=sha256, settings={"model": str(tiny)})
    module: Any = encoders.load_encoder(folder)
    assert checkpoint.sha256(module) == sha256


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"ckpt": ["demo"]}, "ckpt is of no use"),
        ({"ckpt": "demo", "settings": "trust"}, "settings is of no use"),
        ({"ckpt": "demo", "seed": "1"}, "seed is of no use"),
        ({"ckpt": "random:vivit_demo", "settings": {"model": ["os:system"]}}, "encoder.model=.*: expected text"),
        ({"ckpt": "random:vivit_demo", "settings": {"tokenizer": ["a"]}}, "encoder.tokenizer=.*: expected text"),
        ({"ckpt": "random:vivit_demo", "settings": {"command": "ls"}}, "unknown setting 'command'"),
    ],
)
def test_a_pointer_of_another_shape_is_one_line(tmp_path: Path, values: dict[str, Any], wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        encoders.load_encoder(pointer(tmp_path / "model", **values))


def test_folders_that_point_in_a_circle_are_one_line(tmp_path: Path) -> None:
    pointer(tmp_path / "a", ckpt=str(tmp_path / "b"))
    pointer(tmp_path / "b", ckpt=str(tmp_path / "b/../a"))
    pointer(tmp_path / "self", ckpt=str(tmp_path / "self"))
    for i in range(30):
        pointer(tmp_path / f"{i}", ckpt=str(tmp_path / f"{i + 1}"))
    assert "is reached from itself" in refusal(tmp_path / "a") and "is reached from itself" in refusal(
        tmp_path / "self"
    )
    assert "a chain of more than 8" in refusal(tmp_path / "0")
    for name in ("a", "self", "0"):
        with pytest.raises(UserError, match="every encoder.json on the way names another folder"):
            encoders.spec_of(str(tmp_path / name))


def test_what_is_read_of_a_pointer_to_train_it_further_runs_nothing(tmp_path: Path, mark: Path, evil: str) -> None:
    with pytest.raises(UserError, match="is not a checkpoint that evalkit wrote"):
        encoders.spec_of(str(pointer(tmp_path / "model", ckpt=f"{evil}:make")))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("hf-hub:someone/model", {}),
        ("../model", {}),
        ("vit_tiny", {"checkpoint_path": "evil.pt"}),
        ("vit_tiny", {"pretrained_cfg_overlay": {"file": "evil.pt"}}),
        ("ViT-B-16", {"pretrained": "evil.pt", "load_weights_only": False}),
        ("ViT-B-16", {"text_cfg": {"hf_model_name": "someone"}}),
        ("ViT-B-16", {"text_cfg": {"anything": ["hf-hub:someone/model"]}}),
    ],
)
def test_settings_of_other_libraries_say_the_shape_alone(name: str, settings: dict[str, Any]) -> None:
    for family in ("timm", "open_clip"):  # whether or not they are installed
        with pytest.raises(UserError, match=r"^settings\."):
            plugins.factory("encoder", family)(Clip(), None, name=name, **settings)
    refuse_files("vit_tiny", {"img_size": 64, "drop_path_rate": 0.1, "global_pool": "avg", "text_cfg": {"layers": 2}})


def test_settings_of_a_trained_adapter_are_arguments_and_nothing_more(tmp_path: Path, mark: Path, evil: str) -> None:
    (tmp_path / "adapter.json").write_text(json.dumps({"adapter": f"{evil}:make", "settings": {"lr": 1}}))
    assert trained_adapter.adapter_settings(tmp_path) == {"lr": 1} and not mark.exists()


# --- a folder with a language model ----------------------------------------------------------------------------------


def language_model(folder: Path, source: Path, mark: Path, **config: Any) -> str:
    shutil.copytree(source, folder)
    values = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    (folder / "evil.py").write_text(code + "class Config: ...\nclass Model: ...\n")
    return str(folder)


CODE = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoModel": "evil.Model"}


def test_a_language_model_with_code_of_its_own_is_refused(tmp_path: Path, lm: Path, mark: Path) -> None:
    folder = language_model(tmp_path / "lm", lm, mark, model_type="evil", auto_map=CODE)
    with pytest.raises(UserError, match="whose code lies beside its weights .* 'evil' is none$"):
        load_lm(folder)
    with pytest.raises(UserError, match="whose code lies beside its weights"):
        huggingface.read_config(Path(folder))
    assert not mark.exists()


def test_code_beside_a_known_kind_is_left_alone(
    tmp_path: Path, lm: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("asked at the terminal")

    monkeypatch.setattr("builtins.input", asked)
    folder = language_model(tmp_path / "lm", lm, mark, auto_map=CODE)
    assert type(load_lm(folder)[0]).__name__ == "LlamaForCausalLM"
    tokenizer = json.loads((tmp_path / "lm/tokenizer_config.json").read_text())
    own = {**tokenizer, "auto_map": {"AutoTokenizer": ["evil.Model", None]}}
    (tmp_path / "lm/tokenizer_config.json").write_text(json.dumps(own))
    load_lm(folder)
    (tmp_path / "lm/custom_generate").mkdir()
    shutil.copyfile(tmp_path / "lm/evil.py", tmp_path / "lm/custom_generate/generate.py")
    with contextlib.suppress(UserError):  # some versions of transformers refuse the folder, others pass over the file
        load_lm(folder)
    assert not mark.exists()


def test_attention_from_the_hub_is_refused(tmp_path: Path, lm: Path, mark: Path) -> None:
    folder = language_model(tmp_path / "lm", lm, mark, attn_implementation="someone/kernel")
    for read in (load_lm, lambda place: huggingface.read_config(Path(place))):
        with pytest.raises(UserError, match="asks for attn_implementation 'someone/kernel', code from the hub"):
            read(folder)


def test_every_reader_of_transformers_is_told_to_run_no_code() -> None:
    import ast

    root = Path(__file__).parents[1]
    found = 0
    for file in (
        file for part in ("evalkit", "adapters", "tasks", "leaderboard") for file in (root / part).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            named = ast.unparse(node.func)
            if node.func.attr == "from_pretrained" and not named.startswith("LlamaTokenizer."):  # of our own files
                (value,) = [word.value for word in node.keywords if word.arg == "trust_remote_code"]
                assert ast.unparse(value) == "False", (file, named)
                found += 1
            if named == "pickle.loads" and file.name == "worker.py":  # between a run and its own processes
                continue
            assert named not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "pickle.load", "pickle.loads"), file
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert named != "torch.load" or words["weights_only"] in ("not trust", "True"), file
            assert named != "np.load" or words["allow_pickle"] == "False", file
    assert found >= 6


@pytest.mark.slow
def test_a_module_in_the_current_folder_is_not_run_by_the_processes_of_a_run(
    tmp_path: Path, films: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a folder that was fetched may hold a json.py beside its config.json."""
    shutil.copytree(tiny, tmp_path / "model")
    monkeypatch.chdir(tmp_path / "model")
    for name in ("json", "sys", "pickle"):
        Path(f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').write('run')\n")
    requests = [Request(films / f"{i:02d}.mp4", None, Views(), 4, 32) for i in range(2)]
    clips = list(read_clips(requests, workers=1))
    assert all(isinstance(clip, Decoded) for clip in clips) and not (tmp_path / "mark").exists()
