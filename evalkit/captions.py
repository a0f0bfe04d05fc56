"""Videos and what is said of them: the published files, and one example of retrieval per caption."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.annotations import read_json, told
from evalkit.api import Example, Task
from evalkit.metrics import retrieval


class Captioned(NamedTuple):
    """A video, or a part of one, and its captions.

    Attributes:
        name: unique among those that are searched together.
        span: start and end in seconds; None means the whole video.
    """

    name: str
    video: Path
    captions: Sequence[str]
    span: tuple[float, float] | None = None


class Searched(NamedTuple):
    """The videos that are searched, split as in `evalkit.api.Task`."""

    test: Sequence[Captioned]
    train: Sequence[Captioned] = ()
    val: Sequence[Captioned] = ()
    provide: Callable[[Sequence[Example]], None] | None = None


class Told(NamedTuple):
    """A video of which each part has a sentence: its name, and start, end in seconds and sentence of each part."""

    name: str
    parts: Sequence[tuple[float, float, str]]


def search(found: Searched, **words: Any) -> Task:
    """A task of retrieval: each caption searches its video among those of its split, and each video its captions.

    Args:
        found: the videos.
        words: what else `evalkit.api.Task` takes.
    """
    return Task(
        test=examples(found.test),
        train=examples(found.train),
        val=examples(found.val),
        score=retrieval,
        controls=("shuffled", "single_frame"),
        chance=100 / max(1, len(found.test)),
        provide=found.provide,
        **words,
    )


def examples(videos: Iterable[Captioned]) -> list[Example]:
    """An example per caption, whose target names the video as `evalkit.metrics.retrieval` wants it."""
    videos = list(videos)
    several = any(len(one.captions) > 1 for one in videos)
    return [
        Example(
            f"{one.name}#{k}" if several else one.name,
            one.video,
            (one.name, k) if several else one.name,
            one.span,
            caption,
        )
        for one in videos
        for k, caption in enumerate(one.captions)
    ]


def caption(value: Any) -> str:
    """A caption, without what is blank around it.

    Raises:
        ValueError: it is no text, or there is none.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"caption {value!r} is no text")
    return value.strip()


def read_told(file: Path) -> list[Told]:
    """The videos of a file {name: {timestamps: [[start, end], ...], sentences: [...]}}, as ActivityNet Captions has it.

    Raises:
        UserError: the file cannot be read, or an entry is not so.
    """
    found: list[Told] = []
    for name, entry in read_json(file, dict).items():
        with told(f"{file}, video {name}"):
            pairs = zip(entry["timestamps"], entry["sentences"], strict=True)
            found.append(Told(name, _told([_part(times, sentence) for times, sentence in pairs])))
    return found


def read_youcook2(file: Path, subset: str) -> list[Told]:
    """The videos of one subset (training, validation) of YouCook2's own youcookii_annotations_trainval.json.

    Raises:
        UserError: the file cannot be read, or an entry is not as published.
    """
    with told(str(file)):
        database = read_json(file, dict)["database"].items()
    found = []
    for name, entry in database:
        with told(f"{file}, video {name}"):
            parts = _told([_part(one["segment"], one["sentence"]) for one in entry["annotations"]])
            if entry["subset"] == subset:
                found.append(Told(name, parts))
    return found


def _told(parts: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    if not parts:
        raise ValueError("no sentence")
    return parts


def _part(times: Any, sentence: Any) -> tuple[float, float, str]:
    start, end = times
    return float(start), float(end), caption(sentence)
