"""What tests of the command line share: a folder with a task and an adapter, and work that is not done."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import evalkit
from evalkit.cli import main

TASK = '''
from pathlib import Path

ADAPTER = "./head.py"


def task(root: Path, mini: bool = False, subset: bool = True) -> None:
    """Tells shapes apart.

    Args:
        root: folder of the videos.
    """
'''
ADAPTER = '''
from dataclasses import dataclass

from evalkit.api import AdapterSettings


@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings.

    Attributes:
        lr: step size.
    """

    lr: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.99)
    top: int | None = None


def adapter(encoder, task, points) -> None:
    """Linear layer."""
'''
WORDS = ["task=./shapes.py", "ckpt=demo", "data.root=/d"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one task and one adapter, and a project whose only task is egoschema."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "shapes.py").write_text(TASK)
    (tmp_path / "head.py").write_text(ADAPTER)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "egoschema.py").write_text("def task():\n    '''Chooses one of five answers.'''\n")
    (tmp_path / "tasks" / "k400.py").write_text("def task():\n    '''Names an action.'''\n")
    monkeypatch.setattr(evalkit, "__path__", [evalkit.__path__[0], str(tmp_path)])
    return tmp_path


def put_runner(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """Puts a fake in place of the command's module, which takes its time to import."""
    module = ModuleType("evalkit.commands.runs.run")

    def main(config: Any) -> int:
        run(config)
        return 0

    vars(module).update(main=main)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def raising(error: BaseException) -> Any:
    def work(*_: object, **__: object) -> None:
        raise error

    return work


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("evalkit: ") and err.count("\n") == 1
    return err.removeprefix("evalkit: ").removesuffix("\n")
