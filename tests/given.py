"""What several test files are given: tasks by name, a tiny encoder, and the real files that lie beside the project."""

import contextlib
import importlib.util
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evalkit import plugins
from evalkit.api import Clip, EncoderOutput, Example, Task
from evalkit.cli import main
from evalkit.config.keys import settings_class
from evalkit.encoders.longvivit import ViViT, encoder
from evalkit.errors import UserError
from evalkit.metrics.classification import accuracy
from evalkit.metrics.text.wordnet import WordNet, wordnet

# Small ones that are part of the project: official scorers' outputs, authors' models run at random weights.
FIXTURES = Path(__file__).parent / "fixtures"
DATA = Path(__file__).parents[2] / "shared" / "data"
ANNOTATIONS = DATA / "annotations"
# Each reader is tested on small samples of its own, too.
real = pytest.mark.skipif(
    not DATA.is_dir(),
    reason="needs the data sets' own files in ../shared/data, whose licenses keep them out of the repository",
)


CLIP = Clip(frames=4, size=32)
TASK = Task(test=(), score=accuracy, classes=("a", "b", "c"))
QUESTIONS = [
    Example(
        "1", Path("1"), 1, text="What happens?", choices=("a red ring grows", "a blue cross moves left, then a ring")
    ),
    Example("2", Path("2"), 0, text="What?", choices=("a white circle blinks", "a green square turns red")),
]


def make(name: str, *root: Path, **settings: Any) -> Task:
    """The task of this name; of a root where one is given."""
    made = plugins.factory("task", name)(*root, **settings)
    assert isinstance(made, Task)
    return made


def make_adapter(name: str, encoder: Any, task: Task, **settings: Any) -> Any:
    """The adapter of this name, with one grid point."""
    return make_grid(name, encoder, task, [settings])


def make_grid(name: str, encoder: Any, task: Task, points: Sequence[Mapping[str, Any]]) -> Any:
    """The adapter of this name that trains these points together; other settings are as by default."""
    kind = settings_class(name)
    return plugins.factory("adapter", name)(encoder, task, [kind(**point) for point in points])


def refusal(name: str, *root: Path, **settings: Any) -> str:
    """Why there is no such task, which is one line."""
    with pytest.raises(UserError) as caught:
        make(name, *root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def evalkit(command: str, *words: str) -> Path:
    """Runs a command; the path that it prints last."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([command, *words]) == 0
    return Path(printed.getvalue().splitlines()[-1])


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The error of a command, which is the last line that it prints."""
    capsys.readouterr()  # forgets what was printed before
    assert main(words) == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("evalkit: ")


def raising(number: int) -> Callable[..., Any]:
    """A function that fails with an error of the operating system."""

    def call(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return call


def refusal_of_row(name: str, root: Path, file: str, row: str) -> str:
    """Why there is no such task once a row is appended to one of its files."""
    with (root / file).open("a") as lines:
        lines.write(row + "\n")
    return refusal(name, root)


def linked(folder: Path, source: str) -> Path:
    """The folder, with a link to each of the real annotation files of a source."""
    for file in (ANNOTATIONS / source).iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def write(file: Path, value: Any) -> Path:
    """The file, with a text, or a value as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return file


def wordnet_is_here() -> WordNet:
    """WordNet 3.0 itself; a test that needs it is skipped where it is not installed."""
    try:
        return wordnet()
    except UserError:
        pytest.skip("needs WordNet 3.0, which no Python package carries (Debian: apt-get install wordnet-base)")


def library(name: str) -> Any:
    """An encoder library, imported. A test of it is skipped where it is not installed, and fails where it is broken."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs video-evalkit[{name}], which `make test` installs in build/libraries")
    return importlib.import_module(name)


def run_of(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, in this folder, of the demo with its own probe on a task that is written as this source."""
    monkeypatch.chdir(folder)
    Path("cut.py").write_text(source)
    assert main(["run", "task=./cut.py", "ckpt=demo", "adapter.epochs=20", "adapter.lr=3e-3"]) == 0
    (run,) = Path("results").glob("*/*/*")
    return run


class Plain(nn.Module):
    """An encoder with text and a grid of tokens, of normalized video (B, T, 3, H, W) alone: it leaves no tokens out."""

    clip, dim, tubelet = CLIP, 6, (1, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.video, self.words = nn.Linear(3, 6), nn.Embedding(128, 6)

    def forward(self, video: torch.Tensor) -> EncoderOutput:
        tokens = self.video(video.mean((3, 4)))[:, :, None]
        return EncoderOutput(tokens, tokens.mean((1, 2)))

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return torch.stack([self.words(torch.tensor([*text.encode("ascii")])).mean(0) for text in texts])


def small(vocabulary: Path | None = None, **settings: Any) -> ViViT:
    """A tiny encoder of random weights, the same every time; with a text tower where there is a vocabulary."""
    torch.manual_seed(0)
    text = {"vocabulary": 200, "dim": 16, "depth": 1, "heads": 2, "tokens": 32} if vocabulary else None
    return encoder(CLIP, vocabulary, dim=24, depth=2, heads=3, hidden=48, text=text, **settings).eval()
