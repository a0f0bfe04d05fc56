"""Retrieval: R@1, R@5, R@10, median and mean rank, text to video and video to text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.errors import UserError
from evalkit.metrics.bootstrap import PERCENT, AdditiveScore, Draws, ReweightedScore, Table, percentage


def retrieval(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float | list[float]]:
    """`R@1`, `R@5`, `R@10`, `median_rank` and `mean_rank`, text to video as `t2v_...` and video to text as `v2t_...`.

    Each caption is a query for its video; each video is one query for its captions, of which the best ranked counts. A
    failed query is a miss. For the median and the mean it ranks last, at the number of videos or of captions (or the
    largest rank seen, if that is larger): left out, a failure would improve both, and an infinite rank would dominate
    the mean.

    Args:
        predictions: one per caption, {"t2v": r, "v2t": r} with ranks from 1, or None for a miss; ties have their
            average rank, so that a constant similarity ranks everything in the middle and not first.
        targets: the video's name if each has one caption; else (name, index of the caption), and the video's own rank
            is read at index 0.

    Raises:
        UserError: a prediction has no ranks, or a rank below 1.
    """
    several = any(isinstance(target, list | tuple) for target in targets)
    videos = sum(not several or target[1] == 0 for target in targets)
    metrics: dict[str, float | list[float]] = {}
    for direction, candidates in (("t2v", videos), ("v2t", len(targets))):
        once = several and direction == "v2t"
        is_query = np.array([not once or target[1] == 0 for target in targets], dtype=np.float64)
        pairs = zip(predictions, targets, is_query, strict=True)
        ranks = np.array(
            [_rank(prediction, target, direction) if query else 1.0 for prediction, target, query in pairs]
        )
        last = max([float(candidates), *ranks[np.isfinite(ranks)]])
        placed = np.minimum(ranks, last)
        for k in (1, 5, 10):
            hits = (ranks <= k).astype(np.float64)
            metrics[f"{direction}_R@{k}"] = percentage(hits * is_query, is_query) if once else hits.tolist()
        metrics[f"{direction}_median_rank"] = _median(
            placed[is_query > 0], np.flatnonzero(is_query), len(is_query), last
        )
        metrics[f"{direction}_mean_rank"] = AdditiveScore(
            np.stack([placed * is_query, is_query], 1), _ratio, limits=(1.0, last)
        )
    return metrics


def mean_retrieval(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float | list[float]]:
    """R@1, R@5 and R@10 of several tasks in both directions: the mean over the tasks of what `retrieval` has for each.

    Args:
        predictions: as of `retrieval`, each from a search among the videos, or captions, of its own task.
        targets: (task/name of the video, index of the caption).
    """
    places: dict[str, list[int]] = {}
    for i, target in enumerate(targets):
        places.setdefault(str(target[0]).partition("/")[0], []).append(i)
    parts: dict[str, Table] = {}
    for k, of_task in enumerate(places.values()):
        metrics = retrieval([predictions[i] for i in of_task], [targets[i] for i in of_task])
        for name, value in metrics.items():
            if "R@" in name:
                sums = value.parts if isinstance(value, AdditiveScore) else [[hit, 1] for hit in value]  # type: ignore[union-attr]
                parts.setdefault(name, np.zeros((len(targets), 2 * len(places))))[of_task, 2 * k : 2 * k + 2] = sums
    return {name: AdditiveScore(table, _mean_ratio, PERCENT) for name, table in parts.items()}


def _mean_ratio(sums: Table) -> Table:
    """The mean over tasks of sum / count (..., 2 per task), without those of which no query was drawn."""
    hits, counts = sums[..., ::2], sums[..., 1::2]
    ratios = np.where(counts > 0, hits / np.maximum(counts, 1), 0)
    return np.asarray(100 * ratios.sum(-1) / (counts > 0).sum(-1))


def _ratio(sums: Table) -> Table:
    return np.asarray(sums[..., 0] / sums[..., 1])


class _Median(ReweightedScore):
    """A median, which a few examples do not move."""

    def reach(self, unseen: float) -> tuple[float, float] | None:
        return self.limits if unseen >= 0.5 else (float(self), float(self))


def _median(values: Table, places: npt.NDArray[np.intp], n: int, last: float) -> float:
    """The median of values (M,), in 1..last, of the examples at these indices among n."""
    if not len(values):
        return math.nan
    order = np.argsort(values, kind="stable")
    ranked, places = values[order], places[order]

    def of(times: Draws) -> Table:
        below = times[places].cumsum(0, dtype=np.float64)
        half = below[-1] / 2
        middle = [np.minimum(before.sum(0), len(ranked) - 1) for before in (below < half, below <= half)]
        return np.where(half > 0, (ranked[middle[0]] + ranked[middle[1]]) / 2, math.nan)

    return _Median(n, of, limits=(1.0, last))


def _rank(prediction: Any, target: Any, direction: str) -> float:
    """The rank, from 1; infinite for a miss."""
    if prediction is None:
        return math.inf
    if prediction is target:
        return 1.0
    if isinstance(prediction, Mapping) and direction in prediction:
        rank = prediction[direction]
        if rank is None or math.isnan(rank):
            return math.inf
        if rank >= 1:
            return float(rank)
    elif prediction == target:
        return 1.0
    raise UserError(f'retrieval: prediction {prediction!r} is not {{"t2v": r, "v2t": r}} with ranks from 1')
