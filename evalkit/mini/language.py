"""The mini world in words: sentences to learn a language from, and questions with five options.

The options of one question are drawn alike and the film then shows one of them at random, so that the words alone
never tell which is right.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evalkit.datasets.captions import QUESTION
from evalkit.mini import world

Kind = Literal["appearance", "motion", "order", "shape"]
KINDS: tuple[Kind, ...] = ("appearance", "motion", "order")  # of which questions are; shapes are for lessons
Text = Literal["words", "told", "asked", "letter", "yes"]
# To compare is harder to learn than to tell, and comes first.
COMPARED: dict[Text, float] = {"words": 15, "told": 20, "asked": 10, "letter": 30, "yes": 25}
TOLD: dict[Text, float] = {"words": 10, "told": 50, "asked": 10, "letter": 15, "yes": 15}
STEPS = 6
SECONDS = 180.0
CYCLE_SECONDS = 15.0
WORDS = [*world.COLORS, *world.SHAPES, *world.ORDINALS, *{word: 0 for act in world.ACTIONS for word in act.split()}]


def options(rng: random.Random, original: world.Story, kind: Kind, n: int = 5) -> list[world.Story]:
    """Different stories that share all but what the kind says, in half of the steps (all, for order)."""
    changed = set(rng.sample(range(len(original.steps)), max(1, len(original.steps) // 2)))
    stories: dict[str, world.Story] = {}
    while len(stories) < n:
        if kind == "appearance":
            other = world.with_other_things(rng, original, changed)
        elif kind == "motion":
            other = world.with_other_actions(rng, original, changed)
        elif kind == "shape":
            other = world.with_other_shapes(rng, original, changed)
        else:
            other = world.with_other_order(rng, original)
        stories.setdefault(str(other), other)
    return list(stories.values())


def near_misses(rng: random.Random, story: world.Story, kinds: Sequence[Kind], n: int) -> list[str]:
    """Captions that are wrong of a film in appearance, motion, order or shapes alone, n of each of these kinds."""
    drawn = [[str(other) for other in options(rng, story, kind, n + 1)] for kind in kinds]
    return [caption for captions in drawn for caption in [other for other in captions if other != str(story)][:n]]


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
        ("What colour is it?", step.thing.color),
        ("What shape is it?", step.thing.shape),
        ("What does it do?", action),
    ]


def document(rng: random.Random, shares: Mapping[Text, float]) -> str:
    """One text to learn the language from: a story told one to three times, then what is asked of it and its answer.

    Args:
        rng: draws.
        shares: how often it is asked to tell the story again (`told`), something of its one step (`asked`), or as the
            scorers of multiple choice ask: which of some options it is (`letter`), and whether it is one (`yes`). Texts
            of `words` are lists of the world's words, repeated over and over: only looking back tells what comes next,
            which a model must learn before it can answer from what stands before the question.
    """
    times, kind = rng.randint(1, 3), rng.choices(list(shares), list(shares.values()))[0]
    if kind == "words":
        words = " ".join(rng.choice(WORDS) for _ in range(rng.randint(5, 25)))
        return " ".join([words] * (times + 1))
    if kind in ("letter", "yes"):
        return _compared(rng, by_letter=kind == "letter")
    story = world.story(rng, rng.randint(1, STEPS) if kind == "told" else 1, SECONDS, CYCLE_SECONDS)
    asked, answer = (QUESTION, str(story)) if kind == "told" else rng.choice(inquiries(story.steps[0]))
    return f"{f'{story}. ' * times}Question: {asked} Answer: {answer}"


def _compared(rng: random.Random, by_letter: bool) -> str:
    """A story, and a few questions one after another that show what is right beside what is not."""
    steps = rng.choice((1, 1, 1, 1, 2, 3, STEPS))
    story = world.story(rng, steps, SECONDS, CYCLE_SECONDS)
    questions = [offered(rng, story, by_letter) for _ in range(STEPS // steps)]
    return " ".join([f"{story}.", *(f"Question: {question} Answer: {answer}" for question, answer in questions)])


def offered(rng: random.Random, story: world.Story, by_letter: bool) -> tuple[str, str]:
    """A question about a story with one to five things that may be right, as multiple choice asks it, and its answer.

    Args:
        rng: draws.
        story: what is asked about.
        by_letter: which of two to five options it is; else whether it is the one option, yes or no.
    """
    question, right, others = _drawn(rng, story, rng.randint(1, 4) if by_letter else 1)
    place = rng.randint(0, len(others))
    if not by_letter:
        return (f"{question} Is it: {others[0]}?", "no") if place else (f"{question} Is it: {right}?", "yes")
    shown = zip(string.ascii_uppercase, [*others[:place], right, *others[place:]], strict=False)
    options = " ".join(f"{letter}: {option}" for letter, option in shown)
    return f"{question} Options: {options}", string.ascii_uppercase[place]


def _drawn(rng: random.Random, story: world.Story, n: int) -> tuple[str, str, list[str]]:
    """A question about a story, its answer, and n wrong ones; half of those about one step are of a word or two."""
    if len(story.steps) == 1 and rng.random() < 0.5:
        pools = list(world.COLORS), world.SHAPES, world.ACTIONS[:7]
        (question, right), pool = rng.choice(list(zip(inquiries(story.steps[0]), pools, strict=True)))
        return question, right, rng.sample([word for word in pool if word != right], n)
    kind = rng.choice(KINDS if len(story.steps) == STEPS else KINDS[:2])  # few steps have too few orders
    return QUESTION, str(story), near_misses(rng, story, [kind], n)


def documents(seed: int, n: int, shares: Mapping[Text, float] = COMPARED) -> Iterator[str]:
    """Texts of the language, the same for the same seed."""
    rng = random.Random(seed)
    return (document(rng, shares) for _ in range(n))
