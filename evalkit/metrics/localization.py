"""Scores of what happens when, and where: segments in time (ActivityNet, THUMOS14), boxes in frames (AVA)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from evalkit.metrics.bootstrap import Indices, Table, percentage
from evalkit.metrics.classification import mean_over_classes
from evalkit.metrics.detection import Flags, Ranking, Read, Regions, pairs, rank, read_regions, scores_of

SEGMENT = ("start", "end")
BOX = ("left", "top", "right", "bottom")
ACTIVITYNET = np.linspace(0.5, 0.95, 10)  # tIoU, as its evaluation computes them
THUMOS14 = np.linspace(0.3, 0.7, 5)
BOX_IOU = 0.5
BOXES_PER_FRAME = 50
PROPOSALS = 100  # of a video on average, at most, whose recall is taken
SHOWN_PROPOSALS = (1, 10, 100)
ERRORS = ("background", "confusion", "localization", "wrong_label", "double")
ERROR_TIOU, BACKGROUND_TIOU = 0.5, 0.1


def activitynet_map(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
    """ActivityNet's average mAP over tIoU 0.5:0.05:0.95, in percent: `mAP`, that of each tIoU, and what is wrong.

    Equal to its evaluation (https://github.com/activitynet/ActivityNet/blob/master/Evaluation/eval_detection.py): of
    each class, segments in descending order of score take the annotated segment of their video that they overlap most
    and that is still free; means are over the classes with an annotated segment. Two segments of no length at one
    moment overlap wholly, which is what 0 / 0 comes to there (ActivityNet has such segments). Of equal scores the later
    segment comes first.

    `AR@n` is the average recall of the segments without their labels at n segments a video on average, and `AUC` the
    area under it from 1 to 100, as in its eval_proposal.py.

    `background_error` to `double_error` are the shares, in percent, of the most likely segments of each class, as many
    as are annotated, that are wrong at tIoU 0.5, by kind (DETAD, https://arxiv.org/abs/1807.10706): the annotated
    segment that it overlaps most is reached with less than 0.1; with less than 0.5, and has another label (confusion)
    or the same (localization); with 0.5 and has another label; or has the same and is another segment's already.
    `missed_error` is the share of annotated segments that no segment at all is matched to.

    Args:
        predictions: the segments of each video, [[start, end, label, score], ...], in seconds; a label is a name or a
            class index; None for a failed video, which has none.
        targets: those annotated, [[start, end, label], ...]; may be none.

    Raises:
        UserError: a segment is not so, or ends before it starts.
    """
    return _temporal("activitynet_map", predictions, targets, ACTIVITYNET)


def thumos_map(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
    """THUMOS14's average mAP over tIoU 0.3:0.1:0.7, in percent: `mAP`, and the other scores of `activitynet_map`.

    Raises:
        UserError: as `activitynet_map`.
    """
    return _temporal("thumos_map", predictions, targets, THUMOS14)


def ava_map(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
    """AVA's frame mAP at IoU 0.5, in percent: `mAP`, and `AP/LABEL` of each label that is annotated.

    Equal to its evaluation (https://github.com/activitynet/ActivityNet/blob/master/Evaluation/get_ava_performance.py):
    of each key frame the 50 boxes of the highest scores count; a box is right where the annotated box of its label that
    it overlaps most is reached with at least 0.5, and no box with a higher score has it; the precision at a recall is
    the highest at that recall or at a higher one. Boxes without an area are left out. Of equal scores in two frames
    the later comes first.

    Args:
        predictions: the boxes of each key frame, [[left, top, right, bottom, label, score], ...], as shares of width
            and height; a label is a name or a class index; None for a failed frame, which has none.
        targets: those annotated, [[left, top, right, bottom, label], ...]; may be none.

    Raises:
        UserError: a box is not so.
    """
    read = read_regions("ava_map", BOX, predictions, targets, ordered=False)
    detections = _likeliest(read.detections, len(targets))
    left, top, right, bottom = detections.bounds.T
    detections = detections.take((left < right) & (top < bottom))
    ranking = Ranking(detections, _match_best(detections, read), read.truth, read.annotated, len(targets))
    names = [f"AP/{label}" for label in read.labels[: read.annotated]]
    order = sorted(range(len(names)), key=names.__getitem__)
    return scores_of(
        ranking,
        ["mAP", *(names[c] for c in order)],
        lambda ap: np.concatenate([mean_over_classes(ap[0])[None], 100 * ap[0, order]]),
    )


def class_average_precisions(
    predictions: Sequence[Any], targets: Sequence[Any], thresholds: Sequence[float] | Table = ACTIVITYNET
) -> dict[Any, list[float]]:
    """The average precision of each label, 0..1, at each tIoU threshold; arguments are those of `activitynet_map`.

    Raises:
        UserError: as `activitynet_map`.
    """
    read = read_regions("class_average_precisions", SEGMENT, predictions, targets)
    hits, _ = _match_in_turn(read, np.asarray(thresholds, np.float64))
    ranking = Ranking(read.detections, hits, read.truth, read.annotated, len(targets))
    found = ranking.average_precisions(np.ones((len(targets), 1), np.float32))[..., 0]
    return dict(zip(read.labels, found.T.tolist(), strict=False))


def _temporal(metric: str, predictions: Sequence[Any], targets: Sequence[Any], thresholds: Table) -> dict[str, float]:
    read = read_regions(metric, SEGMENT, predictions, targets)
    hits, taken = _match_in_turn(read, thresholds)
    ranking = Ranking(read.detections, hits, read.truth, read.annotated, len(targets))

    def summary(ap: Table) -> Table:
        at = np.stack([mean_over_classes(of_threshold) for of_threshold in ap])
        return np.concatenate([at.mean(0)[None], at])

    scores = scores_of(ranking, ["mAP", *(f"mAP@{threshold:.2g}" for threshold in thresholds)], summary)
    scores |= _average_recall(read, len(targets))
    level = int(np.abs(thresholds - ERROR_TIOU).argmin())
    return scores | _errors(read, hits[level], taken[level], len(targets))


# --- overlap and matches ---------------------------------------------------------------------------------------------


def tiou(a: Table, b: Table) -> Table:
    """Temporal intersection over union (n,) of segments (n, 2); 1 of two of no length at one moment."""
    shared = (np.minimum(a[:, 1], b[:, 1]) - np.maximum(a[:, 0], b[:, 0])).clip(0)
    union = (b[:, 1] - b[:, 0]) + (a[:, 1] - a[:, 0]) - shared
    return np.where(union == 0, 1.0, shared / np.where(union == 0, 1, union))


def box_iou(a: Table, b: Table) -> Table:
    """Intersection over union (n,) of boxes (n, 4), of which one at least has an area."""
    sides = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(0)
    shared = sides[:, 1] * sides[:, 0]
    areas = [(box[:, 3] - box[:, 1]) * (box[:, 2] - box[:, 0]) for box in (a, b)]
    return np.asarray(shared / (areas[0] + areas[1] - shared))


class _Pairs(NamedTuple):
    """Detections and annotated regions that overlap."""

    detection: Indices
    truth: Indices
    iou: Table


def _match_in_turn(read: Read, thresholds: Table) -> tuple[Flags, Flags]:
    """Each segment takes the free annotated one of its label that it overlaps most, in descending order of score.

    As all annotated segments prefer segments in that order, it is the one stable matching of both, which is found in
    few rounds: each segment asks for its best, each annotated one keeps the first in the order, and the others go on.

    Returns:
        (T, n), whether each detection is matched, and (T, m), whether each annotated segment is.
    """
    detections, truth, labels = read.detections, read.truth, len(read.labels)
    order = rank(detections.label, detections.score)
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    kept = []
    for i, j in pairs(detections.group(labels), truth.group(labels)):
        overlap = tiou(detections.bounds[i], truth.bounds[j])
        near = overlap >= thresholds.min()
        kept.append(_Pairs(place[i[near]], j[near], overlap[near]))
    asking, asked, overlap = (np.concatenate([part[k] for part in kept]) for k in range(3))
    sort = np.lexsort((-asked, -overlap, asking))
    asking, asked, overlap = asking[sort], asked[sort], overlap[sort]
    hits = np.zeros((len(thresholds), len(order)), bool)
    taken = np.zeros((len(thresholds), len(truth.label)), bool)
    for t, threshold in enumerate(thresholds):
        near = overlap >= threshold
        holder = _stable_match(asking[near], asked[near], len(order), len(truth.label))
        taken[t] = holder < len(order)
        hits[t, order[holder[taken[t]]]] = True
    return hits, taken


def _stable_match(asking: Indices, asked: Indices, n: int, m: int) -> Indices:
    """Who has each of m annotated segments: the place of a detection in 0..n, or n where nobody has it.

    Args:
        asking: places of detections, ascending; a lower one comes first.
        asked: what each asks for; of one detection the best first.
    """
    count = np.bincount(asking, minlength=n)
    following = np.cumsum(count) - count  # the next of its pairs
    end = following + count
    holder = np.full(m, n)
    free = np.flatnonzero(count)
    while len(free):
        wanted = asked[following[free]]
        following[free] += 1
        before = holder[wanted]
        np.minimum.at(holder, wanted, free)
        lost = np.unique(np.concatenate([free[holder[wanted] != free], before[holder[wanted] != before]]))
        lost = lost[lost < n]
        free = lost[following[lost] < end[lost]]
    return holder


def _match_best(detections: Regions, read: Read) -> Flags:
    """(1, n): of each annotated box, the box of the highest score of those that overlap it most, and by half."""
    labels = len(read.labels)
    found = []
    for i, j in pairs(detections.group(labels), read.truth.group(labels)):
        overlap = box_iou(detections.bounds[i], read.truth.bounds[j])
        best = _first_of_each(i, np.lexsort((j, -overlap, i)))
        best = best[overlap[best] >= BOX_IOU]
        found.append((i[best], j[best]))
    asking, asked = (np.concatenate(part) for part in zip(*found, strict=True))
    hits = np.zeros((1, len(detections.score)), bool)
    hits[0, asking[_first_of_each(asked, np.lexsort((asking, -detections.score[asking], asked)))]] = True
    return hits


def _first_of_each(group: Indices, order: Indices) -> Indices:
    """Of an order in which equal groups are together, the first index of each."""
    ordered = group[order]
    return order[np.append(True, ordered[1:] != ordered[:-1])] if len(order) else order


def _likeliest(boxes: Regions, frames: int) -> Regions:
    """The 50 boxes of the highest scores of each frame.

    Where the fiftieth score is also that of the next, those are kept that the official heap keeps.
    """
    kept = np.ones(len(boxes.score), bool)
    crowded = np.flatnonzero(np.bincount(boxes.example, minlength=frames) > BOXES_PER_FRAME)
    first, end = (np.searchsorted(boxes.example, crowded, side) for side in ("left", "right"))
    for start, stop in zip(first.tolist(), end.tolist(), strict=True):
        kept[start:stop] = False
        order = start + np.argsort(-boxes.score[start:stop], kind="stable")
        least, following = boxes.score[order[BOXES_PER_FRAME - 1 : BOXES_PER_FRAME + 1]]
        kept[_heap(boxes, range(start, stop)) if least == following else order[:BOXES_PER_FRAME]] = True
    return boxes.take(kept)


def _heap(boxes: Regions, members: range) -> list[int]:
    """The members that remain where the least is replaced by what has a higher score, in the order given."""
    heap: list[tuple[Any, ...]] = []
    for i in members:
        left, top, right, bottom = boxes.bounds[i].tolist()
        item = (float(boxes.score[i]), int(boxes.label[i]), top, left, bottom, right, i)
        if len(heap) < BOXES_PER_FRAME:
            heapq.heappush(heap, item)
        elif item[0] > heap[0][0]:
            heapq.heapreplace(heap, item)
    return [item[-1] for item in heap]


# --- recall of proposals, and kinds of errors ------------------------------------------------------------------------


def _average_recall(read: Read, examples: int) -> dict[str, float]:
    """`AR@n` and `AUC`; see `activitynet_map`.

    What stands for a failed video, its target, is all found at any number and takes no part in the budget, which is an
    average over videos: else a failed video that was right would cost the others some of theirs, and lower the score.
    """
    truth = read.truth
    stand_in = np.isinf(read.detections.score)
    right = np.isin(truth.example, read.detections.example[stand_in])
    proposals = read.detections.take(~stand_in)
    given = np.bincount(proposals.example, minlength=examples)
    annotated = np.bincount(truth.example, minlength=examples)
    videos = np.count_nonzero(annotated)
    ratio = PROPOSALS * float(videos) / max(1, len(proposals.score))
    used = np.minimum((given * ratio).astype(np.intp), given) * (annotated > 0)
    share = np.arange(1, PROPOSALS + 1) / 100.0 * (PROPOSALS * float(videos) / max(1, used.sum()))
    # The place of each proposal in its video, and the first place at which each annotated segment is reached.
    order = rank(proposals.example, proposals.score)
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order)) - (np.cumsum(given) - given)[proposals.example[order]]
    among = proposals.take(place < used[proposals.example])
    place = place[place < used[proposals.example]]
    never = len(order)
    reached = np.full((len(ACTIVITYNET), len(truth.label)), never)
    for i, j in pairs(among.example, truth.example):
        overlap = tiou(among.bounds[i], truth.bounds[j])
        for t, threshold in enumerate(ACTIVITYNET):
            near = overlap >= threshold
            np.minimum.at(reached[t], j[near], place[i[near]])
    # From that place on it counts at each number of proposals that keeps so many of the video's.
    from_number = np.full(reached.shape, PROPOSALS)
    for n in np.unique(used[truth.example]).tolist():
        which = used[truth.example] == n
        kept = np.minimum((n * share).astype(np.intp), n)
        from_number[:, which] = np.searchsorted(kept, reached[:, which], "right")
    from_number[:, right] = 0
    recalled = np.zeros((examples, PROPOSALS + 1))
    np.add.at(recalled, (np.tile(truth.example, len(ACTIVITYNET)), from_number.ravel()), 1 / len(ACTIVITYNET))
    recalled = recalled.cumsum(1)[:, :PROPOSALS]
    area = (recalled[:, 1:] + recalled[:, :-1]).sum(1) / 2 / PROPOSALS
    recalls = {f"AR@{n}": recalled[:, n - 1] for n in SHOWN_PROPOSALS} | {"AUC": area}
    return {name: percentage(values, annotated) for name, values in recalls.items()}


def error_kinds(predictions: Sequence[Any], targets: Sequence[Any], per_instance: int = 1) -> dict[str, int]:
    """How many of the most likely segments are right, and wrong by kind, and how many annotated ones are missed.

    Args:
        predictions: as of `activitynet_map`; so are the kinds.
        targets: as of `activitynet_map`.
        per_instance: segments of a class that are looked at, per annotated segment of it; DETAD takes 1 to 10.

    Returns:
        {right, background, confusion, localization, wrong_label, double, missed}.

    Raises:
        UserError: as `activitynet_map`.
    """
    read = read_regions("error_kinds", SEGMENT, predictions, targets)
    hits, taken = _match_in_turn(read, np.array([ERROR_TIOU]))
    looked_at, kind = _kinds(read, hits[0], per_instance)
    counts = np.bincount(kind[looked_at], minlength=len(ERRORS) + 1).tolist()
    return dict(zip(("right", *ERRORS), counts, strict=True)) | {"missed": int((~taken[0]).sum())}


def _kinds(read: Read, hit: Flags, per_instance: int) -> tuple[Indices, Indices]:
    """The detections that are looked at, and the kind of each detection: 0 right, else its place in `ERRORS` + 1."""
    detections, truth, labels = read.detections, read.truth, len(read.labels)
    order = rank(detections.label, detections.score)
    label = detections.label[order]
    place = np.arange(len(order)) - np.searchsorted(label, label)
    looked_at = order[place < per_instance * np.bincount(truth.label, minlength=labels)[label]]
    best, same = np.zeros(len(order)), np.zeros(len(order), bool)
    for i, j in pairs(detections.example[looked_at], truth.example):
        overlap = tiou(detections.bounds[looked_at[i]], truth.bounds[j])
        alike = detections.label[looked_at[i]] == truth.label[j]
        first = _first_of_each(i, np.lexsort((~alike, -overlap, i)))
        best[looked_at[i[first]]], same[looked_at[i[first]]] = overlap[first], alike[first]
    near = best >= ERROR_TIOU
    kind = np.select([hit, best < BACKGROUND_TIOU], [0, 1], np.where(near, np.where(same, 5, 4), np.where(same, 3, 2)))
    return looked_at, kind


def _errors(read: Read, hit: Flags, taken: Flags, examples: int) -> dict[str, float]:
    """The shares of errors by kind; see `activitynet_map`."""
    looked_at, kind = _kinds(read, hit, 1)
    counts = np.zeros((examples, len(ERRORS) + 1))
    np.add.at(counts, (read.detections.example[looked_at], kind[looked_at]), 1)
    missed = np.bincount(read.truth.example, ~taken, examples)
    of: dict[str, tuple[Any, Any]] = {name: (counts[:, k], counts.sum(1)) for k, name in enumerate(ERRORS, 1)}
    of["missed"] = missed, np.bincount(read.truth.example, minlength=examples)
    return {f"{name}_error": percentage(*parts) for name, parts in of.items()}
