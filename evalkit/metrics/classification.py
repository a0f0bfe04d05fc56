"""Score functions for tasks: (predictions, targets) in the same order -> {metric: value}.

A value is one number per example in 0..1, whose mean in percent is the score, or one float over the whole split, best
one that knows what it is for examples that count several times (`Summed` and `Weighted` of
evalkit/metrics/bootstrap.py). The first metric is the headline. A prediction of None stands for a failed example and is
wrong, and so is NaN; a target in place of a prediction is right. `evalkit.results.scores.scores` adds the interval, the
bounds and the kinds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.api import UserError
from evalkit.metrics.bootstrap import RESAMPLES, Summed, Weighted

_Table = npt.NDArray[np.float64]
_Truth = npt.NDArray[np.bool_]
_Times = npt.NDArray[np.float32]  # how often each example counts, in each of R draws: (N, R)

# Classes x examples x draws of a score that goes through all of them for each draw: about ten seconds.
_AFFORDABLE = 4_000_000_000
_WHOLE = frozenset({int})


def accuracy(predictions: Sequence[Any], targets: Sequence[int]) -> dict[str, list[float]]:
    """Whether each predicted class index, or option, is the right one: `accuracy`.

    Raises:
        UserError: a prediction is not one whole number.
    """
    return {"accuracy": [float(_index(p, "accuracy") == t) for p, t in zip(predictions, targets, strict=True)]}


def top1_top5(predictions: Sequence[Any], targets: Sequence[int]) -> dict[str, list[float]]:
    """Whether the right class is the best scored one, and among the five best: `top1`, `top5`.

    Args:
        predictions: class indices in falling order of score; all of them, or the first five or more.
        targets: class indices.

    Raises:
        UserError: a prediction is not such a list, or is shorter than five although there are more classes.
    """
    enough = min(5, max((int(target) for target in targets), default=0) + 1)
    best: list[Sequence[Any]] = []
    for prediction, target in zip(predictions, targets, strict=True):
        if type(prediction) is list and len(prediction) >= enough and _WHOLE.issuperset(map(type, prediction[:5])):
            best.append(prediction[:5])  # as most are; the rest takes three times as long
        elif _failed(prediction):
            best.append(())
        elif isinstance(prediction, Sequence) and not isinstance(prediction, str) and len(prediction) >= enough:
            best.append([_index(index, "top1_top5") for index in prediction[:5]])
        elif isinstance(prediction, Integral) and prediction == target:
            best.append((target,))
        else:
            raise UserError(
                f"top1_top5: prediction {prediction!r} is not a list of at least {enough} class indices in falling "
                "order of score; return such a list, or score the task with evalkit.metrics.classification:accuracy"
            )
    return {
        "top1": [float(target in ranked[:1]) for ranked, target in zip(best, targets, strict=True)],
        "top5": [float(target in ranked) for ranked, target in zip(best, targets, strict=True)],
    }


def macro_accuracy(predictions: Sequence[Any], targets: Sequence[int]) -> dict[str, float | list[float]]:
    """The share that is right of each class, averaged over the classes that some example has, in percent:
    `macro_accuracy`; and `top1`, where each example counts the same. Arguments are those of `top1_top5`.
    """
    hits = np.array(top1_top5(predictions, targets)["top1"])
    order = np.argsort(targets, kind="stable")
    starts = np.unique(np.asarray(targets)[order], return_index=True)[1]

    def of(times: _Times) -> _Table:
        drawn = times[order]
        size = np.add.reduceat(drawn, starts).astype(np.float64)
        right = np.add.reduceat(drawn * hits[order, None].astype(np.float32), starts)
        return _mean(np.where(size > 0, right / np.maximum(size, 1), math.nan))

    score = Weighted(len(hits), of) if len(hits) else math.nan
    return {"macro_accuracy": score, "top1": hits.tolist()}


def retrieval(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float | list[float]]:
    """How high each text ranks its video, and each video its texts, as `t2v_` and `v2t_`: `R@1`, `R@5`, `R@10`,
    `median_rank`, `mean_rank`.

    Each caption asks once for its video; each video asks once for its captions, of which the best counts. A failed
    query is a miss. For the median and the mean it ranks last, at the number of videos or of captions (or the largest
    rank seen, where that is larger): left out, a failure would improve both, and an infinite rank would drown the mean.

    Args:
        predictions: one per caption, {"t2v": r, "v2t": r} with ranks from 1, or None for a miss: the average rank of
            what ties, so that a constant similarity ranks everything in the middle and not first.
        targets: the video's name, where each has one caption; else (name, number of the caption from 0), and the
            video's own rank is read where that is 0.

    Raises:
        UserError: a prediction has no ranks, or a rank below 1.
    """
    several = any(isinstance(target, list | tuple) for target in targets)
    videos = sum(not several or target[1] == 0 for target in targets)
    found: dict[str, float | list[float]] = {}
    for way, candidates in (("t2v", videos), ("v2t", len(targets))):
        once = several and way == "v2t"
        asks = np.array([not once or target[1] == 0 for target in targets], dtype=np.float64)
        pairs = zip(predictions, targets, asks, strict=True)
        ranks = np.array([_rank(one, target, way) if ask else 1.0 for one, target, ask in pairs])
        last = max([float(candidates), *ranks[np.isfinite(ranks)]])
        placed = np.minimum(ranks, last)
        for k in (1, 5, 10):
            hits = (ranks <= k).astype(np.float64)
            found[f"{way}_R@{k}"] = Summed(np.stack([100 * hits * asks, asks], 1), _ratio) if once else hits.tolist()
        found[f"{way}_median_rank"] = _median(placed[asks > 0], np.flatnonzero(asks), len(asks))
        found[f"{way}_mean_rank"] = Summed(np.stack([placed * asks, asks], 1), _ratio)
    return found


def _ratio(sums: _Table) -> _Table:
    return np.asarray(sums[..., 0] / sums[..., 1])


def _median(values: _Table, places: npt.NDArray[np.intp], n: int) -> float:
    """The median of values (M,), which are those of the examples at these places among n."""
    if not len(values):
        return math.nan
    order = np.argsort(values, kind="stable")
    ranked, places = values[order], places[order]

    def of(times: _Times) -> _Table:
        below = times[places].cumsum(0, dtype=np.float64)
        half = below[-1] / 2
        middle = [np.minimum(before.sum(0), len(ranked) - 1) for before in (below < half, below <= half)]
        return np.where(half > 0, (ranked[middle[0]] + ranked[middle[1]]) / 2, math.nan)

    return Weighted(n, of)


def multilabel_map(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float]:
    """Mean average precision over the classes that some example has, in percent: `mAP`.

    Of examples with equal scores none comes before another: they share the precision at the last of them, so that a
    constant prediction gives the share of examples that have the class. A failed example is never found.

    Args:
        predictions: (C,) scores of each example, higher is likelier.
        targets: the class indices that each example has; may be none.

    Raises:
        UserError: a prediction is not such a list, or they differ in length.
    """
    scores, truth = _multilabel("multilabel_map", predictions, targets)
    return {"mAP": _mean_average_precision(scores, truth)}


def foreground_map(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float]:
    """What `multilabel_map` gives without class 0, the background, whose own precision does not count: `mAP`.

    An example of the background alone stands: it is a false positive of the others. Arguments are those of
    `multilabel_map`.
    """
    scores, truth = _multilabel("foreground_map", predictions, targets)
    return {"mAP": _mean_average_precision(scores[1:], truth[1:])}


def box_map(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float]:
    """AVA's mean average precision of boxes that are given, an example each, in percent: `mAP`.

    Its evaluation (https://github.com/activitynet/ActivityNet/blob/master/Evaluation/get_ava_performance.py) has the
    rule of PASCAL VOC: what counts at a recall is the highest precision at that recall or at a higher one. There, one
    of two boxes in a frame that overlap by half may be taken for the other; here each is itself. Arguments and ties are
    those of `multilabel_map`.
    """
    scores, truth = _multilabel("box_map", predictions, targets)
    return {"mAP": _mean_average_precision(scores, truth, envelope=True)}


def charades_map(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float]:
    """Charades' mean average precision in percent: `mAP`, and `mAP_all_videos`, which counts what `mAP` leaves out.

    By the rule of Charades' own evaluation (https://github.com/gsig/charades-algorithms), a video without any action
    is no false positive of any class: `mAP` is over the other videos. In `mAP_all_videos` every video counts. Both are
    means over the classes that some video has. Arguments and ties are those of `multilabel_map`.
    """
    scores, truth = _multilabel("charades_map", predictions, targets)
    return {
        "mAP": _mean_average_precision(scores, truth, np.flatnonzero(truth.any(0))),
        "mAP_all_videos": _mean_average_precision(scores, truth),
    }


def chance_map(targets: Sequence[Sequence[int]], empty: bool = True) -> float:
    """The mean average precision, in percent, that is expected of examples in random order.

    Args:
        targets: the class indices that each example has; may be none.
        empty: whether examples without a class count; by Charades' rule they do not.
    """
    n = sum(empty or len(target) > 0 for target in targets)
    positives = np.unique([c for target in targets for c in set(target)], return_counts=True)[1]
    harmonic = float((1 / np.arange(1, n + 1)).sum())
    # At rank i a positive has precision 1 / i, and (i - 1) / i of the share of positives among the others.
    return float(_mean(((positives - 1) / max(1, n - 1) * (n - harmonic) + harmonic) / max(1, n)))


def pr_auc(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float]:
    """Mean over classes of the area under the precision-recall curve, as Keras computes it, in percent: `PR-AUC`.

    200 thresholds from just below 0 to just above 1, evenly spaced; between two of them true positives grow linearly
    with what is found (Davis and Goadrich 2006, https://doi.org/10.1145/1143844.1143874). Classes that no example has
    are left out, where Keras would count 0. Arguments are those of `multilabel_map`, scores in 0..1.

    Raises:
        UserError: as `multilabel_map`, and where a score is not in 0..1.
    """
    scores, truth = _multilabel("pr_auc", predictions, targets)
    if (known := scores[np.isfinite(scores)]).size and not 0 <= known.min() <= known.max() <= 1:
        raise UserError(f"pr_auc: scores reach from {known.min():g} to {known.max():g}; wanted probabilities in 0..1")
    thresholds = np.concatenate([[-1e-7], np.arange(1, 199) / 199])  # and one above 1, which nothing reaches
    above = np.searchsorted(thresholds, np.clip(scores, -1, 1), "left")  # how many thresholds each score is above

    def area(times: _Times, above: npt.NDArray[np.intp], truth: _Truth) -> _Table:
        """Of one class. From the highest threshold down, as far as some example lies between two."""
        positives = times[truth].sum(0, dtype=np.float64)
        more_hits, more = _sums(times, -above, truth), _sums(times, -above)
        if above.min() == 0:  # what failed is above none of them
            more_hits, more = more_hits[:-1], more[:-1]
        hits, found = more_hits.cumsum(0) - more_hits, more.cumsum(0) - more
        slope = more_hits / np.maximum(more, 1)
        # The integral over x in 0..more of (hits + slope x) / (found + x), times slope / positives: recall's rise.
        growth = np.log(np.where(found > 0, (found + more) / np.maximum(found, 1), 1))
        areas = (slope * (more_hits + (hits - slope * found) * growth)).sum(0)
        return np.where(positives > 0, areas / np.maximum(positives, 1), math.nan)

    return {"PR-AUC": _over_classes(area, above, truth)}


def _multilabel(metric: str, predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> tuple[_Table, _Truth]:
    """Scores (C, N), -inf for what failed, and whether each example has each class (C, N)."""
    given: list[_Table | None] = []
    for prediction, target in zip(predictions, targets, strict=True):
        right = _is_target(prediction, target)
        given.append(None if right or _failed(prediction) else _scores(metric, prediction))
    lengths = {len(one) for one in given if one is not None}
    largest = max((c for target in targets for c in target), default=-1)
    if len(lengths) > 1 or (lengths and largest >= min(lengths)):
        raise UserError(
            f"{metric}: predictions hold {' and '.join(map(str, sorted(lengths)))} scores, and there is a class "
            f"{largest}; wanted one score of each class"
        )
    classes = lengths.pop() if lengths else largest + 1
    scores, truth = np.full((len(given), classes), -math.inf), np.zeros((len(given), classes), dtype=bool)
    for i, (one, prediction, target) in enumerate(zip(given, predictions, targets, strict=True)):
        truth[i, list(target)] = True
        if one is not None:
            scores[i] = one
        elif not _failed(prediction):
            scores[i, list(target)] = math.inf
    scores[np.isnan(scores)] = -math.inf
    return np.ascontiguousarray(scores.T), np.ascontiguousarray(truth.T)


def _is_target(prediction: Any, target: Sequence[int]) -> bool:
    """Whether the target stands in place of a prediction: whole numbers, where scores are fractions."""
    return prediction is target or (
        isinstance(prediction, list | tuple)
        and len(prediction) == len(target)
        and list(prediction) == list(target)
        and all(isinstance(one, Integral) for one in prediction)
    )


def _scores(metric: str, prediction: Any) -> _Table:
    try:
        found = np.asarray(prediction, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(())
    if isinstance(prediction, str) or found.ndim != 1:
        raise UserError(f"{metric}: prediction {str(prediction)[:60]!r} is not a list of scores, one of each class")
    return found


def _mean_average_precision(
    scores: _Table, truth: _Truth, among: npt.NDArray[np.intp] | None = None, envelope: bool = False
) -> float:
    """The mean over classes of the average precision, of scores and truth (C, N), of some examples or of all.

    Args:
        envelope: the precision at a recall is the highest at that recall or at a higher one.
    """

    def precision(times: _Times, scores: _Table, truth: _Truth) -> _Table:
        """Of one class."""
        if among is not None:
            times, scores, truth = times[among], scores[among], truth[among]
        positives = times[truth].sum(0, dtype=np.float64)
        known = truth & (scores > -math.inf)
        if not known.any():
            return np.where(positives > 0, 0.0, math.nan)
        # What is told apart: the places of positives, best first, each with what comes after the one before it.
        steps = np.unique(-scores[known])
        step = np.searchsorted(steps, -scores)
        below = step < len(steps)
        found, more_hits = _sums(times[below], step[below]).cumsum(0), _sums(times[known], step[known])
        reached = more_hits.cumsum(0) / np.maximum(found, 1)
        if envelope:
            reached = np.maximum.accumulate(reached[::-1])[::-1]
        return np.where(positives > 0, (more_hits * reached).sum(0) / np.maximum(positives, 1), math.nan)

    return _over_classes(precision, scores, truth)


def _over_classes(of_class: Callable[..., _Table], scores: npt.NDArray[Any], truth: _Truth) -> float:
    """The mean over classes of what (times, scores (N,), truth (N,)) give for each, NaN left out."""
    classes, n = truth.shape
    if not (classes and n):
        return math.nan

    def of(times: _Times) -> _Table:
        return _mean(np.stack([of_class(times, *one) for one in zip(scores, truth, strict=True)]))

    return Weighted(n, of, min(RESAMPLES, max(1_000, _AFFORDABLE // (classes * n))))


def _sums(times: _Times, groups: npt.NDArray[np.intp], where: _Truth | None = None) -> _Table:
    """How often each group of examples counts (groups, R), in rising order of the groups' numbers (N,)."""
    order = np.argsort(groups, kind="stable")
    starts = np.unique(groups[order], return_index=True)[1]
    drawn = times[order]
    if where is not None:
        drawn *= where[order, None]
    return np.add.reduceat(drawn, starts).astype(np.float64)


def _mean(values: _Table) -> _Table:
    """The mean over the first dimension, in percent, of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * np.where(known, values, 0).sum(0) / known.sum(0))


def _failed(prediction: Any) -> bool:
    return prediction is None or (isinstance(prediction, float) and math.isnan(prediction))


def _index(prediction: Any, metric: str) -> int | None:
    if _failed(prediction):
        return None
    try:
        return int(prediction.__index__())
    except (AttributeError, TypeError):
        raise UserError(
            f"{metric}: prediction {prediction!r} is not a class index (a whole number from 0, or None for a failure)"
        ) from None


def _rank(prediction: Any, target: Any, way: str) -> float:
    """The rank, from 1; infinite for a miss."""
    if prediction is None:
        return math.inf
    if prediction is target:
        return 1.0
    if isinstance(prediction, Mapping) and way in prediction:
        rank = prediction[way]
        if rank is None or math.isnan(rank):
            return math.inf
        if rank >= 1:
            return float(rank)
    elif prediction == target:
        return 1.0
    raise UserError(f'retrieval: prediction {prediction!r} is not {{"t2v": r, "v2t": r}} with ranks from 1')
