"""Temporal action localization in long videos, which are read window by window."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from evalkit.api import Example, Score, Task, Views
from evalkit.datasets.files import LabeledSplits, parsing_errors_at, read_json, same_split
from evalkit.datasets.miniature import miniature
from evalkit.datasets.videos import find_videos, video_file
from evalkit.errors import UserError, counted, suggest
from evalkit.localization.segments import LabeledVideo, LabeledVideos, clipped
from evalkit.metrics import activitynet_map

logger = logging.getLogger("evalkit")

Windows = Literal["videoglue", "videoglue_table12", "thumos"]

# Seconds of a window, and from the start of one to that of the next.
WINDOWS: dict[str, tuple[float, float]] = {
    "videoglue": (16 / 15, 16 / 15),
    "videoglue_table12": (16.0, 16.0),
    "thumos": (16 / 30, 4 / 30),
    "mini": (4.0, 2.0),
}
GTAD: Mapping[str, Any] = {"head": "gtad"}
CLASSES_PER_VIDEO = 2  # of those in a file
MINI_SETTINGS = {
    "gtad": {"head": "gtad", "length": 48, "epochs": 6, "batch_size": 8, "lr": 2e-3},
    "actionformer": {"head": "actionformer", "length": 48, "epochs": 8, "batch_size": 8, "lr": 1e-3},
}
MINI_FRAMES = 16  # in a window


def labeled_splits(
    root: Path, videos: LabeledVideos, train: str, test: str, video_classes: Path | None = None
) -> LabeledSplits:
    """The videos of two subsets as examples, whose spans are their whole lengths.

    Segments that end after their video are cut there to learn from, and scored as they are. Where a file says which
    classes a test video has, the annotated ones stand for it in train, a part of which the epoch is chosen on.

    Args:
        root: folder with the videos as <id> or v_<id>, in any folder there.
        videos: and their segments.
        train: name of the subset to learn from.
        test: name of the subset that is scored.
        video_classes: classes of each test video from elsewhere; see `read_video_classes`.

    Raises:
        UserError: no video is scored or learned from that has a segment, or the file of classes is not so.
    """
    files = find_videos(root)
    of_test = videos.of(test)
    if not of_test:
        known = ", ".join(sorted({video.subset for video in videos.videos}))
        raise UserError(f"data.root={root}: no video of subset {test!r}; the subsets there are {known or 'none'}")
    if not any(video.segments for video in of_test):
        raise UserError(
            f"data.root={root}: none of {counted(len(of_test), 'video')} of subset {test!r} has a segment to score"
        )
    others = Counter(v.subset for v in videos.videos if not (same_split(v.subset, train) or same_split(v.subset, test)))
    if others:
        counts = ", ".join(f"{subset!r} ({count:,})" for subset, count in sorted(others.items()))
        logger.info(f"data.root={root}: videos of subsets other than {train!r} and {test!r} are left out: {counts}")
    names = [video.name for video in of_test]
    scores = read_video_classes(video_classes, names, videos.classes) if video_classes else {}

    def example(video: LabeledVideo, segments: Sequence[Any], scores: Mapping[str, float]) -> Example:
        path = video_file(files, root / "videos", f"v_{video.name}" if f"v_{video.name}" in files else video.name)
        return Example(video.name, path, segments, (0.0, video.seconds), class_scores=scores)

    of_train = sorted(videos.of(train), key=lambda video: video.name)  # what is learned knows no order of the file
    if of_train and not any(video.segments for video in of_train):
        raise UserError(
            f"data.root={root}: none of {counted(len(of_train), 'video')} of subset {train!r} has a segment to learn "
            "from"
        )
    learned = [(video, clipped(video.segments, video.seconds)) for video in of_train]
    return LabeledSplits(
        [example(video, cut, {label: 1.0 for *_, label in cut} if video_classes else {}) for video, cut in learned],
        [example(video, video.segments, scores.get(video.name, {})) for video in of_test],
        videos.classes,
    )


def segment_task(
    splits: LabeledSplits,
    windows: Windows,
    mini: bool = False,
    score: Score = activitynet_map,
    settings: Mapping[str, Any] = GTAD,
    **facts: Any,
) -> Task:
    """A temporal localization task, scored by mAP over tIoU.

    A window is sampled uniformly with the encoder's own number of frames: 16 of 16/15 s are 16 frames at 15 a second.
    Chance is what equal parts of each video score, as many as training videos have segments on average, with the
    commonest class of train.

    Args:
        splits: the videos; a target is [start, end, class] of each segment.
        windows: by name: videoglue, 16 frames at 15 a second without overlap, as VideoGLUE's README has it;
            videoglue_table12, 16 s without overlap, as its paper prints; thumos, 16 frames of 30 a second, every fourth
            frame, as ActionFormer has it.
        mini: they are the miniature's, with windows of their own.
        score: of the segments.
        settings: of adapter=localizer that the protocol prescribes.
        facts: other fields of `evalkit.api.Task`.
    """
    length, stride = WINDOWS["mini" if mini else windows]
    given = "classes from a file" if any(example.class_scores for example in splits.test) else ""
    protocol = "" if mini else ", ".join(filter(None, [windows, given]))
    return Task(
        train=splits.train,
        test=splits.test,
        classes=splits.classes,
        views=Views("uniform", MINI_FRAMES if mini else None, window=length, window_stride=stride),
        score=score,
        protocol=protocol,
        settings=MINI_SETTINGS[settings["head"]] if mini else settings,
        controls=("shuffled",),
        chance=equal_parts(splits, score),
        prepare_videos=splits.prepare_videos,
        **(miniature(facts) if mini else facts),
    )


def equal_parts(splits: LabeledSplits, score: Score) -> float:
    """The score of test videos cut into equal parts: as many as those of train have segments, with its likeliest class.

    0 where there is no train.
    """
    counts = Counter(label for example in splits.train for *_, label in example.target)
    if not counts:
        return 0.0
    n = max(1, round(fmean(len(example.target) for example in splits.train)))
    ((label, _),) = counts.most_common(1)
    parts = []
    for example in splits.test:
        seconds = example.span[1] if example.span else math.nan
        parts.append([[k * seconds / n, (k + 1) * seconds / n, label, 1.0] for k in range(n)])
    values = score(parts, [example.target for example in splits.test])
    return float(next(iter(values.values())))  # type: ignore[arg-type]


def read_video_classes(file: Path, videos: Collection[str], classes: Collection[str]) -> dict[str, dict[str, float]]:
    """Reads {"class": [name, ...], "results": {id: [score, ...], ...}}, as CUHK's classifier of ActivityNet has them.

    Args:
        file: such as cuhk_val_simp_share.json.
        videos: that are scored.
        classes: the labels that there are; the file may have others, and _ in place of a blank.

    Returns:
        The two likeliest classes of each video and their scores.

    Raises:
        UserError: the file is missing, lacks a video or a class, has a class twice, or names an entry that is not so.
    """
    content = read_json(file, dict)
    with parsing_errors_at(str(file)):
        names = [name if name in classes else name.replace("_", " ") for name in content["class"]]
        results = content["results"]
        entries = {name.removeprefix("v_"): results[name] for name in results}
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{file}: the class {repeated[0]!r} appears twice, and would have two scores")
    if missing := sorted({*classes} - {*names}):
        near = suggest(missing[0], names)
        raise UserError(f"{file}: {len(missing)} of {len(classes)} classes are not in it, first {missing[0]!r}.{near}")
    if absent := [name for name in videos if name.removeprefix("v_") not in entries]:
        raise UserError(f"{file}: {len(absent)} of {counted(len(videos), 'video')} not in it, first {absent[0]!r}")
    likeliest: dict[str, dict[str, float]] = {}
    for video in videos:
        with parsing_errors_at(f"{file}, video {video}"):
            scores = [float(score) for score in entries[video.removeprefix("v_")]]
            if len(scores) != len(names) or not all(0 <= score < math.inf for score in scores):
                raise ValueError(f"{len(scores)} scores; wanted one of 0 or more for each of {len(names)} classes")
        known = sorted((-score, k) for k, score in enumerate(scores) if names[k] in classes)
        likeliest[video] = {names[k]: -score for score, k in known[:CLASSES_PER_VIDEO]}
    return likeliest
