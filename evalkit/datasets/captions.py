"""Videos and what is said of them: one example per caption, to search by; or per video, to tell in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evalkit.api import Example, Task, Views
from evalkit.metrics.retrieval import retrieval
from evalkit.metrics.text.captions import captions, captions_meteor
from evalkit.metrics.text.paragraph import paragraph, paragraph_meteor

Part = tuple[float, float, str]  # start and end in seconds, and what is said of it
Frames = Literal["first", "uniform"]

# LongViViT (https://arxiv.org/abs/2312.07395, table 3): 256 frames, one a second; and the same number over all of it.
SUMMARY: dict[Frames, Views] = {"first": Views("fps", frames=256, fps=1.0), "uniform": Views("uniform", frames=256)}


class CaptionedVideo(NamedTuple):
    """A video, or a part of one, and its captions.

    Attributes:
        name: unique among those that are searched together.
        span: start and end in seconds; None means the whole video.
    """

    name: str
    video: Path
    captions: Sequence[str]
    span: tuple[float, float] | None = None


class CaptionSplits(NamedTuple):
    """Videos and their captions, split as in `evalkit.api.Task`."""

    test: Sequence[CaptionedVideo]
    train: Sequence[CaptionedVideo] = ()
    val: Sequence[CaptionedVideo] = ()
    prepare_videos: Callable[[Sequence[Example]], None] | None = None


class SegmentedVideo(NamedTuple):
    """A video of which each part has a sentence.

    Attributes:
        seconds: its length.
        parts: start, end in seconds and sentence of each.
        others: what other people told of it, each in parts of their own.
    """

    name: str
    video: Path
    seconds: float
    parts: Sequence[Part]
    others: Sequence[Sequence[Part]] = ()


class SegmentSplits(NamedTuple):
    """Videos of which each part has a sentence, split as in `evalkit.api.Task`."""

    test: Sequence[SegmentedVideo]
    train: Sequence[SegmentedVideo] = ()
    prepare_videos: Callable[[Sequence[Example]], None] | None = None

    def segments(self) -> CaptionSplits:
        """Each part as a video of its own, with its sentence."""

        def parts(of: Sequence[SegmentedVideo]) -> list[CaptionedVideo]:
            return [
                CaptionedVideo(f"{one.name}_{k}", one.video, [sentence], (start, end))
                for one in of
                for k, (start, end, sentence) in enumerate(one.parts)
            ]

        return CaptionSplits(parts(self.test), parts(self.train), prepare_videos=self.prepare_videos)

    def paragraphs(self) -> CaptionSplits:
        """Each video whole, with the paragraph of all its sentences; several where several people told it.

        A sentence ends with a full stop where it is published without one.
        """

        def whole(of: Sequence[SegmentedVideo]) -> list[CaptionedVideo]:
            return [
                CaptionedVideo(one.name, one.video, [_paragraph(parts) for parts in (one.parts, *one.others)])
                for one in of
            ]

        return CaptionSplits(whole(self.test), whole(self.train), prepare_videos=self.prepare_videos)


def retrieval_task(found: CaptionSplits, **words: Any) -> Task:
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
        prepare_videos=found.prepare_videos,
        **words,
    )


def captioning_task(found: CaptionSplits, meteor: bool, **words: Any) -> Task:
    """A task of telling each video, or part of one, in a sentence; several captions of one are its references.

    Args:
        found: the videos and their captions.
        meteor: score METEOR, too.
        words: what else `evalkit.api.Task` takes.
    """
    return _tell(found, score=captions_meteor if meteor else captions, views=Views("uniform"), **words)


def paragraph_task(found: CaptionSplits, frames: Frames, meteor: bool, mini: bool, **words: Any) -> Task:
    """A task of telling a whole video in a paragraph, scored by the paragraph rule.

    Args:
        found: the videos and their paragraphs.
        frames: of `SUMMARY`.
        meteor: score METEOR, too.
        mini: as many frames as the encoder takes, uniform over the film; no published number is about them.
        words: what else `evalkit.api.Task` takes.
    """
    return _tell(
        found,
        score=paragraph_meteor if meteor else paragraph,
        views=Views("uniform") if mini else SUMMARY[frames],
        settings={"max_tokens": 100 if mini else 400},  # the longest paragraphs have 330 words
        **words,
    )


def examples(videos: Iterable[CaptionedVideo]) -> list[Example]:
    """An example per caption, whose target names the video as `evalkit.metrics.retrieval.retrieval` wants it."""
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


def _tell(found: CaptionSplits, **words: Any) -> Task:
    return Task(
        test=described(found.test),
        train=described(found.train),
        val=described(found.val),
        controls=("blind", "shuffled"),
        prepare_videos=found.prepare_videos,
        **words,
    )


def described(videos: Iterable[CaptionedVideo]) -> list[Example]:
    """An example per video, whose target are its captions."""
    return [Example(one.name, one.video, tuple(one.captions), one.span, QUESTION) for one in videos]


def caption(value: Any, what: str = "caption") -> str:
    """A caption, or another text as it is called, without what is blank around it.

    Raises:
        ValueError: it is no text, or there is none.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what} {value!r} is no text")
    return value.strip()


def _paragraph(parts: Sequence[Part]) -> str:
    return " ".join(said if said[-1] in ".!?" else f"{said}." for _, _, said in parts)


QUESTION = "What happens in this video, from beginning to end?"
