"""Subsets of training examples: a few seeded ones of each class, or a share of each."""

from __future__ import annotations

import random
from collections.abc import Sequence

from evalkit.api import Example
from evalkit.errors import UserError, counted


def few_shot(
    examples: Sequence[Example], classes: Sequence[str], shots: int, seed: int, *, at_most: bool = False
) -> list[Example]:
    """Draws `shots` examples of each class, in their original order.

    The choice depends on the seed, the class and the ids alone; more shots include those of fewer.

    Args:
        examples: one class each.
        classes: names; a target is an index into them.
        shots: examples of each class, above 0.
        seed: of the draw.
        at_most: take all examples of a class that has fewer, in place of an error.

    Raises:
        UserError: a class has fewer examples, there are no classes, or an example has several.
    """
    if not classes or any(not isinstance(example.target, int) for example in examples):
        has = "an example of this task has several" if classes else "this task has none"
        raise UserError(f"trainer.shots={shots} needs a task with classes, one per example; {has}")
    chosen: set[str] = set()
    for number, name in enumerate(classes):
        ids = sorted(example.id for example in examples if example.target == number)
        if len(ids) < shots and not at_most:
            raise UserError(
                f"trainer.shots={shots}: class {name!r} has {counted(len(ids), 'training example')}; give no more"
            )
        random.Random(f"{seed} {number}").shuffle(ids)
        chosen.update(ids[:shots])
    return [example for example in examples if example.id in chosen]


def share_of(examples: Sequence[Example], classes: Sequence[str], share: float, seed: int) -> list[Example]:
    """Draws a share of the examples of each class, at least one, in their original order.

    The choice depends on the seed, the class and the ids alone; a larger share includes a smaller one.
    Where examples have several classes, or none, it is a share of them all, and further ones until each class that they
    have is there.

    Args:
        examples: to draw from.
        classes: names; a target is an index into them, or several; empty where there are none.
        share: above 0, up to 1; to the nearest example.
        seed: of the draw.
    """
    by_class: dict[int, list[str]] = {}
    of_each: dict[str, tuple[int, ...]] = {}
    for example in examples:
        single = bool(classes) and isinstance(example.target, int)
        by_class.setdefault(example.target if single else -1, []).append(example.id)
        if classes and isinstance(example.target, tuple):
            of_each[example.id] = tuple(number for number in example.target if isinstance(number, int))
    chosen: set[str] = set()
    for number, ids in sorted(by_class.items()):
        random.Random(f"{seed} {number}").shuffle(ids := sorted(ids))
        chosen.update(ids[: max(1, round(share * len(ids)))])
        present = {name for id in chosen for name in of_each.get(id, ())}
        for id in ids:
            if not present.issuperset(of_each.get(id, ())):
                chosen.add(id)
                present.update(of_each[id])
    return [example for example in examples if example.id in chosen]
