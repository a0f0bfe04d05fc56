"""COIN: 180 everyday tasks in instructional videos (https://arxiv.org/abs/1903.02874)."""

from __future__ import annotations

import re
from pathlib import Path

from evalkit.api import Data, Task
from evalkit.datasets import protocols
from evalkit.datasets.actions.classes import check_classes, labeled_examples
from evalkit.datasets.files import LabeledSplits, class_number, find_file, parsing_errors_at, read_json, video_name
from evalkit.datasets.videos import find_videos, video_file
from evalkit.mini import classes

SPLIT = {"training": "train", "testing": "test"}


DATA = Data(
    source="https://coin-dataset.github.io",
    license="the data set's own, research only",
    files={
        "COIN.json": "database: {ID: {recipe_type, class, subset: training or testing, ...}}; also in annotations/",
        "videos/ID.mp4": "the videos, in any folder there",
    },
    sizes={"train": 9_030, "test": 2_797},
    vanished="the videos are YouTube's; how many are left is not stated",
)


def task(root: Path = Path("data/coin"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Classifies the task that an instructional video shows, by a frozen-backbone protocol.

    Files as published: COIN.json, here or in annotations/, and the videos as <id>.mp4 in any folder there. The class of
    a video is its `recipe_type`; its steps are not read. `protocol=vjepa2` is V-JEPA 2's
    (https://arxiv.org/abs/2506.09985); all others are as Kinetics-400's.

    Args:
        root: folder with COIN.json and the videos.
        mini: the films of kinetics400's miniature, one class per color.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); not used by the
            miniature.
    """
    return protocols.classification(
        "coin",
        classes.one_step(lambda step: step.thing.color, classes.ALONE) if mini else _read(root),
        protocol,
        mini,
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )


def _read(root: Path) -> LabeledSplits:
    file = find_file(root, "COIN.json", "annotations/COIN.json")
    videos = find_videos(root)
    rows: dict[str, list[tuple[str, Path, int]]] = {"train": [], "test": []}
    by_number: dict[int, str] = {}
    with parsing_errors_at(f"{file}: database"):
        entries = dict(read_json(file, dict)["database"])
    for name, entry in entries.items():
        with parsing_errors_at(f"{file}, video {name}"):
            number, label = class_number(entry["recipe_type"], 180), video_name(entry["class"])
            if by_number.setdefault(number, label) != label:
                raise ValueError(f"recipe_type {number} is {label} here and {by_number[number]} before")
            rows[SPLIT[entry["subset"]]].append((name, video_file(videos, root / "videos", name), number))
    names = check_classes(root, [by_number[number] for number in sorted(by_number)], 180)
    texts = tuple(re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name) for name in names)
    return LabeledSplits(labeled_examples(rows["train"]), labeled_examples(rows["test"]), names, texts=texts)
