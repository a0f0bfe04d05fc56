"""Classes of classification benchmarks, and the labeled examples of their splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.api import Example
from evalkit.datasets.files import LabeledSplits
from evalkit.errors import UserError, counted, suggest


def class_named(name: str, number: Mapping[str, int]) -> int:
    """The number of a class by its name; raises ValueError where there is none."""
    if name not in number:
        raise ValueError(f"no class {name!r:.80}.{suggest(name, number)}")
    return number[name]


def check_classes(root: Path, names: Sequence[str], expected: int) -> tuple[str, ...]:
    """The names of the classes, checked.

    Raises:
        UserError: there are more or fewer than the benchmark has, or two of one name.
    """
    if len(set(names)) != expected or len(names) != expected:
        raise UserError(
            f"data.root={root}: its files name {counted(len(set(names)), 'class')}; wanted {expected}, as published "
            "(videos may be missing); a few classes of your own are a task=folder, by a csv of path,label,split"
        )
    return tuple(names)


def labeled_examples(rows: Iterable[tuple[str, Path, Any]]) -> list[Example]:
    """An example per row of name, video and target, with the name as its id.

    Equal rows count once. A video with several targets gives an example for each; ids after the first end with the
    target.

    Raises:
        UserError: two videos have one name and one target.
    """
    examples: dict[str, Example] = {}
    for name, path, target in rows:
        example = Example(name, path, target)
        if examples.get(name, example).target != target:
            example = Example(f"{name}={target}", path, target)
        if examples.setdefault(example.id, example) != example:
            raise UserError(f"two videos are named {name}: {examples[example.id].video} and {path}; rename one")
    return list(examples.values())


def as_label_sets(splits: LabeledSplits) -> LabeledSplits:
    """The same examples with a set of classes as target: the tuple of their one class."""
    train, test = ([replace(e, target=(e.target,)) for e in examples] for examples in (splits.train, splits.test))
    return splits._replace(train=train, test=test)
