"""The numbers that papers print, from leaderboard/published.csv: what a measured score is put beside."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import evalkit
from evalkit.datasets.files import error_context, read_table

SOURCES = {
    "longvivit": "https://arxiv.org/abs/2312.07395",
    "videoprism": "https://arxiv.org/abs/2402.13217v3",
    "videoprism-code": "https://github.com/google-deepmind/videoprism (README at d481d91)",
    "videoglue": "https://arxiv.org/abs/2307.03166v3",
}


class Number(NamedTuple):
    """One printed number.

    Attributes:
        source: a key of `SOURCES`.
        table: of that source.
        row: the model, as the source names it.
        task: evalkit's name of the benchmark; `videoglue` for what is taken over several.
        split: what was scored.
        adaptation: frozen, mlap, adapter, finetune, zero-shot, fine-tuned, all, or task-specialized.
        metric: evalkit's name of it.
        value: as printed; rates in 0..100.
        note: what a reader must know of it.
    """

    source: str
    table: str
    row: str
    task: str
    split: str
    adaptation: str
    metric: str
    value: float
    note: str


@functools.cache
def published_numbers() -> Sequence[Number]:
    """All of them, in the order of the file."""
    (file,) = (path for home in evalkit.__path__ if (path := Path(home) / "leaderboard/published.csv").is_file())
    found = []
    for where, row in read_table(file, Number._fields):
        with error_context(where):
            SOURCES[row["source"]]
            found.append(Number(**{**row, "value": float(row["value"])}))  # type: ignore[arg-type]
    return found


def rows(task: str, metric: str, adaptation: str, split: str = "") -> dict[str, float]:
    """Value by model, of the first source that prints it: what `Task.published` holds.

    Args:
        task: evalkit's name of it.
        metric: its headline.
        adaptation: as `Number` has it.
        split: only looked at where several are printed; empty: any.
    """
    asked = (task, metric, adaptation)
    found = [
        n for n in published_numbers() if (n.task, n.metric, n.adaptation) == asked and "training data" not in n.note
    ]
    several = split and len({number.split for number in found}) > 1
    values: dict[str, float] = {}
    for number in found:
        if not several or number.split == split:
            values.setdefault(number.row, number.value)
    return values
