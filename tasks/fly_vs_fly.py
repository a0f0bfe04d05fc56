"""Fly-vs-Fly: aggression and courtship of two fruit flies (ECCV 2014)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.api import Data, Example, Task
from evalkit.datasets import behavior
from evalkit.datasets.files import LabeledSplits, find_file, parsing_errors_at, read_lines
from evalkit.datasets.videos import find_videos
from evalkit.errors import UserError, one_line
from evalkit.mini import classes, world

FPS = 30.0
NAMES = ("lunge", "wing threat", "tussle", "wing extension", "circle", "copulation")
LEFT_OUT = ("touch", "charge", "hold", "copulation attempt")  # too rare or of no interest: background
SHOWN = ("circle", "cross")  # in the miniature


DATA = Data(
    source="https://data.caltech.edu/records/zrznw-w7386",
    license="CC0 1.0",
    files={
        "train.txt": "lines of folders such as Aggression/movie1; yours to write, as no paper prints its division",
        "test.txt": "the same",
        "Aggression/movie1/movie1_actions.mat": "the bouts of both flies",
        "Aggression/movie1/movie1_feat.mat": "features, whose NaN tell the frames that do not count",
        "Aggression/movie1/movie1.mp4": "the film, converted from movie1.seq",
    },
    needs={"science": "mini=false"},
)


def task(root: Path = Path("data/fly_vs_fly"), mini: bool = False, train_step: int = 16, test_step: int = 1) -> Task:
    """Multi-label classification of six behaviors of two flies, frame by frame.

    Files as published: the folder of each movie, such as Aggression/movie1, with movie1_actions.mat, whose bouts of
    both flies are read, and movie1_feat.mat, whose features tell the valid frames: those where none is NaN are
    examples. The films, movie1.seq, must be converted to mp4 beside them. Which movies VideoPrism trains and tests on,
    those of Task Programming (https://arxiv.org/abs/2011.13917), is not printed: train.txt and test.txt say it, lines
    of folders such as Aggression/movie1. The other four behaviors are background; a bout is taken to hold its last
    frame. evalkit/datasets/behavior.py says what else is VideoPrism's. Reading .mat files needs SciPy.

    Args:
        root: folder with the two lists and the movies' folders.
        mini: the films of diving48's miniature, two shapes, of which a film may have none.
        train_step: distance in frames between train examples.
        test_step: distance in frames between test examples; only 1 tests all frames, as the papers do.
    """
    return behavior.behavior_task(
        "fly_vs_fly",
        classes.three_steps(
            lambda story: {step.thing.shape for step in story.steps} & {*SHOWN} or {behavior.BACKGROUND}
        )
        if mini
        else _read(root, {"train": train_step, "test": test_step}),
        mini,
        split="test",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )


def _shapes(story: world.Story) -> set[str]:
    return {step.thing.shape for step in story.steps} & {*SHOWN} or {behavior.BACKGROUND}


def _read(root: Path, steps: Mapping[str, int]) -> LabeledSplits:
    train, test = (
        [
            example
            for where, movie in read_lines(find_file(root, f"{split}.txt"))
            for example in _examples(where, root / movie, movie, step)
        ]
        for split, step in steps.items()
    )
    return LabeledSplits(train, test, (behavior.BACKGROUND, *NAMES), behavior.frame_rate_check(FPS))


def _examples(where: str, folder: Path, movie: str, step: int) -> Iterator[Example]:
    if not folder.is_dir():
        raise UserError(f"{where}: no folder {folder}")
    wanted = folder / f"{folder.name}.mp4"
    video = behavior.converted_video(find_videos(folder), wanted, wanted.with_suffix(".seq"), FPS)
    yield from behavior.frame_clips(movie, video, _targets(folder / folder.name), FPS, step)


def _targets(stem: Path) -> Sequence[tuple[int, ...] | None]:
    """The classes of each frame of a movie; None where a feature of a fly is NaN."""
    actions, features = (Path(f"{stem}_{kind}.mat") for kind in ("actions", "feat"))
    with parsing_errors_at(str(features)):
        valid = ~np.isnan(_mat(features)["feat"]["data"][0, 0]).any((0, 2))  # of (flies, frames, features)
    held = np.zeros((len(valid), len(NAMES) + 1), bool)
    held[:, 0] = True
    with parsing_errors_at(str(actions)):
        annotations = _mat(actions)
        behaviors = [str(name.item()).replace("_", " ").lower() for name in annotations["behs"].ravel()]
        if unknown := [name for name in behaviors if name not in NAMES + LEFT_OUT]:
            raise ValueError(f"a behavior {unknown[0]!r}")
        for bouts in annotations["bouts"]:  # of each fly
            for behavior, rows in zip(behaviors, bouts, strict=True):
                for start, end, *_ in rows.tolist() if behavior in NAMES else ():  # frames from 1, the last included
                    if not 1 <= start <= end <= len(valid) or start % 1 or end % 1:
                        raise ValueError(f"{behavior} in frames {start:g} to {end:g} of {len(valid)}")
                    held[int(start) - 1 : int(end), (0, 1 + NAMES.index(behavior))] = False, True
    return [tuple(np.flatnonzero(row).tolist()) if good else None for row, good in zip(held, valid, strict=True)]


def _mat(file: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(f"cannot read {file}: pip install scipy") from error
    try:
        return loadmat(file)  # type: ignore[no-any-return]
    except Exception as error:  # SciPy has one of its own for each kind of damage
        raise UserError(f"cannot read {file} as a MATLAB file: {one_line(error)}") from error
