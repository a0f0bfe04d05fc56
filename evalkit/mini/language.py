"""The mini world in words: sentences to learn a language from, and questions with five options.

The options of one question are drawn alike and the film then shows one of them at random, so that the words alone
never tell which is right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from evalkit.mini import world

Kind = Literal["appearance", "motion", "order"]
KINDS: tuple[Kind, ...] = ("appearance", "motion", "order")
QUESTION = "What happens in this video, from beginning to end?"
STEPS = 6
SECONDS = 180.0
CYCLE_SECONDS = 15.0
WORDS = [*world.COLOURS, *world.SHAPES, *world.ORDINALS, *{word: 0 for act in world.ACTIONS for word in act.split()}]


def options(rng: random.Random, original: world.Story, kind: Kind, n: int = 5) -> list[world.Story]:
    """Different stories that share all but their appearance, motion or order in half of the steps (all, for order)."""
    changed = set(rng.sample(range(len(original.steps)), max(1, len(original.steps) // 2)))
    stories: dict[str, world.Story] = {}
    while len(stories) < n:
        if kind == "appearance":
            other = world.with_other_things(rng, original, changed)
        elif kind == "motion":
            other = world.with_other_actions(rng, original, changed)
        else:
            other = world.with_other_order(rng, original)
        stories.setdefault(str(other), other)
    return list(stories.values())


def near_misses(rng: random.Random, told: world.Story, kinds: Sequence[Kind], n: int) -> list[str]:
    """Captions that are wrong of a film in their appearance, motion or order alone, n of each of these kinds."""
    drawn = [[str(other) for other in options(rng, told, kind, n + 1)] for kind in kinds]
    return [caption for own in drawn for caption in [other for other in own if other != str(told)][:n]]


@dataclass(frozen=True)
class Question:
    """Five stories of which one, the `answer`, is filmed; they differ in `kind` alone."""

    kind: Kind
    options: tuple[world.Story, ...]
    answer: int

    @property
    def story(self) -> world.Story:
        return self.options[self.answer]


def questions(split: str, n: int) -> list[Question]:
    """The first n questions of a split, each kind in turn, about three-minute films; the same every time."""
    return [_question(random.Random(f"{split} {i}"), KINDS[i % len(KINDS)]) for i in range(n)]


def _question(rng: random.Random, kind: Kind) -> Question:
    stories = options(rng, world.story(rng, STEPS, SECONDS, CYCLE_SECONDS), kind)
    return Question(kind, tuple(stories), rng.randrange(len(stories)))


def clips(name: str, n: int) -> list[world.Story]:
    """The first n one-step stories of a set, ten seconds each; the same every time."""
    return [world.story(random.Random(f"{name} {i}"), 1, 10.0, 5.0) for i in range(n)]


def inquiries(step: world.Step) -> list[tuple[str, str]]:
    """Questions about a film of one step, and their answers."""
    action = str(step).removeprefix(f"a {step.thing} ")
    return [
        ("What colour is it?", step.thing.colour),
        ("What shape is it?", step.thing.shape),
        ("What does it do?", action),
    ]


def document(rng: random.Random) -> str:
    """One text to learn the language from: a story told one to three times, then what is asked of it and its answer.

    Every third text is a list of the world's words, told over and over: only looking back tells what comes next, which
    a model must learn before it can answer from what stands before the question.
    """
    times = rng.randint(1, 3)
    kind = rng.randrange(3)
    if kind == 0:
        words = " ".join(rng.choice(WORDS) for _ in range(rng.randint(5, 25)))
        return " ".join([words] * (times + 1))
    told = world.story(rng, rng.randint(1, STEPS) if kind == 1 else 1, SECONDS, CYCLE_SECONDS)
    asked, answer = (QUESTION, str(told)) if kind == 1 else rng.choice(inquiries(told.steps[0]))
    return f"{f'{told}. ' * times}Question: {asked} Answer: {answer}"


def documents(seed: int, n: int) -> Iterator[str]:
    """Texts of the language, the same for the same seed."""
    rng = random.Random(seed)
    return (document(rng) for _ in range(n))
