"""The mini world with captions: the films of EgoSchema's miniature, and shorter ones of three steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from evalkit.api import Example
from evalkit.captions import Captioned, Narrated, Searched, Told
from evalkit.mini import classes, language, world
from evalkit.mini.library import Films

TRAIN, TEST = 300, 100


def whole() -> Searched:
    """Three-minute films of six steps, one caption each."""
    return _searched(lambda name, path, story: [Captioned(name, path, [str(story)])])


def several() -> Searched:
    """The films of `whole` with two captions each, of which the second tells the first four steps only."""
    return _searched(lambda name, path, story: [Captioned(name, path, [str(story), str(_part(story, 0, 4))])])


def parts() -> Searched:
    """The two halves of the films of `whole`, as videos of their own with a caption each."""

    def halves(name: str, path: Path, story: world.Story) -> Iterator[Captioned]:
        for first, last in ((0, 3), (3, 6)):
            span = story.times()[first][0], story.times()[last - 1][1]
            yield Captioned(f"{name}_{first}", path, [str(_part(story, first, last))], span)

    return _searched(lambda *film: list(halves(*film)))


def steps() -> Narrated:
    """Twelve-second films of three steps, each told in a sentence."""
    films = classes.three_step_films()
    found = told(films)
    return Narrated(found[classes.TRAIN :], found[: classes.TRAIN], films.provide)


def told(films: Films) -> list[Told]:
    """Films with a sentence about each of their steps."""
    return [
        Told(
            path.stem,
            path,
            one.seconds,
            [(*span, str(step)) for span, step in zip(one.times(), one.steps, strict=True)],
        )
        for path, one in zip(films.paths, films.stories, strict=True)
    ]


def stories() -> Searched:
    """The films of `steps`, one caption each, which tells all three in order."""
    films = classes.three_step_films()
    found = [Captioned(path.stem, path, [str(story)]) for path, story in zip(films.paths, films.stories, strict=True)]
    return Searched(found[classes.TRAIN :], found[: classes.TRAIN], provide=films.provide)


def _part(story: world.Story, first: int, last: int) -> world.Story:
    return world.Story(story.steps[first:last], story.background)


def _searched(tell: Callable[[str, Path, world.Story], list[Captioned]]) -> Searched:
    films = {split: _films(split, n) for split, n in (("train", TRAIN), ("test", TEST))}

    def provide(examples: Sequence[Example]) -> None:
        for one in films.values():
            one.provide(examples)

    found = {
        split: [
            captioned
            for path, story in zip(own.paths, own.stories, strict=True)
            for captioned in tell(f"{split}-{path.stem}", path, story)
        ]
        for split, own in films.items()
    }
    return Searched(found["test"], found["train"], provide=provide)


def _films(split: str, n: int) -> Films:
    return Films(f"three-minutes-{split}", [question.story for question in language.questions(split, n)], fps=2)
