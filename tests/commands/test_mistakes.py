"""Wrong commands: one line that says what to do, exit code 2, nothing lost; and what it advises works."""

import csv
import json
import shlex
import shutil
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evalkit.cli import main
from evalkit.demo import FOLDER
from evalkit.pipeline import preflight, runner
from evalkit.pipeline.setup import prepare
from evalkit.results import run_folder
from tests.commands.mistakes import MISTAKES, Mistake
from tests.records import result_of, rows_of

VIT = """
from torch import nn
from evalkit.api import Clip, EncoderOutput


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.clip, self.dim, self.project = Clip(frames=4, size=32), width, nn.Linear(3, width)

    def forward(self, video):
        tokens = self.project(video.mean((-2, -1)))[:, :, None]
        return EncoderOutput(tokens, tokens.mean((1, 2)))


def make(width: int = 16):
    return Net(width)
"""

LONGEST = 700  # characters of a line that a newcomer still reads


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, films: Path) -> Iterator[Path]:
    """The current folder: videos, tables and checkpoints as people have them, right and wrong, and two runs."""
    folder = tmp_path_factory.mktemp("newcomer") / "here"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        for name in ("nothing", "parent/sthv2/labels", "frames/train/left/v0", "VideoMAE"):
            Path(name).mkdir(parents=True)
        Path("films").symlink_to(films)
        Path("parent/sthv2/labels/labels.json").write_text("{}")
        Path("frames/train/left/v0/img_00001.jpg").write_bytes(b"\xff\xd8\xff")
        Path("notes.txt").write_text("to do\n")
        Path("my_task.py").write_text("def tsak():\n    '''Mine.'''\n")
        Path("my_encoder.py").write_text("def build():\n    return None\n")
        Path("vit.py").write_text(VIT)
        Path("../outer.py").write_text(VIT)
        Path("captions.json").write_text(json.dumps([{"video_id": "v0", "caption": "a cat"}]))
        _tables()
        _weights()
        yield folder


def _tables() -> None:
    rows = [(f"films/{i:02d}.mp4", ("left", "right")[i % 2], "train" if i < 8 else "test") for i in range(12)]
    head = ("path", "label", "split")
    tables: dict[str, tuple[Sequence[str], Any, str]] = {
        "videos.csv": (head, rows, ","),
        "semicolon.csv": (head, rows, ";"),
        "columns.csv": (("file", "class", "fold"), rows, ","),
        "nohead.csv": (rows[0], rows[1:], ","),
        "absent.csv": (head, [(path[6:], *rest) for path, *rest in rows], ","),
        "commas.csv": (("path", "caption"), [("films/00.mp4", "red", " then blue")], ","),
        "test.csv": (head, [row for row in rows if row[2] == "test"], ","),
    }
    Path("empty.csv").write_text("")
    for name, (columns, content, separator) in tables.items():
        with open(name, "w", newline="") as file:
            csv.writer(file, delimiter=separator).writerows([columns, *content])


def _weights() -> None:
    weights = load_file(FOLDER / "model.safetensors")
    torch.save({f"module.{name}": value for name, value in weights.items()}, "wrapped.pt")
    torch.save({"state_dict": {f"model.encoder.{name}": value for name, value in weights.items()}}, "last.ckpt")
    torch.save(
        {"state_dict": {"net.project.weight": torch.ones(16, 3), "net.project.bias": torch.ones(16)}}, "net.ckpt"
    )
    torch.save({**torch.load("net.ckpt"), "hyper_parameters": {"args": Namespace(lr=1e-4)}}, "args.ckpt")
    save_file(weights, "VideoMAE/model.safetensors")
    shutil.copytree(FOLDER, "mydemo", ignore=shutil.ignore_patterns("adapters", "lm"))
    with zipfile.ZipFile("weights.zip", "w") as archive:
        archive.write("VideoMAE/model.safetensors")


@pytest.fixture(scope="module")
def named(world: Path) -> dict[str, str]:
    """The folders of runs that commands name: A and B of one task, OTHER of another."""
    places = {"A": "results/demo/egoschema@mini/run-1", "B": "results/demo/egoschema@mini/run-2", "OTHER": "other/run"}
    for number, (name, place) in enumerate(places.items()):
        rows = rows_of(6 + number, 6 - number)
        record = result_of(rows)
        if name == "OTHER":
            record["task"] |= {"name": "msvd_qa@mini", "published": {}}
        run_folder.write(world / place, record, rows, f"run: {name}\n")
    return places


def begins(config: Any, place: Any) -> Path:
    """In place of a run: all that is checked before anything is encoded, and then a run that is there."""
    with prepare(config) as experiment:
        preflight.check_run(experiment, config.options, config.trainer)
    return Path("results/demo/egoschema@mini/run-1")


def advised(word: str, wrong: Sequence[str], told: str) -> bool:
    """Whether a line tells to write a word: the whole of it, or what of it is not among the wrong ones."""
    key, _, value = word.partition("=")
    keys, values = ({*parts} for parts in zip(*(w.partition("=")[::2] for w in wrong), strict=True))
    said = any(near in told for near in (value, value.replace("films", "FOLDER")))
    return word in told or (key in told and (value in values or said)) or (value in told and key in keys)


def files(folder: Path) -> dict[str, int]:
    """Every file below a folder, with its size; links are not followed."""
    return {str(file): file.lstat().st_size for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.command[:60])
def test_a_mistake_is_told_in_one_line_whose_advice_works(
    mistake: Mistake,
    world: Path,
    named: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runner, "run", begins)
    before = files(world)
    wrong, mended = (shlex.split(command.format(**named)) for command in (mistake.command, mistake.mended))
    assert main(wrong) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("evalkit: ")]
    assert len(lines) == 1 and lines[0] == err.splitlines()[-1] and "Traceback" not in err and not out, err
    told = lines[0]
    assert mistake.says in told
    assert len(told) < LONGEST
    assert files(world) == before, "something was lost or left behind"
    if mended:
        assert [word for word in mended if word not in wrong and not advised(word, wrong, told)] == []
        assert main(mended) == 0, capsys.readouterr().err


def test_there_are_a_hundred_and_none_twice() -> None:
    assert len(MISTAKES) == len({mistake.command for mistake in MISTAKES}) >= 100
