"""Dense captions: an example is a segment, which is told in words; the score is of videos, with all their segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from evalkit.api import Example, Task, UserError
from evalkit.datasets.captions import Narrated, Told, described
from evalkit.datasets.files import read_json, told
from evalkit.metrics.bootstrap import Summed
from evalkit.metrics.text import captions, dense, meteor
from evalkit.mini.language import QUESTION

Span = tuple[float, float]


def narrate(found: Narrated, segments: str, meteor: bool, **words: Any) -> Task:
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
        score=by_video_meteor if meteor else by_video,
        controls=("blind", "shuffled"),
        protocol=segments if segments in ("given", "even") else "proposed",
        provide=found.provide,
        **words,
    )


def by_video(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
    """`dense` of evalkit/metrics/text/dense.py, over the videos whose segments the examples are.

    A failed segment is one of which nothing is said. Where targets are captions alone, as those of training are, it is
    `captions` of evalkit/metrics/text/captions.py.

    Args:
        predictions: what is said of each segment; None for a failed one.
        targets: of each, {"video": name, "segment": [start, end], "references": all that people told of the video}.

    Raises:
        UserError: a prediction or a target is not so.
    """
    if not isinstance(targets[0], Mapping):
        return dict(captions.captions(predictions, targets))
    return _by_video(dense.dense, predictions, targets)


@meteor.beside(by_video)
def by_video_meteor(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
    """What `by_video` gives, `METEOR` and `SODA_c`; needs evalkit[captions].

    Raises:
        UserError: as `by_video`, and where METEOR cannot run.
    """
    if not isinstance(targets[0], Mapping):
        return dict(captions.captions_meteor(predictions, targets))
    return _by_video(dense.dense_meteor, predictions, targets)


def _by_video(
    score: Callable[[Sequence[Any], Sequence[Any]], Mapping[str, float]],
    predictions: Sequence[Any],
    targets: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    events: dict[str, list[dict[str, Any]]] = {}
    first: dict[str, int] = {}  # of each video's examples
    for i, (said, target) in enumerate(zip(predictions, targets, strict=True)):
        first.setdefault(target["video"], i)
        events.setdefault(target["video"], []).append({"segment": target["segment"], "sentence": _sentence(said)})
    found = score(list(events.values()), [targets[i]["references"] for i in first.values()])
    return {name: _on_examples(value, list(first.values()), len(targets)) for name, value in found.items()}


def _on_examples(value: float, places: Sequence[int], n: int) -> float:
    """A score that is made of videos, as one of n examples: what a video adds, its first example does."""
    if not isinstance(value, Summed):
        return value
    parts = np.zeros((n, value.parts.shape[1]))
    parts[list(places)] = value.parts
    return Summed(parts, value.of)


def _sentence(said: Any) -> str:
    """What is said of a segment; for a target in place of a prediction, the sentence of the event nearest in time."""
    if isinstance(said, Mapping):
        start, end = said["segment"]
        events = (event for told_of in said["references"] for event in told_of)
        said = min(events, key=lambda one: abs(one["segment"][0] - start) + abs(one["segment"][1] - end))["sentence"]
    return said or ""


def _examples(one: Told, spans: Sequence[Span]) -> list[Example]:
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


def _cutter(found: Narrated, segments: str) -> Callable[[Told], Sequence[Span]]:
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
    with told(str(file)):
        entries = read_json(file, dict)["results"].items()
    for name, events in entries:
        with told(f"{file}, video {name}"):
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
