"""Reader of Something-Something v2's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from evalkit.api import Data
from evalkit.datasets.actions.classes import check_classes, class_named, labeled_examples
from evalkit.datasets.files import LabeledSplits, class_number, find_file, parsing_errors_at, read_json
from evalkit.datasets.videos import find_videos, video_file

SSV2 = Data(
    source="https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
    license="the data set's own",
    files={
        "labels/labels.json": "{template: number}, 174; also something-something-v2-labels.json or labels.json",
        "labels/train.json": "[{id, template, ...}]; also something-something-v2-train.json",
        "labels/validation.json": "the same; also something-something-v2-validation.json",
        "videos/ID.webm": "the videos, in any folder there; any ending",
    },
)


def read_ssv2(root: Path, train: bool = True) -> LabeledSplits:
    """Reads the videos of train and validation with their templates, which are in the order of labels.json.

    Args:
        root: folder with labels/train.json, labels/validation.json and labels/labels.json, or these as
            something-something-v2-train.json and so on, and the videos in any folder there.
        train: read train, too.

    Raises:
        UserError: names file and entry of what is not as published.
    """
    file = _file(root, "labels")
    with parsing_errors_at(str(file)):
        number = {label: class_number(index, 174) for label, index in read_json(file, dict).items()}
    names = check_classes(root, sorted(number, key=number.__getitem__), 174)
    videos = find_videos(root)
    labeled, test = (
        labeled_examples(
            (name, video_file(videos, root, name), target)
            for name, target in _rows(_file(root, split), dict(zip(names, range(174), strict=True)))
        )
        if train or split == "validation"
        else []
        for split in ("train", "validation")
    )
    return LabeledSplits(labeled, test, names)


def _file(root: Path, name: str) -> Path:
    return find_file(root, f"labels/{name}.json", f"something-something-v2-{name}.json", f"{name}.json")


def _rows(file: Path, number: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for i, row in enumerate(read_json(file, list), 1):
        with parsing_errors_at(f"{file}, entry {i}"):
            yield str(row["id"]), class_named(row["template"].replace("[", "").replace("]", ""), number)
