"""Charades: which of 157 actions happen in half a minute at home (https://arxiv.org/abs/1604.01753)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from evalkit.api import Example, Task
from evalkit.datasets import protocols
from evalkit.datasets.files import (
    LabeledSplits,
    check_classes,
    class_number,
    find_file,
    parsing_errors_at,
    read_lines,
    read_table,
    time_span,
)
from evalkit.datasets.videos import find_videos, video_file
from evalkit.metrics import charades_map, pr_auc
from evalkit.mini import classes, world

CHUNK = 128 / 6  # seconds: the 128 frames at six a second that VideoGLUE's configuration names


def task(root: Path = Path("data/charades"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Finds the actions of a household video, any number of them, by a frozen-backbone protocol.

    Files as published: Charades_v1_train.csv, Charades_v1_test.csv and Charades_v1_classes.txt, here or in Charades/,
    and the videos as <id>.mp4 in any folder there. An action that a video has twice counts once. Videos without any
    action are not trained on, as in VideoGLUE (7,811 of 7,985); in test they stand and, by Charades' own rule, are no
    false positives. The score is Charades' mAP over videos.

    `protocol=videoglue_code` is what VideoGLUE's code reports in its place: videos are cut into clips of 21.3 s, which
    have the actions that overlap them, and scored by Keras' area under the precision-recall curve. Where that code
    cuts its 6,976 clips is not published: here they are as few as cover a video, evenly spaced.

    Args:
        root: folder with the csv files and the videos.
        mini: the films of diving48's miniature, a class for each shape and each motion.
        protocol: frames, views, augmentation and training: as evalkit/datasets/protocols.py has them; not of the
            miniature.
    """
    chunked = protocol == "videoglue_code" and not mini
    return protocols.classification(
        "charades",
        classes.three_steps(_seen) if mini else _read(root, CHUNK if chunked else math.inf),
        protocol,
        mini,
        score=pr_auc if chunked else charades_map,
        sizes={} if chunked else {"train": 7_811, "test": (1_814, 1_863)},
        license="the data set's own, non-commercial",
        source="https://prior.allenai.org/projects/charades",
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


def _seen(story: world.Story) -> set[str]:
    return {word for step in story.steps for word in (step.thing.shape, step.action)}


def _file(root: Path, name: str) -> Path:
    return find_file(root, f"Charades_v1_{name}", f"Charades/Charades_v1_{name}")


def _read(root: Path, chunk: float) -> LabeledSplits:
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
