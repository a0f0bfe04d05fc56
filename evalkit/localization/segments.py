"""Segments with labels in long videos: ActivityNet's JSON, which THUMOS14's shares, and files of predictions."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.datasets.files import parsing_errors_at, read_json, same_split
from evalkit.errors import UserError, suggest

logger = logging.getLogger("evalkit")

AMBIGUOUS = "Ambiguous"  # THUMOS14's label of what belongs to no class; its evaluation leaves it out
DUPLICATE_SECONDS = 1e-3  # two annotations of a label that are nearer than this are one, in ActionFormer's reader

Segment = list[Any]  # start and end in seconds, label; of a prediction also its score


class LabeledVideo(NamedTuple):
    """A video and its segments.

    Attributes:
        name: its id in the file.
        subset: the split, as the file calls it.
        seconds: its length.
        segments: [start, end, label] of each; may be none.
    """

    name: str
    subset: str
    seconds: float
    segments: list[Segment]


class LabeledVideos(NamedTuple):
    """The videos of a file, and what of it is unusual.

    Attributes:
        videos: in the order of the file.
        classes: the labels in alphabetical order.
        past_end: annotated segments that end after their video, which are kept as they are.
        no_length: annotated segments that end where they start, which are kept as they are.
        left_out: ambiguous ones, and repeated ones where those are dropped.
    """

    videos: list[LabeledVideo]
    classes: tuple[str, ...]
    past_end: int
    no_length: int
    left_out: int

    def of(self, subset: str) -> list[LabeledVideo]:
        """The videos of one split, by any of its names: training is train."""
        return [video for video in self.videos if same_split(video.subset, subset)]


def read_segments(file: Path, drop_repeated: bool = False) -> LabeledVideos:
    """Reads {"database": {id: {subset, duration, annotations: [{segment: [start, end], label}, ...]}, ...}}.

    Segments that end after their video or have no length stand in ActivityNet itself. Its evaluation takes them as they
    are, and so does this: they are counted, and told in one line.

    Args:
        file: ActivityNet's (activity_net.v1-3.min.json), or THUMOS14's as ActionFormer and OpenTAD share it.
        drop_repeated: of annotations of one label that are equal to a millisecond keep the first, as ActionFormer does.

    Raises:
        UserError: the file is missing or names video and annotation that are not as published: a segment that starts
            before 0 or ends before it starts, a number that is none, a label that is not text, a length of 0.
    """
    with parsing_errors_at(str(file)):
        entries = list(read_json(file, dict)["database"].items())
    videos: list[LabeledVideo] = []
    past_end = no_length = left_out = 0
    for name, entry in entries:
        with parsing_errors_at(f"{file}, video {name}"):
            seconds, subset = _number(entry["duration"], "duration"), entry["subset"]
            if seconds <= 0 or not isinstance(subset, str):
                raise ValueError(f"duration {seconds:g}, subset {subset!r}; wanted seconds above 0 and a name")
            annotations = entry.get("annotations", [])
            if not isinstance(annotations, list):
                raise ValueError(f"annotations is a {type(annotations).__name__}; wanted a list")
        segments: list[Segment] = []
        for number, annotation in enumerate(annotations, 1):
            with parsing_errors_at(f"{file}, video {name}, annotation {number}"):
                start, end, label = _segment(annotation)
            repeated = drop_repeated and any(
                label == other and max(abs(start - first), abs(end - last)) <= DUPLICATE_SECONDS
                for first, last, other in segments
            )
            if label == AMBIGUOUS or repeated:
                left_out += 1
                continue
            past_end += end > seconds
            no_length += start == end
            segments.append([start, end, label])
        videos.append(LabeledVideo(name, subset, seconds, segments))
    unusual = [
        f"kept as they are: segments that end after their video ({past_end:,}) or have no length ({no_length:,})"
        if past_end or no_length
        else "",
        f"{left_out:,} ambiguous or repeated annotations are left out" if left_out else "",
    ]
    if any(unusual):
        logger.info(f"{file}: {'; '.join(filter(None, unusual))}")
    classes = tuple(sorted({label for video in videos for _, _, label in video.segments}))
    return LabeledVideos(videos, classes, past_end, no_length, left_out)


def read_segment_predictions(
    file: Path, videos: Collection[str], classes: Collection[str]
) -> tuple[dict[str, list[Segment]], list[str]]:
    """Reads {"results": {id: [{segment: [start, end], label, score}, ...], ...}}, which ActivityNet's server takes.

    Args:
        file: of the predictions.
        videos: that are scored.
        classes: the labels that there are.

    Returns:
        [start, end, label, score] of each segment of each video that is scored and stands in the file; and the ids of
        the other videos of the file, without the prefix v_ where that makes no known one.

    Raises:
        UserError: the file is missing, or names video and prediction that are not so, have a label that is none of the
            classes, or end before they start.
    """
    with parsing_errors_at(str(file)):
        entries = list(read_json(file, dict)["results"].items())
    known, labels = set(videos), set(classes)
    predictions: dict[str, list[Segment]] = {}
    others: list[str] = []
    for name, results in entries:
        bare = name if name in known else name.removeprefix("v_")
        if bare not in known:
            others.append(name)
            continue
        if bare in predictions:
            raise UserError(f"{file}, video {name}: it appears twice")
        if not isinstance(results, list):
            raise UserError(f"{file}, video {name}: a {type(results).__name__}; wanted a list of segments")
        segments: list[Segment] = []
        for number, result in enumerate(results, 1):
            where = f"{file}, video {name}, prediction {number}"
            with parsing_errors_at(where):
                start, end, label = _segment(result)
                score = _number(result["score"], "score")
            if label not in labels:
                raise UserError(f"{where}: label {label!r} is not a class.{suggest(label, labels)}")
            segments.append([start, end, label, score])
        predictions[bare] = segments
    return predictions, others


def clipped(segments: Sequence[Segment], seconds: float) -> list[Segment]:
    """Segments cut at the end of their video, to learn from; those that have no length then are left out."""
    cut = [[start, min(end, seconds), *rest] for start, end, *rest in segments]
    return [segment for segment in cut if segment[0] < segment[1]]


def _segment(entry: Mapping[str, Any]) -> tuple[float, float, str]:
    bounds = entry["segment"]
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise ValueError(f"segment {str(bounds)[:60]}; wanted [start, end] in seconds")
    start, end = (_number(bound, "segment") for bound in bounds)
    if not 0 <= start <= end:
        raise ValueError(f"segment from {start:g} to {end:g} s; wanted 0 <= start <= end")
    label = entry["label"]
    if not isinstance(label, str) or not label.strip() or label != " ".join(label.split()):
        raise ValueError(f"label {label!r}; wanted the name of a class, in one line and without blanks around it")
    return start, end, label


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{what} {value!r}; wanted a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{what} {value!r}; wanted a finite number")
    return number
