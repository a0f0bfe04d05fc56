"""Something-Something v2: 174 ways to do something with something (https://arxiv.org/abs/1706.04261)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from evalkit.api import Task
from evalkit.datasets import protocols
from evalkit.datasets.files import (
    LabeledSplits,
    check_classes,
    class_number,
    find_file,
    labeled_examples,
    parsing_errors_at,
    read_json,
)
from evalkit.datasets.videos import find_videos, video_file
from evalkit.mini import classes


def task(root: Path = Path("data/ssv2"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Names what is done with something, which motion and order tell, by a frozen-backbone protocol.

    Files as published: labels/train.json, labels/validation.json and labels/labels.json, or these as
    something-something-v2-train.json and so on, and the videos as <id>.webm (or .mp4) in any folder there. Validation
    is what the papers report.

    Args:
        root: folder with the json files and the videos.
        mini: the films of kinetics400's miniature, a class per motion that is another one backwards.
        protocol: frames, views, augmentation and training: as evalkit/datasets/protocols.py has them; not of the
            miniature.
    """
    return protocols.classification(
        "ssv2",
        classes.one_step(lambda step: step.action, classes.REVERSIBLE) if mini else _read(root),
        protocol,
        mini,
        split="validation",
        sizes={"train": 168_913, "test": 24_777},
        license="the data set's own",
        source="https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
    )


def _file(root: Path, name: str) -> Path:
    return find_file(root, f"labels/{name}.json", f"something-something-v2-{name}.json", f"{name}.json")


def _read(root: Path) -> LabeledSplits:
    file = _file(root, "labels")
    with parsing_errors_at(str(file)):
        number = {label: class_number(index, 174) for label, index in read_json(file, dict).items()}
    names = check_classes(root, sorted(number, key=number.__getitem__), 174)
    videos = find_videos(root)
    train, test = (
        labeled_examples(
            (name, video_file(videos, root, name), target)
            for name, target in _rows(_file(root, split), dict(zip(names, range(174), strict=True)))
        )
        for split in ("train", "validation")
    )
    return LabeledSplits(train, test, names)


def _rows(file: Path, number: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for i, row in enumerate(read_json(file, list), 1):
        with parsing_errors_at(f"{file}, entry {i}"):
            yield str(row["id"]), number[row["template"].replace("[", "").replace("]", "")]
