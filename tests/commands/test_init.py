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
        assert told[:2] == [f"{name}.py", f"test_{name}.py"] and told[-1] == f"pytest test_{name}.py"
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
        (["task", "my-task"], "wanted a name of letters, digits and _"),
        (["task", "class"], "wanted a name of letters, digits and _"),
        (["task", "ssv2"], "evalkit has one of this name"),
        (["encoder", "timm"], "evalkit has one of this name"),
        (["encoder", "random"], "evalkit has one of this name"),
        (["encoder", "torch"], "Python has a module of this name"),
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
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.py", "test_tested.py"]
    assert Path("taken.py").read_text() == "mine"
