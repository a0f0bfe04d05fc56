"""Where the splits of a task have another number of examples than was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.api import Task

SPLITS = ("train", "val", "test")


def published_size(task: Task, split: str) -> int | None:
    """How many examples of a split were published; None where that is unknown.

    Where paper and files have different numbers, the one that there are, else the paper's.
    """
    sizes = task.sizes.get(split)
    known = (sizes,) if isinstance(sizes, int) else sizes or (None,)
    count = len(getattr(task, split))
    return count if count in known else known[0]


def different_sets(differences: Sequence[Mapping[str, Any]]) -> str:
    """Which splits have another size than published, as `different test set`; empty if none has."""
    return f"different {' and '.join(split['split'] for split in differences)} set" if differences else ""


def size_differences(task: Task, splits: Sequence[str] = SPLITS) -> list[dict[str, Any]]:
    """The splits that have examples, and another number of them than published: split, examples, published."""
    sizes = [(split, len(getattr(task, split)), published_size(task, split)) for split in splits]
    return [
        {"split": split, "examples": count, "published": published}
        for split, count, published in sizes
        if count and published not in (None, count)
    ]
