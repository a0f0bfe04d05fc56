"""Diving48: 48 dives, each a sequence of take-off, turns and position (http://www.svcl.ucsd.edu/projects/resound)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evalkit.api import Data, Task
from evalkit.datasets import protocols
from evalkit.datasets.actions.classes import check_classes, labeled_examples
from evalkit.datasets.files import LabeledSplits, class_number, find_file, parsing_errors_at, read_json, video_name
from evalkit.datasets.videos import find_videos, video_file
from evalkit.mini import classes

DATA = Data(
    source="http://www.svcl.ucsd.edu/projects/resound/dataset.html",
    license="the data set's own",
    files={
        "Diving48_vocab.json": "[[take-off, ...]]: 48 sequences of phases; all three files also in annotations/",
        "Diving48_V2_train.json": "[{vid_name, label, start_frame, end_frame}]",
        "Diving48_V2_test.json": "the same",
        "videos/VID_NAME.mp4": "the videos, in any folder there",
    },
    sizes={"train": 15_027, "test": 1_970},
)


def task(root: Path = Path("data/diving48"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Classifies dives by their phases, which requires order and motion, by a frozen-backbone protocol.

    Files as published: Diving48_V2_train.json, Diving48_V2_test.json and Diving48_vocab.json, here or in annotations/,
    and the videos as <vid_name>.mp4 in any folder there. A video is one dive: start_frame and end_frame are its whole.

    Args:
        root: folder with the json files and the videos.
        mini: twelve-second films of the mini world, a class per order of a red, a green and a blue thing.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); the miniature
            can set only mveb.
    """
    return protocols.classification(
        "diving48",
        classes.in_order() if mini else _read(root),
        protocol,
        mini,
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )


def _file(root: Path, name: str) -> Path:
    return find_file(root, f"Diving48_{name}.json", f"annotations/Diving48_{name}.json")


def _read(root: Path) -> LabeledSplits:
    file = _file(root, "vocab")
    with parsing_errors_at(str(file)):
        names = check_classes(root, ["+".join(phases) for phases in read_json(file, list)], 48)
    videos = find_videos(root)
    train, test = (
        labeled_examples(
            (name, video_file(videos, root / "rgb", name), target) for name, target in _rows(_file(root, split))
        )
        for split in ("V2_train", "V2_test")
    )
    return LabeledSplits(train, test, names)


def _rows(file: Path) -> Iterator[tuple[str, int]]:
    for i, row in enumerate(read_json(file, list), 1):
        with parsing_errors_at(f"{file}, entry {i}"):
            yield video_name(row["vid_name"]), class_number(row["label"], 48)
