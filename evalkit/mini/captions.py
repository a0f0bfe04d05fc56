"""The mini world with captions: the films of EgoSchema's miniature, and what happens in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from evalkit.api import Example
from evalkit.datasets.captions import CaptionedVideo, CaptionSplits, SegmentedVideo, SegmentSplits
from evalkit.mini import world
from evalkit.mini.library import three_minutes

TRAIN, TEST = 300, 100
SEARCHED = {"train": TRAIN, "test": TEST}
NARRATED = {"train": 100, "test": 50}  # films, each of six steps
T = TypeVar("T")


def whole() -> CaptionSplits:
    """Three-minute films of six steps, one caption each."""
    return _searched(lambda name, path, story: [CaptionedVideo(name, path, [str(story)])])


def several() -> CaptionSplits:
    """The films of `whole` with two captions each, of which the second tells the first four steps only."""
    return _searched(lambda name, path, story: [CaptionedVideo(name, path, [str(story), str(_part(story, 0, 4))])])


def parts() -> CaptionSplits:
    """The two halves of the films of `whole`, as videos of their own with a caption each."""

    def halves(name: str, path: Path, story: world.Story) -> Iterator[CaptionedVideo]:
        for first, last in ((0, 3), (3, 6)):
            span = story.times()[first][0], story.times()[last - 1][1]
            yield CaptionedVideo(f"{name}_{first}", path, [str(_part(story, first, last))], span)

    return _searched(lambda *film: list(halves(*film)))


def steps() -> SegmentSplits:
    """Some of the films of `whole`, each of whose six steps is told in a sentence."""

    def describe(name: str, path: Path, story: world.Story) -> list[SegmentedVideo]:
        parts = [(*span, str(step)) for span, step in zip(story.times(), story.steps, strict=True)]
        return [SegmentedVideo(name, path, story.seconds, parts)]

    splits, prepare_videos = _splits(describe, NARRATED)
    return SegmentSplits(splits["test"], splits["train"], prepare_videos)


def _part(story: world.Story, first: int, last: int) -> world.Story:
    return world.Story(story.steps[first:last], story.background)


def _searched(describe: Callable[[str, Path, world.Story], list[CaptionedVideo]]) -> CaptionSplits:
    splits, prepare_videos = _splits(describe, SEARCHED)
    return CaptionSplits(splits["test"], splits["train"], prepare_videos=prepare_videos)


def _splits(
    describe: Callable[[str, Path, world.Story], list[T]], sizes: Mapping[str, int]
) -> tuple[dict[str, list[T]], Callable[[Sequence[Example]], None]]:
    """Descriptions of so many films of each split, and the function that makes these films."""
    films = {split: three_minutes(split, n) for split, n in sizes.items()}

    def prepare_videos(examples: Sequence[Example]) -> None:
        for part in films.values():
            part.prepare_videos(examples)

    splits = {
        split: [
            video
            for path, story in zip(part.paths, part.stories, strict=True)
            for video in describe(f"{split}-{path.stem}", path, story)
        ]
        for split, part in films.items()
    }
    return splits, prepare_videos
