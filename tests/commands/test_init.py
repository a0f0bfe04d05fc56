"""`evalkit init` writes files that run at once, and whose tests pass."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.results import run_folder, validate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMES = {"encoder": "shapes_net", "task": "shapes", "adapter": "two_layers"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each kind and its test, and an encoder that is wrong."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind, name in [*NAMES.items(), ("encoder", "wrong_net")]:
            assert main(["init", kind, name]) == 0
    wrong = folder / "wrong_net.py"
    assert "tokens.mean((1, 2))" in wrong.read_text()
    wrong.write_text(wrong.read_text().replace("tokens.mean((1, 2))", "tokens.mean(1)"))  # no longer one vector a clip
    return folder


@pytest.mark.usefixtures("decoding_here")
def test_each_runs_at_once(
    written: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, name in NAMES.items():
        capsys.readouterr()
        assert main(["init", kind, name]) == 0
        told = capsys.readouterr().out.splitlines()
        assert (
            told[:2] == [f"{name}.py", f"test_{name}.py"]
            and told[-1] == f"python -m pytest test_{name}.py  # pip install pytest"
        )
        words = shlex.split(told[-2].replace("ckpt=demo", f"ckpt={tiny}"))
        epochs = ["adapter.epochs=1", "workers=1"]
        assert words[0] == "evalkit" and main([*words[1:], *epochs, f"out={kind}"]) == 0, words
        (result,) = Path(kind).rglob("result.json")
        files = [tmp_path / f"{name}.py"] if kind == "task" else []
        assert validate.validate(result.parent, files) == []
        record = run_folder.load(result.parent)
        assert record["status"] == "complete"
        assert name in str((record["task"]["name"], record["encoder"]["ckpt"], record["adapter"]["name"]))


def test_the_tests_that_are_written_pass_and_see_what_is_wrong(written: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=written,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    failed = [line for line in ended.stdout.splitlines() if line.startswith("FAILED")]
    assert all(line.startswith("FAILED test_wrong_net.py::") for line in failed), ended.stdout
    assert any("test_tokens_and_pooled_have_their_shapes" in line for line in failed)
    passed = re.search(r"(\d+) passed, 2 skipped", ended.stdout)  # without a record of where it was trained
    assert passed and int(passed[1]) + len(failed) == 4 + 4 + 3 + 4, ended.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "init takes a kind (encoder, task, adapter) and a name, got nothing"),
        (["tsak", "mine"], "init tsak: not one of encoder, task, adapter. Did you mean 'task'?"),
        (
            ["task", "my-task"],
            "a name has letters, digits and _, does not begin with a digit and is no word of Python's; ",
        ),
        (["task", "my-task"], "; choose another, such as my_task\n"),
        (["task", "class"], "is no word of Python's; choose another, such as my_class\n"),
        (
            ["task", "3d-shapes"],
            "does not begin with a digit and is no word of Python's; choose another, such as my_3d_shapes",
        ),
        (["task", "schlüssel"], "choose another, such as schlussel\n"),
        (["task", "日本"], "is no word of Python's; choose another\n"),
        (["task", ""], "is no word of Python's; choose another\n"),
        (["encoder", "__main__"], "begin with _ a meaning of their own; choose another, such as main\n"),
        (["encoder", "__init__"], "begin with _ a meaning of their own; choose another, such as init\n"),
        (
            ["encoder", "conftest"],
            "conftest.py would be run by pytest as a file of its own; choose another, such as my_conftest",
        ),
        (["task", "setup"], "setup.py would be run by pip as a file of its own; choose another, such as my_setup\n"),
        (
            ["encoder", "test_net"],
            "test_net.py would be run by pytest as a file of its own; choose another, such as net\n",
        ),
        (
            ["encoder", "net_test.py"],
            "net_test.py would be run by pytest as a file of its own; choose another, such as net\n",
        ),
        (["task", "queue"], "in place of the module of this name; choose another, such as my_queue\n"),
        (["task", "winreg"], "in place of the module of this name; choose another, such as my_winreg\n"),
        (["adapter", "wandb"], "in place of the module of this name; choose another, such as my_wandb\n"),
        (["adapter", "faiss"], "in place of the module of this name; choose another, such as my_faiss\n"),
        (["task", "ssv2"], "evalkit has one of this name; choose another, such as my_ssv2\n"),
        (["encoder", "timm"], "evalkit has one of this name"),
        (["encoder", "random"], "evalkit has one of this name"),
        (["encoder", "torch"], "in place of the module of this name"),
        (["encoder", "Evalkit"], "in place of the module of this name"),
        (["encoder", "pluggy"], "Python has a module of this name ("),
        (["adapter", "taken"], "taken.py is there already; nothing is overwritten"),
        (["adapter", "taken.py"], "taken.py is there already; nothing is overwritten"),
        (["adapter", "tested"], "test_tested.py is there already"),
    ],
)
def test_what_cannot_be_written_is_told_in_one_line(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("taken.py", "test_tested.py"):
        Path(name).write_text("mine")
    assert main(["init", *words]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.py", "test_tested.py"]
    assert Path("taken.py").read_text() == "mine"


def test_a_folder_of_data_takes_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python looks for a file before a folder without __init__.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("shapes").mkdir()
    assert main(["init", "task", "shapes"]) == 0
    assert Path("shapes.py").is_file()
