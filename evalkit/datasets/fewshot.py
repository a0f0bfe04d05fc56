"""Few-shot subsets: a few seeded examples of each class."""

from __future__ import annotations

import random
from collections.abc import Sequence

from evalkit.api import Example
from evalkit.errors import UserError


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
            raise UserError(f"trainer.shots={shots}: class {name!r} has {len(ids)} training examples; give no more")
        random.Random(f"{seed} {number}").shuffle(ids)
        chosen.update(ids[:shots])
    return [example for example in examples if example.id in chosen]
