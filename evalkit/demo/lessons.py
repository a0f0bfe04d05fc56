"""Lessons: films to learn from, and what happens in them.

For an encoder, each film has its caption and near misses of it. Short clips come first, then whole films, as in
LongViViT (https://arxiv.org/abs/2312.07395): a motion is plain in a single step and hard to find in three minutes. Near
misses ask for motion and order, which other films' captions do not. For a captioner, which must find out as well when
each step is, parts of films come between.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from evalkit.api import Example, Task, Views
from evalkit.datasets.captions import QUESTION
from evalkit.metrics.classification import accuracy
from evalkit.metrics.text.captions import captions as text_score
from evalkit.mini import language, library, world
from evalkit.mini.library import Films

ADAPTER = "contrastive"
Lesson = Literal["steps", "films", "told_steps", "told_parts", "told_films", "told_both"]
# Steps that are told together, and frames of the clip: about as far apart as those of a whole film.
TOLD: dict[Lesson, tuple[tuple[int, ...], int | None]] = {
    "told_steps": ((1,), 16),
    "told_parts": ((2, 3), 32),
    "told_films": ((language.STEPS,), None),
}


def task(lesson: Lesson = "steps", films: int = 1800) -> Task:
    """Tell a film's caption from near misses; or, for adapter=captioner, say what happens in it.

    Args:
        lesson: steps are the single steps of the films, 16 frames each; films are whole, in the encoder's own clip;
            told_steps and told_films are the same, to be told, and told_parts any two or three steps that follow each
            other, in 32 frames; told_both are whole films and a step of each, both in the encoder's own clip.
        films: training films; each has six steps in three minutes.
    """
    if lesson in TOLD:
        return _told(films, *TOLD[lesson])
    if lesson == "told_both":
        return _told_both(films)
    (train, train_films), (test, test_films) = _split("train", films, lesson), _split("test", 100, lesson)

    def prepare_videos(examples: Sequence[Example]) -> None:
        train_films.prepare_videos(examples)
        test_films.prepare_videos(examples)

    return Task(
        test=test,
        score=accuracy,
        train=train,
        views=Views("uniform", frames=16 if lesson == "steps" else None),
        chance=100 / len(test[0].choices),
        license="generated (Apache-2.0)",
        prepare_videos=prepare_videos,
    )


def _told(n: int, lengths: Sequence[int], frames: int | None) -> Task:
    """Captions of every part of a film that has one of these numbers of steps."""
    films = library.three_minutes("train", n)
    examples = [
        [
            _part(path, story, first, first + steps, films.fps)
            for steps in lengths
            for first in range(language.STEPS - steps + 1)
        ]
        for path, story in zip(films.paths, films.stories, strict=True)
    ]
    return _captioned(examples, frames, films)


def _told_both(n: int) -> Task:
    """Captions of each whole film, and of one of its steps."""
    films = library.three_minutes("train", n)
    examples = []
    for i, (path, story) in enumerate(zip(films.paths, films.stories, strict=True)):
        spans = (0, language.STEPS), (i % language.STEPS, i % language.STEPS + 1)
        examples.append([_part(path, story, first, last, films.fps) for first, last in spans])
    return _captioned(examples, None, films)


def _captioned(examples: Sequence[Sequence[Example]], frames: int | None, films: Films) -> Task:
    """A captioning task from each film's examples: the first 20 films are the test split, the next 40 val."""
    test, val, train = (list(itertools.chain(*part)) for part in (examples[:20], examples[20:60], examples[60:]))
    return Task(
        test=test,
        val=val,
        train=train,
        score=text_score,
        views=Views("uniform", frames=frames),
        license="generated (Apache-2.0)",
        prepare_videos=films.prepare_videos,
    )


def _part(path: Path, story: world.Story, first: int, last: int, fps: int) -> Example:
    """Example of a film's steps from `first` to before `last`, with their caption."""
    part = world.Story(story.steps[first:last], story.background)
    whole = len(part.steps) == len(story.steps)
    span = None if whole else _span(story, first, last, fps)
    return Example(f"{path.stem}-{first}-{last}", path, (str(part),), span, QUESTION)


def _span(story: world.Story, first: int, last: int, fps: int) -> tuple[float, float]:
    """Start and end in seconds of steps; where one starts between two frames, the one shown then is still before."""
    times = story.times()
    return times[first][0] + 1 / fps, times[last - 1][1]


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
        for i, step in enumerate(story.steps):
            captions = _captions(f"{name}-{i}", world.Story((step,), story.background), ("appearance", "motion"), 4)
            span = _span(story, i, i + 1, films.fps)
            examples.append(Example(f"{name}-{i}", path, captions.index(str(step)), span, choices=captions))
    return examples, films


def _captions(name: str, story: world.Story, kinds: Sequence[language.Kind], n: int) -> tuple[str, ...]:
    """The right caption among n near misses of each kind, in an order drawn from the name."""
    rng = random.Random(f"lesson {name}")
    captions = [str(story), *language.near_misses(rng, story, kinds, n)]
    return tuple(rng.sample(captions, len(captions)))
