"""The classifier that a checkpoint came with, and its labels as a data set's classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from torch import nn

from evalkit.api import FeatureSpec
from evalkit.errors import UserError, nearest

SHOWN, MOST_SHOWN = 3, 10  # names in a message


class OwnHead(NamedTuple):
    """The classifier of a checkpoint.

    Attributes:
        module: class scores (B, C) from what `feature_spec` keeps of a clip (B, ...).
        labels: names of the C classes, in their order.
        feature_spec: which part of the encoder's output it reads.
        joined: it reads the tokens of all clips of a video end to end, (B, N, D).
    """

    module: nn.Module
    labels: tuple[str, ...]
    feature_spec: FeatureSpec = FeatureSpec()
    joined: bool = False


def class_order(labels: Sequence[str], classes: Sequence[str], subset: bool = False) -> list[int]:
    """For each class of a data set its number among a checkpoint's labels, by name.

    Case does not count, and underscores are spaces, as are the marks of SSv2's templates and Diving48's lists:
    "Bending [something]" is "bending something", "['Inward', '35som']" is "Inward+35som". Nothing else is guessed.

    Args:
        labels: of the checkpoint.
        classes: of the data set.
        subset: the checkpoint may have labels that the data set has not.

    Raises:
        UserError: a name is missing on one side, or is there twice, or the labels are no names, or too few.
    """
    if len(labels) < len(classes):
        _refuse_fewer(labels, classes)
    more = len(labels) > len(classes) and not subset
    others = f"; the data set has {len(classes)}: adapter.subset=true leaves the others out" if more else ""
    if unnamed := [label for label in labels if re.fullmatch(r"LABEL_\d+", label)]:
        raise UserError(
            f"the checkpoint does not name its {len(labels)} classes ({', '.join(unnamed[:SHOWN])}): "
            "give adapter.labels=FILE, a text file with their names in its order, one in each line" + others
        )
    numbers: dict[str, int] = {}
    for number, label in enumerate(labels):
        if (same := numbers.setdefault(_plain(label), number)) != number:
            raise UserError(f"labels {same} and {number} of the checkpoint are both {label!r}")
    wanted = {_plain(name): name for name in classes}
    absent = [name for plain, name in wanted.items() if plain not in numbers]
    other = [] if subset else [labels[number] for plain, number in numbers.items() if plain not in wanted]
    if absent or other:
        parts = [
            f"{len(names)} of {what} ({_listed(names, known)})"
            for names, known, what in (
                (other, classes, f"its {len(labels)} labels are no class of the data set"),
                (absent, labels, f"the data set's {len(classes)} classes are no label of the checkpoint"),
            )
            if names
        ]
        raise UserError(
            f"the checkpoint's labels are not the data set's classes: {'; '.join(parts)}. If the order is another or "
            "names are spelled otherwise, give adapter.labels=FILE, a text file with the data set's names in the "
            "checkpoint's order, one in each line"
            + ("" if absent else "; adapter.subset=true leaves the checkpoint's other labels out")
        )
    return [numbers[_plain(name)] for name in classes]


def _refuse_fewer(labels: Sequence[str], classes: Sequence[str]) -> NoReturn:
    """Says which classes a checkpoint of fewer labels can never answer; names in a file would not mend that."""
    known = {_plain(label) for label in labels}
    absent = [name for name in classes if _plain(name) not in known]
    which = f"{len(absent)} of the classes are none of its labels ({_listed(absent, labels, MOST_SHOWN)})"
    if all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        which = f"which classes these are it does not say ({', '.join(labels[:SHOWN])})"
    raise UserError(
        f"the checkpoint has {len(labels)} labels and the data set {len(classes)} classes: {which}. adapter=probe "
        "trains a head for all classes on its encoder; for its own classifier, leave the videos of the other classes "
        "out of the data"
    )


def read_labels(file: Path, count: int) -> tuple[str, ...]:
    """The names of a checkpoint's classes in its order, from a text file with one in each line.

    Raises:
        UserError: the file cannot be read, or has not so many names.
    """
    try:
        lines = file.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"adapter.labels={file}: wanted a text file with a name in each line: {error}") from None
    labels = tuple(line.strip() for line in lines if line.strip())
    if len(labels) != count:
        raise UserError(
            f"adapter.labels={file} has {len(labels)} names, and the checkpoint {count} classes: give a name for each, "
            "one in each line"
        )
    return labels


def _plain(name: str) -> str:
    return re.sub(r"""[\s_[\]'",+]+""", " ", name).strip().casefold()


def _listed(names: Sequence[str], known: Sequence[str], most: int = SHOWN) -> str:
    """The first names, each with the nearest one of the other side."""
    spelled = {_plain(name): name for name in known}
    shown = []
    for name in names[:most]:
        near = nearest(_plain(name), spelled)
        shown.append(f"{name!r}, nearest {spelled[near]!r}" if near else repr(name))
    return "; ".join([*shown, *(["..."] if len(names) > most else [])])
