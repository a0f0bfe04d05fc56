"""Reader of 20BN's lists, Jester's and those of the first Something-Something: `id;label`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from evalkit.datasets.actions.classes import check_classes, class_named, labeled_examples
from evalkit.datasets.behavior import converted_video
from evalkit.datasets.files import LabeledSplits, find_file, parsing_errors_at, read_lines, read_table
from evalkit.datasets.videos import find_videos

FPS = 12.0  # of the folders of images that are published


def read_twentybn(root: Path, name: str, classes: int) -> LabeledSplits:
    """Reads the clips of train and validation with their classes, which are in the order of the list of labels.

    Args:
        root: folder with NAME-labels.csv, NAME-train.csv and NAME-validation.csv, there or in labels/ or annotations/,
            and the videos as <id>.mp4 in any folder there.
        name: jester-v1 or something-something-v1.
        classes: how many there are.

    Raises:
        UserError: names file and line of a row that is not as published; or only folders of images are there.
    """
    names = check_classes(root, [line for _, line in read_lines(_file(root, f"{name}-labels.csv"))], classes)
    number = {label: i for i, label in enumerate(names)}
    videos = find_videos(root)
    train, test = (
        labeled_examples(
            (clip, converted_video(videos, root / f"videos/{clip}.mp4", root / f"20bn-{name}" / clip, FPS), target)
            for clip, target in _rows(_file(root, f"{name}-{split}.csv"), number)
        )
        for split in ("train", "validation")
    )
    return LabeledSplits(train, test, names)


def _file(root: Path, name: str) -> Path:
    return find_file(root, name, f"labels/{name}", f"annotations/{name}")


def _rows(file: Path, number: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for where, row in read_table(file, ("id", "label"), header=False, delimiter=";"):
        with parsing_errors_at(where):
            yield row["id"].strip(), class_named(row["label"].strip(), number)
