"""Lessons: films to learn from, and what happens in them.

For an encoder, each film has its caption and near misses of it. Short clips come first, then whole films, as in
LongViViT (https://arxiv.org/abs/2312.07395): a motion is plain in a single step and hard to find in three minutes. Near
misses ask for motion and order, which other films' captions do not. For a captioner, films and their steps are told.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from evalkit.api import Example, Task, Views
from evalkit.metrics import accuracy
from evalkit.mini import language, library, world
from evalkit.mini.library import Films
from evalkit.wording.captions import captions as text_score

ADAPTER = "contrastive"
Lesson = Literal["steps", "films", "words"]


def task(lesson: Lesson = "steps", films: int = 1800) -> Task:
    """Tells a film's caption from others that are nearly right; or, for adapter=captioner, what happens in it.

    Args:
        lesson: steps are the single steps of the films, 16 frames each; films are whole, in the encoder's own clip;
            words are whole films and single steps, to be told.
        films: training films; each has six steps in three minutes.
    """
    if lesson == "words":
        return _words(films)
    (train, train_films), (test, test_films) = _split("train", films, lesson), _split("test", 100, lesson)

    def provide(examples: Sequence[Example]) -> None:
        train_films.provide(examples)
        test_films.provide(examples)

    return Task(
        test=test,
        score=accuracy,
        train=train,
        views=Views("uniform", frames=16 if lesson == "steps" else None),
        chance=100 / len(test[0].choices),
        licence="generated (Apache-2.0)",
        provide=provide,
    )


def _words(n: int) -> Task:
    """What happens in each film, and in one of its steps."""
    films = library.three_minutes("train", n)
    found = []
    for i, (path, story) in enumerate(zip(films.paths, films.stories, strict=True)):
        step = i % language.STEPS
        found.append(Example(path.stem, path, (str(story),), text=language.QUESTION))
        told = (str(story.steps[step]),)
        found.append(Example(f"{path.stem}-{step}", path, told, story.times()[step], language.QUESTION))
    return Task(
        test=found[:100],
        val=found[100:160],  # few: a text costs more to say than to learn
        train=found[160:],
        score=text_score,
        licence="generated (Apache-2.0)",
        provide=films.provide,
    )


def _split(split: str, n: int, lesson: Lesson) -> tuple[list[Example], Films]:
    """Examples of a split of egoschema's miniature, and its films by its own name for them, so that they are one."""
    films = library.three_minutes(split, n)
    examples = []
    for story, path in zip(films.stories, films.paths, strict=True):
        name = f"{split}-{path.stem}"
        if lesson == "films":
            captions = _captions(name, story, language.KINDS, 2)
            examples.append(Example(name, path, captions.index(str(story)), choices=captions))
            continue
        for i, (step, (start, end)) in enumerate(zip(story.steps, story.times(), strict=True)):
            captions = _captions(f"{name}-{i}", world.Story((step,), story.background), ("appearance", "motion"), 4)
            # Where a step starts between two frames, the one shown then is still the step before.
            span = (start + 1 / films.fps, end)
            examples.append(Example(f"{name}-{i}", path, captions.index(str(step)), span, choices=captions))
    return examples, films


def _captions(name: str, told: world.Story, kinds: Sequence[language.Kind], n: int) -> tuple[str, ...]:
    """The right caption among n near misses of each kind, in any order; the same for the same name."""
    rng = random.Random(f"lesson {name}")
    captions = [str(told), *language.near_misses(rng, told, kinds, n)]
    return tuple(rng.sample(captions, len(captions)))
