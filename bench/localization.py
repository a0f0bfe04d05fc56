"""The cost of localization scores compared with their official algorithms in plain Python, as Markdown tables.

    PYTHONPATH=. OMP_NUM_THREADS=1 python bench/localization.py

100,000 predicted segments in 4,926 videos of 200 classes, as in ActivityNet's validation split, and 500,000 detected
boxes of 60 classes in 20,000 key frames of 100 videos. The official algorithms are implemented here again: for each
segment in turn, its overlap with all annotated segments of its video and class, and for each tIoU the first that is
free; for each frame and class, the overlaps of all boxes, and then each box in turn. eval_detection.py itself works on
data frames, row by row, which is also measured if pandas is installed. All must give the same number. Times are
processor time; memory is the peak of the process.
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.metrics.bootstrap import interval_of
from evalkit.metrics.localization import ACTIVITYNET, BOX_IOU, BOXES_PER_FRAME, activitynet_map, ava_map

Values = npt.NDArray[Any]
SEGMENTS, VIDEOS, CLASSES = 100_000, 4_926, 200
BOXES, FRAMES, FRAMES_PER_VIDEO, ACTIONS = 500_000, 20_000, 200, 60


def segments() -> tuple[list[Any], list[Any]]:
    """Predictions and targets: segments around annotated ones, six in ten with the right label."""
    generator = np.random.default_rng(0)
    predictions, targets = [], []
    for video in range(VIDEOS):
        seconds, label = generator.uniform(30, 240), int(generator.integers(CLASSES))
        target = [
            [*sorted(generator.uniform(0, seconds, 2).tolist()), label] for _ in range(1 + generator.poisson(0.55))
        ]
        count = SEGMENTS // VIDEOS + (video < SEGMENTS % VIDEOS)
        near = np.array([segment[:2] for segment in target])[generator.integers(len(target), size=count)]
        near += generator.normal(0, 0.5 + 0.15 * np.diff(near), near.shape)
        labels = np.where(generator.random(count) < 0.6, label, generator.integers(CLASSES, size=count))
        drawn = zip(np.sort(near).tolist(), labels.tolist(), generator.random(count).tolist(), strict=True)
        predictions.append([[*bounds, of, score] for bounds, of, score in drawn])
        targets.append(target)
    return predictions, targets


def boxes() -> tuple[list[Any], list[Any]]:
    """Predictions and targets: boxes around annotated ones, half of them with a right label."""
    generator = np.random.default_rng(0)
    predictions, targets = [], []
    for _ in range(FRAMES):
        persons = 1 + generator.poisson(1.0)
        corner, size = generator.uniform(0, 0.6, (persons, 2)), generator.uniform(0.1, 0.4, (persons, 2))
        bounds = np.hstack([corner, corner + size])
        actions = np.array([generator.choice(ACTIONS, 2, replace=False) for _ in range(persons)])
        targets.append([[*bounds[i].tolist(), action] for i in range(persons) for action in actions[i].tolist()])
        count = BOXES // FRAMES
        person = generator.integers(persons, size=count)
        near = (bounds[person] + generator.normal(0, 0.02, (count, 4))).clip(0, 1)
        right = generator.random(count) < 0.5
        label = np.where(right, actions[person, 0], generator.integers(ACTIONS, size=count))
        drawn = zip(near.tolist(), label.tolist(), generator.random(count).tolist(), strict=True)
        predictions.append([[*box, of, score] for box, of, score in drawn])
    return predictions, targets


def plain_segments(predictions: Sequence[Any], targets: Sequence[Any]) -> float:
    """ActivityNet's average mAP."""
    annotated: dict[int, dict[int, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for video, target in enumerate(targets):
        for start, end, label in target:
            annotated[label][video].append([start, end])
    detected: dict[int, list[Any]] = defaultdict(list)
    for video, prediction in enumerate(predictions):
        for start, end, label, score in prediction:
            detected[label].append((score, video, start, end))
    total = np.zeros(len(ACTIVITYNET))
    for label, of_video in annotated.items():
        free = {video: np.ones((len(ACTIVITYNET), len(truth)), bool) for video, truth in of_video.items()}
        ranked = sorted(detected[label], key=lambda entry: -entry[0])
        hits = np.zeros((len(ACTIVITYNET), len(ranked)))
        for place, (_, video, start, end) in enumerate(ranked):
            if video not in of_video:
                continue
            truth = np.array(of_video[video])
            shared = (np.minimum(end, truth[:, 1]) - np.maximum(start, truth[:, 0])).clip(0)
            overlap = shared / (truth[:, 1] - truth[:, 0] + end - start - shared)
            best_first = overlap.argsort()[::-1]
            for t, threshold in enumerate(ACTIVITYNET):
                for candidate in best_first:
                    if overlap[candidate] < threshold:
                        break
                    if free[video][t, candidate]:
                        free[video][t, candidate] = False
                        hits[t, place] = 1
                        break
        positives = sum(map(len, of_video.values()))
        total += [average_precision(row, positives) for row in hits]
    return float(100 * (total / len(annotated)).mean())


def data_frame_segments(predictions: Sequence[Any], targets: Sequence[Any]) -> float:
    """ActivityNet's average mAP, with a look-up in a data frame for each prediction, as eval_detection.py has it."""
    import pandas

    columns = ["video", "start", "end", "label", "score"]
    truth = pandas.DataFrame([[i, *row] for i, rows in enumerate(targets) for row in rows], columns=columns[:4])
    detected = pandas.DataFrame([[i, *row] for i, rows in enumerate(predictions) for row in rows], columns=columns)
    by_label = detected.groupby("label")
    total = np.zeros(len(ACTIVITYNET))
    for label, annotated in truth.groupby("label"):
        annotated = annotated.reset_index(drop=True)
        of_video = annotated.groupby("video")
        ranked = by_label.get_group(label).sort_values("score", ascending=False, kind="stable").reset_index(drop=True)
        locked = np.full((len(ACTIVITYNET), len(annotated)), -1)
        hits = np.zeros((len(ACTIVITYNET), len(ranked)))
        for place, row in ranked.iterrows():
            try:
                candidates = of_video.get_group(row["video"]).reset_index()
            except KeyError:
                continue
            bounds, (start, end) = candidates[["start", "end"]].values, row[["start", "end"]].values
            shared = (np.minimum(end, bounds[:, 1]) - np.maximum(start, bounds[:, 0])).clip(0)
            overlap = shared / (bounds[:, 1] - bounds[:, 0] + end - start - shared)
            for t, threshold in enumerate(ACTIVITYNET):
                for candidate in overlap.argsort()[::-1]:
                    if overlap[candidate] < threshold:
                        break
                    if locked[t, candidates.loc[candidate]["index"].astype(int)] < 0:
                        locked[t, candidates.loc[candidate]["index"].astype(int)] = place
                        hits[t, place] = 1
                        break
        total += [average_precision(row, len(annotated)) for row in hits]
    return float(100 * (total / truth["label"].nunique()).mean())


def plain_boxes(predictions: Sequence[Any], targets: Sequence[Any]) -> float:
    """AVA's mAP."""
    found: list[list[tuple[float, bool]]] = [[] for _ in range(ACTIONS)]
    positives = np.zeros(ACTIONS)
    for prediction, target in zip(predictions, targets, strict=True):
        ranked = np.array(sorted(prediction, key=lambda box: -box[5])[:BOXES_PER_FRAME])
        ranked = ranked[(ranked[:, 0] < ranked[:, 2]) & (ranked[:, 1] < ranked[:, 3])]
        annotated = np.array(target)
        for label in range(ACTIONS):
            truth, detected = annotated[annotated[:, 4] == label], ranked[ranked[:, 4] == label]
            positives[label] += len(truth)
            if not len(detected):
                continue
            if not len(truth):
                found[label] += [(score, False) for score in detected[:, 5].tolist()]
                continue
            low = np.maximum(detected[:, None, :2], truth[None, :, :2])
            high = np.minimum(detected[:, None, 2:4], truth[None, :, 2:4])
            shared = (high - low).clip(0).prod(2)
            areas = [(of[:, 2] - of[:, 0]) * (of[:, 3] - of[:, 1]) for of in (detected, truth)]
            overlap = shared / (areas[0][:, None] + areas[1][None] - shared)
            best, taken = overlap.argmax(1), np.zeros(len(truth), bool)
            for i, j in enumerate(best):
                hit = bool(overlap[i, j] >= BOX_IOU and not taken[j])
                taken[j] |= hit
                found[label].append((float(detected[i, 5]), hit))
    precisions = []
    for label in np.flatnonzero(positives):
        ranked_hits = np.array([hit for _, hit in sorted(found[label], key=lambda entry: -entry[0])], float)
        precisions.append(average_precision(ranked_hits, positives[label]))
    return float(100 * np.mean(precisions))


def average_precision(hits: Values, positives: float) -> float:
    """Of flags in descending order of score, with the precision at a recall the highest at it or at a higher one."""
    right = hits.cumsum()
    precision = np.maximum.accumulate((right / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float((precision * hits).sum() / positives)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the seconds of the processor that it took."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def peak() -> float:
    """The largest resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    """Runs and prints."""
    print(
        "| | plain, s | on data frames, s | evalkit, all scores, s | interval of mAP, s | of all, s | more memory, MB |"
    )
    print("|---|---|---|---|---|---|---|")
    frames = data_frame_segments if find_spec("pandas") else None
    for name, make, plain, official, score, group in (
        (f"{SEGMENTS:,} segments", segments, plain_segments, frames, activitynet_map, 1),
        (f"{BOXES:,} boxes", boxes, plain_boxes, None, ava_map, FRAMES_PER_VIDEO),
    ):
        predictions, targets = make()
        before = peak()
        scores, ours = timed(lambda: score(predictions, targets))  # noqa: B023
        videos = [i // group for i in range(len(targets))]
        _, one = timed(lambda: interval_of(scores["mAP"], videos, 0))  # noqa: B023
        _, rest = timed(lambda: [interval_of(value, videos, 0) for value in scores.values()])  # noqa: B023
        cells = [f"{ours:.2f}", f"{one:.1f}", f"{one + rest:.1f}", f"{peak() - before:.0f}"]
        for algorithm in (official, plain):
            if algorithm is None:
                cells.insert(0, "-")
                continue
            expected, theirs = timed(lambda: algorithm(predictions, targets))  # noqa: B023
            if abs(expected - scores["mAP"]) > 1e-9:
                raise SystemExit(f"{name}: {scores['mAP']} is not {expected}")
            cells.insert(0, f"{theirs:.1f} ({theirs / ours:.0f} x)")
        print("|", " | ".join([name, *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
