"""Tasks of videos with captions: retrieval with an example per caption, captioning with an example per video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evalkit.api import Example, Task, Views
from evalkit.datasets.miniature import miniature
from evalkit.metrics.retrieval import retrieval
from evalkit.metrics.text import meteor as meteor_program
from evalkit.metrics.text.captions import captions, captions_meteor
from evalkit.metrics.text.paragraph import paragraph, paragraph_meteor

QUESTION = "What happens in this video, from beginning to end?"

Segment = tuple[float, float, str]  # start and end in seconds, and its sentence
FrameSampling = Literal["first", "uniform"]

# LongViViT (https://arxiv.org/abs/2312.07395, table 3): 256 frames at one a second; or as many over the whole video.
PARAGRAPH_VIEWS: dict[FrameSampling, Views] = {
    "first": Views("fps", frames=256, fps=1.0),
    "uniform": Views("uniform", frames=256),
}


class CaptionedVideo(NamedTuple):
    """A video, or a segment of one, and its captions.

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
    """A video with a sentence for each of its segments.

    Attributes:
        seconds: its length.
        segments: start, end in seconds and sentence of each.
        others: the segments of other annotators.
    """

    name: str
    video: Path
    seconds: float
    segments: Sequence[Segment]
    others: Sequence[Sequence[Segment]] = ()


class SegmentSplits(NamedTuple):
    """Videos with a sentence for each segment, split as in `evalkit.api.Task`."""

    test: Sequence[SegmentedVideo]
    train: Sequence[SegmentedVideo] = ()
    prepare_videos: Callable[[Sequence[Example]], None] | None = None

    def segments(self) -> CaptionSplits:
        """Each segment as a video of its own, with its sentence."""

        def cut(videos: Sequence[SegmentedVideo]) -> list[CaptionedVideo]:
            return [
                CaptionedVideo(f"{video.name}_{k}", video.video, [sentence], (start, end))
                for video in videos
                for k, (start, end, sentence) in enumerate(video.segments)
            ]

        return CaptionSplits(cut(self.test), cut(self.train), prepare_videos=self.prepare_videos)

    def paragraphs(self) -> CaptionSplits:
        """Each whole video with all its sentences as one paragraph; one paragraph per annotator.

        A sentence that is published without a full stop gets one.
        """

        def join(videos: Sequence[SegmentedVideo]) -> list[CaptionedVideo]:
            return [
                CaptionedVideo(v.name, v.video, [_paragraph(segments) for segments in (v.segments, *v.others)])
                for v in videos
            ]

        return CaptionSplits(join(self.test), join(self.train), prepare_videos=self.prepare_videos)


def retrieval_task(splits: CaptionSplits, mini: bool = False, **facts: Any) -> Task:
    """A retrieval task: each caption searches its video among those of its split, and each video its captions.

    Args:
        splits: the videos and their captions.
        mini: they are the miniature's.
        facts: other fields of `evalkit.api.Task`.
    """
    return Task(
        test=retrieval_examples(splits.test),
        train=retrieval_examples(splits.train),
        val=retrieval_examples(splits.val),
        score=retrieval,
        controls=("shuffled", "single_frame"),
        chance=100 / max(1, len(splits.test)),
        prepare_videos=splits.prepare_videos,
        **(miniature(facts) if mini else facts),
    )


def captioning_task(splits: CaptionSplits, meteor: bool, mini: bool = False, **facts: Any) -> Task:
    """A captioning task: one sentence per video or segment; several captions of one are its references.

    Args:
        splits: the videos and their captions.
        meteor: score METEOR, too.
        mini: they are the miniature's.
        facts: other fields of `evalkit.api.Task`.
    """
    return _captioning(
        splits,
        mini,
        score=captions_meteor if meteor else captions,
        quick_score=meteor_program.warming(captions) if meteor else None,
        views=Views("uniform"),
        **facts,
    )


def paragraph_task(
    splits: CaptionSplits, frames: FrameSampling, meteor: bool, mini: bool = False, **facts: Any
) -> Task:
    """A paragraph captioning task: one paragraph per whole video, scored by the paragraph rule.

    Args:
        splits: the videos and their paragraphs.
        frames: a key of `PARAGRAPH_VIEWS`.
        meteor: score METEOR, too.
        mini: they are the miniature's, with as many frames as the encoder takes, uniform over the film.
        facts: other fields of `evalkit.api.Task`.
    """
    return _captioning(
        splits,
        mini,
        score=paragraph_meteor if meteor else paragraph,
        quick_score=meteor_program.warming(paragraph) if meteor else None,
        views=Views("uniform") if mini else PARAGRAPH_VIEWS[frames],
        settings={"max_tokens": 100 if mini else 400},  # the longest paragraphs have 330 words
        **facts,
    )


def retrieval_examples(videos: Iterable[CaptionedVideo]) -> list[Example]:
    """An example per caption, whose target names the video as `evalkit.metrics.retrieval.retrieval` expects."""
    videos = list(videos)
    several = any(len(video.captions) > 1 for video in videos)
    return [
        Example(
            f"{video.name}#{k}" if several else video.name,
            video.video,
            (video.name, k) if several else video.name,
            video.span,
            caption,
        )
        for video in videos
        for k, caption in enumerate(video.captions)
    ]


def _captioning(splits: CaptionSplits, mini: bool, **facts: Any) -> Task:
    return Task(
        test=caption_examples(splits.test),
        train=caption_examples(splits.train),
        val=caption_examples(splits.val),
        controls=("blind", "shuffled"),
        prepare_videos=splits.prepare_videos,
        **(miniature(facts) if mini else facts),
    )


def caption_examples(videos: Iterable[CaptionedVideo]) -> list[Example]:
    """An example per video, whose target is the tuple of its captions."""
    return [Example(v.name, v.video, tuple(v.captions), v.span, QUESTION) for v in videos]


def clean_text(value: Any, name: str = "caption") -> str:
    """A text, stripped.

    Args:
        value: as parsed.
        name: what the text is, for the error.

    Raises:
        ValueError: the value is not text, or blank.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} {value!r} is not text")
    return value.strip()


def _paragraph(segments: Sequence[Segment]) -> str:
    return " ".join(sentence if sentence[-1] in ".!?" else f"{sentence}." for _, _, sentence in segments)
