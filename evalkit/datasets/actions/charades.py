"""Reader of Charades' files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from evalkit.api import Data, Example
from evalkit.datasets.actions.classes import check_classes
from evalkit.datasets.files import (
    LabeledSplits,
    class_number,
    find_file,
    parsing_errors_at,
    read_lines,
    read_table,
    time_span,
)
from evalkit.datasets.videos import find_videos, video_file

CHARADES = Data(
    source="https://prior.allenai.org/projects/charades",
    license="the data set's own, non-commercial",
    files={
        "Charades_v1_classes.txt": "lines `c000 name`, 157; this and the next two also in Charades/",
        "Charades_v1_train.csv": "columns id, actions (`c092 11.90 21.20;...`), length and others",
        "Charades_v1_test.csv": "the same",
        "Charades_v1_480/ID.mp4": "the videos, in any folder there",
    },
)


class Action(NamedTuple):
    """A class, and when it happens, in seconds."""

    number: int
    start: float
    end: float

    @classmethod
    def parse(cls, text: str) -> Action:
        """As Charades writes it: `c092 11.90 21.20`; in seven actions of train the end stands first."""
        name, *bounds = text.split()
        start, end = sorted(map(float, bounds))
        return cls(class_number(name.removeprefix("c"), 157), *time_span(start, end))


def read_charades(root: Path, chunk: float = math.inf) -> LabeledSplits:
    """Reads the videos of train that have an action, and all of test, with their actions.

    Args:
        root: folder with Charades_v1_train.csv, Charades_v1_test.csv and Charades_v1_classes.txt, there or in
            Charades/, and the videos in any folder there.
        chunk: seconds; a longer video is cut into as few parts as cover it.

    Raises:
        UserError: names file and line of a row that is not as published.
    """
    names = check_classes(root, [line.partition(" ")[2] for _, line in read_lines(_file(root, "classes.txt"))], 157)
    videos = find_videos(root)
    train, test = (
        [
            example
            for name, seconds, actions in _rows(_file(root, f"{split}.csv"))
            if actions or split == "test"
            for example in _examples(name, video_file(videos, root / "Charades_v1_480", name), seconds, actions, chunk)
        ]
        for split in ("train", "test")
    )
    return LabeledSplits(train, test, names)


def _file(root: Path, name: str) -> Path:
    return find_file(root, f"Charades_v1_{name}", f"Charades/Charades_v1_{name}")


def _rows(file: Path) -> Iterator[tuple[str, float, Sequence[Action]]]:
    """Id, seconds and actions of each video."""
    for where, row in read_table(file, ("id", "actions", "length")):
        with parsing_errors_at(where):
            actions = [Action.parse(text) for text in row["actions"].split(";") if text]
            seconds = float(row["length"])
            if not 0 < seconds < math.inf:
                raise ValueError(f"length {seconds:g} s")
            yield row["id"], seconds, actions


def _examples(name: str, path: Path, seconds: float, actions: Sequence[Action], chunk: float) -> Iterator[Example]:
    """The whole video, or as few chunks as cover it, evenly spaced."""
    n = max(1, math.ceil(seconds / chunk))
    if n == 1:
        yield Example(name, path, _classes(actions))
        return
    for i in range(n):
        start = i * (seconds - chunk) / (n - 1)
        overlapping = [action for action in actions if action.start < start + chunk and action.end > start]
        yield Example(f"{name}/{i}", path, _classes(overlapping), span=(start, start + chunk))


def _classes(actions: Sequence[Action]) -> tuple[int, ...]:
    return tuple(sorted({action.number for action in actions}))
