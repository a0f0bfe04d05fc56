"""Code that leaves a mark where it runs, for tests that it does not."""

from pathlib import Path

import pytest

from evalkit.cli import main

# An encoder's family, a task and a function in one file: whatever imports or calls any of it leaves a mark.
EVIL = """
from pathlib import Path
Path({mark!r}).touch()

def encoder(*words, **settings):
    raise RuntimeError("called")

def make(**settings):
    from evalkit.encoders import load_encoder
    return load_encoder({tiny!r})

def task():
    raise RuntimeError("called")

def score(predictions, targets):
    from evalkit.metrics import accuracy
    return accuracy(predictions, targets)
"""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that an attack would write."""
    return tmp_path / "mark"


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a command that the user can mend."""
    capsys.readouterr()
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line
