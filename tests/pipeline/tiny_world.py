"""A task of its own on films of a folder, and runs of it from the command line."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.results import run_folder
from tests.forked import Forked

TASK = '''
"""Which way a shape moves, asked about the films of one folder."""

from pathlib import Path

from evalkit.api import Example, Task
from evalkit.metrics import accuracy

ADAPTER = "multiple_choice"
OPTIONS = ("a red circle moves left", "a red circle moves right", "a blue ring grows", "a white cross blinks")


def task(root: Path, train: bool = False) -> Task:
    """Asks which way a shape moves.

    Args:
        root: folder of the films.
        train: keep half of the films for training.
    """
    films = sorted(root.glob("*.mp4"))
    questions = [
        Example(film.stem, film, number % 2, text="What happens?", choices=OPTIONS[: 3 + number % 2], kind="direction")
        for number, film in enumerate(films)
    ]
    questions.append(Example("again", films[0], 1, text="What now?", choices=OPTIONS, kind="again"))
    questions.append(Example("secret", films[0], None, text="What then?", choices=OPTIONS))
    questions.append(Example("gone", root / "gone.mp4", 0, text="What?", choices=OPTIONS))
    return Task(
        test=questions[6:] if train else questions,
        train=questions[:6] if train else (),
        score=accuracy,
        chance=100 / 3,
        controls=("blind", "shuffled", "single_frame", "option_order"),
    )
'''


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, films: Path) -> Path:
    """A folder with my_task.py, eight films of which the last is broken, and a csv of them with splits."""
    root = tmp_path_factory.mktemp("world")
    (root / "my_task.py").write_text(TASK)
    (root / "films").mkdir()
    for number, film in enumerate(sorted(films.glob("*.mp4"))[:8]):
        (root / "films" / film.name).write_bytes(film.read_bytes() if number < 7 else b"no film at all")
    rows = ["path,label,split"]
    rows += [f"{film},{('left', 'right')[i % 2]},{'test' if i < 4 else 'train'}" for i, film in enumerated(films)]
    (root / "videos.csv").write_text("\n".join([*rows, f"{root / 'films' / '07.mp4'},left,train"]) + "\n")
    return root


def enumerated(films: Path) -> list[tuple[int, Path]]:
    return list(enumerate(sorted(films.glob("*.mp4"))))


def run(out: Path, *words: str) -> Path:
    """The folder of the run that the command line made."""
    printed = io.StringIO()
    canary = [] if "canary=true" in words else ["canary=false"]
    with contextlib.redirect_stdout(printed):
        assert main(["run", f"out={out}", *canary, *words]) == 0
    return Path(printed.getvalue().splitlines()[-1]).parent


def choice_words(world: Path, tiny: Path, lm: Path) -> list[str]:
    """A run of my_task.py with an adapter that is left as random as it is born."""
    task = [f"task={world / 'my_task.py'}", f"data.root={world / 'films'}"]
    return [*task, f"ckpt={tiny}", f"lm={lm}", "adapter.epochs=0", "adapter.latents=4", "workers=1"]


def probe_words(world: Path, tiny: Path) -> list[str]:
    return ["task=folder", f"data.root={world / 'videos.csv'}", f"ckpt={tiny}", "adapter.epochs=3", "workers=1"]


def scored(folder: Path) -> dict[str, Any]:
    """What must not depend on when, where and how fast a run was made."""
    record = run_folder.load(folder)
    return {key: record[key] for key in ("status", "scores", "controls", "chance", "data", "selection")}


# --- killed ----------------------------------------------------------------------------------------------------------


def command(*words: str) -> Forked:
    return Forked("run", *words)
