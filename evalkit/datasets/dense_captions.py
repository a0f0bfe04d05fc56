"""Dense captioning: an example is a segment of a video; the score is over videos with all their segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evalkit.api import Example, Task
from evalkit.datasets.captions import QUESTION, SegmentedVideo, SegmentSplits, caption_examples
from evalkit.datasets.files import Span, parsing_errors_at, read_json, time_span
from evalkit.datasets.miniature import miniature
from evalkit.errors import UserError, counted
from evalkit.metrics.text import meteor as meteor_program
from evalkit.metrics.text.dense import dense_by_video, dense_by_video_meteor


def dense_captioning_task(splits: SegmentSplits, segments: str, meteor: bool, mini: bool = False, **facts: Any) -> Task:
    """A dense captioning task, scored by densevid_eval's rule and trained on annotated segments.

    Args:
        splits: the videos and their annotated segments.
        segments: of test. given: the annotated ones (of the first annotator); even: each video in as many equal parts
            as training videos have on average; else a JSON file of proposals, {results: {video: [{timestamp}, ...]}}.
        meteor: score METEOR and SODA_c, too.
        mini: the videos are the miniature's.
        facts: other fields of `evalkit.api.Task`.

    Raises:
        UserError: the file is missing or lacks a video, or there is no train split to count even parts by.
    """
    cut = _cutter(splits, segments)
    return Task(
        test=[example for video in splits.test for example in _examples(video, cut(video))],
        train=caption_examples(splits.segments().train),
        score=dense_by_video_meteor if meteor else dense_by_video,
        quick_score=meteor_program.warming(dense_by_video) if meteor else None,
        controls=("blind", "shuffled"),
        protocol=segments if segments in ("given", "even") else "proposed",
        prepare_videos=splits.prepare_videos,
        **(miniature(facts) if mini else facts),
    )


def _examples(video: SegmentedVideo, spans: Sequence[Span]) -> list[Example]:
    references = [
        [{"segment": [start, end], "sentence": sentence} for start, end, sentence in segments]
        for segments in (video.segments, *video.others)
    ]
    return [
        Example(
            f"{video.name}_{k}",
            video.video,
            {"video": video.name, "segment": list(span), "references": references},
            span,
            QUESTION,
        )
        for k, span in enumerate(spans)
    ]


def _cutter(splits: SegmentSplits, segments: str) -> Callable[[SegmentedVideo], Sequence[Span]]:
    if segments == "given":
        return lambda video: [(start, end) for start, end, _ in video.segments]
    if segments == "even":
        if not splits.train:
            raise UserError("data.segments=even needs the training videos, whose parts it counts; add their file")
        n = round(fmean(len(video.segments) for video in splits.train))
        return lambda video: [(k * video.seconds / n, (k + 1) * video.seconds / n) for k in range(n)]
    if not segments.endswith(".json"):
        raise UserError(f"data.segments={segments}: wanted given, even, or a json file of proposals")
    proposed = _proposals(Path(segments))
    if absent := [video.name for video in splits.test if not proposed.get(_bare(video.name))]:
        raise UserError(
            f"data.segments={segments}: no proposal for {len(absent)} of {counted(len(splits.test), 'video')}, "
            f"first {absent[0]}"
        )
    return lambda video: proposed[_bare(video.name)]


def _proposals(file: Path) -> dict[str, list[Span]]:
    proposals: dict[str, list[Span]] = {}
    with parsing_errors_at(str(file)):
        entries = read_json(file, dict)["results"].items()
    for name, events in entries:
        with parsing_errors_at(f"{file}, video {name}"):
            proposals[_bare(name)] = [_span(event["timestamp"]) for event in events]
    return proposals


def _span(times: Any) -> Span:
    start, end = time_span(*times)
    if start == end:
        raise ValueError(f"no segment from {start:g} to {end:g} s")
    return start, end


def _bare(name: str) -> str:
    """A video's id without the prefix v_ that some files have."""
    return name.removeprefix("v_")
