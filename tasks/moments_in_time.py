"""Moments in Time: 339 actions and events in three-second clips (https://arxiv.org/abs/1801.03150)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from evalkit.api import Data, Task
from evalkit.datasets import protocols
from evalkit.datasets.actions.classes import check_classes, class_named, labeled_examples
from evalkit.datasets.files import LabeledSplits, class_number, find_file, parsing_errors_at, read_table
from evalkit.mini import classes

FILES = {"trainingSet.csv": "training", "validationSet.csv": "validation"}  # and where the clips of each lie


DATA = Data(
    source="http://moments.csail.mit.edu",
    license="the data set's own",
    files={
        "moments_categories.txt": "label,number, without a header: 339",
        "trainingSet.csv": "path,label and two counts of votes, without a header",
        "validationSet.csv": "the same",
        "training/PATH": "the clips, under those paths",
        "validation/PATH": "the same",
    },
    sizes={"train": (791_246, 791_297, 802_264), "test": (33_898, 33_900)},
    vanished="VideoGLUE's table counts 791,246 clips of train and 33,898 of validation, its code 791,297 and "
    "33,900; the list of train has 802,264",
)


def task(root: Path = Path("data/moments_in_time"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Classifies the event in a three-second clip, by a frozen-backbone protocol.

    Files as published: moments_categories.txt (label,number), trainingSet.csv and validationSet.csv (path, label and
    two counts of votes, without a header), and the clips in training/ and validation/ under those paths. Papers report
    the validation split.

    Args:
        root: folder with the lists and the clips.
        mini: the films of kinetics400's miniature, one class per color.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); not used by the
            miniature.
    """
    return protocols.classification(
        "moments_in_time",
        classes.one_step(lambda step: step.thing.color, classes.ALONE) if mini else _read(root),
        protocol,
        mini,
        split="validation",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )


def _read(root: Path) -> LabeledSplits:
    rows = read_table(find_file(root, "moments_categories.txt"), ("label", "number"), header=False)
    names = check_classes(root, [label for _, label in sorted(_numbered(rows))], 339)
    number = {name: i for i, name in enumerate(names)}
    train, test = (labeled_examples(_clips(root, file, number)) for file in FILES)
    return LabeledSplits(train, test, names)


def _numbered(rows: Iterable[tuple[str, dict[str, str]]]) -> Iterator[tuple[int, str]]:
    for where, row in rows:
        with parsing_errors_at(where):
            yield class_number(row["number"], 339), row["label"].strip()


def _clips(root: Path, file: str, number: Mapping[str, int]) -> Iterator[tuple[str, Path, int]]:
    for where, row in read_table(find_file(root, file), ("path", "label"), header=False):
        with parsing_errors_at(where):
            yield row["path"], root / FILES[file] / row["path"], class_named(row["label"].strip(), number)
