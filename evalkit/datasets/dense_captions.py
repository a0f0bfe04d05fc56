"""Dense captions: an example is a segment, which is told in words; the score is of videos, with all their segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evalkit.api import Example, Task
from evalkit.datasets.captions import QUESTION, SegmentedVideo, SegmentSplits, described
from evalkit.datasets.files import error_context, read_json
from evalkit.errors import UserError
from evalkit.metrics.text.dense import dense_by_video, dense_by_video_meteor

Span = tuple[float, float]


def dense_captioning_task(found: SegmentSplits, segments: str, meteor: bool, **words: Any) -> Task:
    """A task of telling the segments of each video, scored by densevid_eval's rule; trained on given segments.

    Args:
        found: the videos, and what was told of them.
        segments: given are the annotated ones (of the first who told); even cuts each video into as many equal parts
            as training videos have on average; else a JSON file of proposals, {results: {video: [{timestamp}, ...]}}.
        meteor: score METEOR and SODA_c, too.
        words: what else `evalkit.api.Task` takes.

    Raises:
        UserError: there is no such file, it has no proposal for a video, or there is nothing to count even parts by.
    """
    cut = _cutter(found, segments)
    return Task(
        test=[example for one in found.test for example in _examples(one, cut(one))],
        train=described(found.segments().train),
        score=dense_by_video_meteor if meteor else dense_by_video,
        controls=("blind", "shuffled"),
        protocol=segments if segments in ("given", "even") else "proposed",
        prepare_videos=found.prepare_videos,
        **words,
    )


def _examples(one: SegmentedVideo, spans: Sequence[Span]) -> list[Example]:
    references = [
        [{"segment": [start, end], "sentence": said} for start, end, said in parts]
        for parts in (one.parts, *one.others)
    ]
    return [
        Example(
            f"{one.name}_{k}",
            one.video,
            {"video": one.name, "segment": list(span), "references": references},
            span,
            QUESTION,
        )
        for k, span in enumerate(spans)
    ]


def _cutter(found: SegmentSplits, segments: str) -> Callable[[SegmentedVideo], Sequence[Span]]:
    if segments == "given":
        return lambda one: [(start, end) for start, end, _ in one.parts]
    if segments == "even":
        if not found.train:
            raise UserError("data.segments=even needs the training videos, whose parts it counts; add their file")
        n = round(fmean(len(one.parts) for one in found.train))
        return lambda one: [(k * one.seconds / n, (k + 1) * one.seconds / n) for k in range(n)]
    if not segments.endswith(".json"):
        raise UserError(f"data.segments={segments}: wanted given, even, or a json file of proposals")
    proposed = _proposals(Path(segments))
    if absent := [one.name for one in found.test if not proposed.get(_bare(one.name))]:
        raise UserError(
            f"data.segments={segments}: no proposal for {len(absent)} of {len(found.test)} videos, first {absent[0]}"
        )
    return lambda one: proposed[_bare(one.name)]


def _proposals(file: Path) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    with error_context(str(file)):
        entries = read_json(file, dict)["results"].items()
    for name, events in entries:
        with error_context(f"{file}, video {name}"):
            found[_bare(name)] = [_span(event["timestamp"]) for event in events]
    return found


def _span(times: Any) -> Span:
    start, end = map(float, times)
    if not 0 <= start < end < math.inf:
        raise ValueError(f"no segment from {start:g} to {end:g} s")
    return start, end


def _bare(name: str) -> str:
    """A video's id; some files have it with v_, others without."""
    return name.removeprefix("v_")
