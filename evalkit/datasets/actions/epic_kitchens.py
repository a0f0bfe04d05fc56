"""Reader of EPIC-KITCHENS-100's annotations: verbs, nouns and times of actions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from evalkit.api import Data
from evalkit.datasets.actions.classes import check_classes
from evalkit.datasets.files import Span, class_number, find_file, parsing_errors_at, read_table, time_span, video_name
from evalkit.datasets.videos import Videos, find_videos, video_file

VERBS, NOUNS = 97, 300
EPIC_KITCHENS = Data(
    source="https://github.com/epic-kitchens/epic-kitchens-100-annotations",
    license="CC BY-NC 4.0",
    files={
        "EPIC_100_train.csv": "columns narration_id, participant_id, video_id, start_timestamp, stop_timestamp, "
        "verb_class, noun_class and others; all four files also in annotations/",
        "EPIC_100_validation.csv": "the same",
        "EPIC_100_verb_classes.csv": "columns id, key: 97",
        "EPIC_100_noun_classes.csv": "columns id, key: 300",
        "P01/videos/P01_01.MP4": "the videos as <video_id>.MP4, in any folder there",
    },
    sizes={"train": 67_217, "test": 9_668},
)
COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "start_timestamp",
    "stop_timestamp",
    "verb_class",
    "noun_class",
)


class Action(NamedTuple):
    """Something that is done.

    Attributes:
        name: the narration's id.
        span: its start and end in seconds.
        verb: class, an index into the verbs.
        noun: class, an index into the nouns.
    """

    name: str
    video: Path
    span: Span
    verb: int
    noun: int


class Actions(NamedTuple):
    """The actions of train and validation, and the names of their classes."""

    train: list[Action]
    validation: list[Action]
    verbs: tuple[str, ...]
    nouns: tuple[str, ...]


def read_epic_kitchens(root: Path) -> Actions:
    """Reads all actions of train and validation.

    Args:
        root: folder with EPIC_100_train.csv, EPIC_100_validation.csv, EPIC_100_verb_classes.csv and
            EPIC_100_noun_classes.csv (or _v2), there or in annotations/; the videos as <video_id>.MP4 in any folder.

    Raises:
        UserError: names file and line of a row that is not as published.
    """
    videos = find_videos(root)
    train, validation = (list(_actions(root, videos, split)) for split in ("train", "validation"))
    return Actions(train, validation, _names(root, "verb", VERBS), _names(root, "noun", NOUNS))


def _file(root: Path, *names: str) -> Path:
    return find_file(root, *(f"{place}EPIC_100_{name}.csv" for place in ("", "annotations/") for name in names))


def _names(root: Path, kind: str, count: int) -> tuple[str, ...]:
    names = {}
    for where, row in read_table(_file(root, f"{kind}_classes", f"{kind}_classes_v2"), ("id", "key")):
        with parsing_errors_at(where):
            names[class_number(row["id"], count)] = row["key"]
    return check_classes(root, [names[number] for number in sorted(names)], count)


def _actions(root: Path, videos: Videos, split: str) -> Iterator[Action]:
    for where, row in read_table(_file(root, split), COLUMNS):
        with parsing_errors_at(where):
            name, person = video_name(row["video_id"]), row["participant_id"]
            span = time_span(_seconds(row["start_timestamp"]), _seconds(row["stop_timestamp"]))
            if span[0] == span[1]:
                raise ValueError(f"no action from {row['start_timestamp']} to {row['stop_timestamp']}")
            yield Action(
                row["narration_id"],
                video_file(videos, root / person / "videos", name, ".MP4"),
                span,
                class_number(row["verb_class"], VERBS),
                class_number(row["noun_class"], NOUNS),
            )


def _seconds(stamp: str) -> float:
    """Seconds of `00:01:23.45`."""
    hours, minutes, seconds = stamp.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
