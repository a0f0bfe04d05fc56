"""Mean average precision and PR-AUC, single- and multi-label: functions of (predictions, targets)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.errors import UserError
from evalkit.metrics.bootstrap import RESAMPLES, Draws, ReweightedScore, Table
from evalkit.metrics.classification import accuracy, is_failed, mean_over_classes


def top1_map(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float | list[float]]:
    """Whether the right class has the highest score: `top1`; and the mean average precision of classes: `mAP`.

    Args:
        predictions: (C,) scores of each example, higher is likelier.
        targets: the one class of each example, as a tuple.

    Raises:
        UserError: a prediction is not such a list, or they differ in length.
    """
    precision = multilabel_map(predictions, targets)
    best = [_highest(one) for one in predictions]
    return {"top1": accuracy(best, [target for (target,) in targets])["accuracy"], **precision}


def _highest(scores: Any) -> int | None:
    """The class of the highest score; None where there is none. A single number is a target in place of scores."""
    known = np.atleast_1d(np.asarray(scores, dtype=np.float64))
    if np.isnan(known).all():
        return None
    return int(known[0]) if len(known) == 1 else int(np.nanargmax(known))


_Truth = npt.NDArray[np.bool_]

# Classes x examples x draws of a score that goes through all of them for each draw: about ten seconds.
_AFFORDABLE = 4_000_000_000


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
    return float(mean_over_classes(((positives - 1) / max(1, n - 1) * (n - harmonic) + harmonic) / max(1, n)))


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

    def area(times: Draws, above: npt.NDArray[np.intp], truth: _Truth) -> Table:
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


def _multilabel(metric: str, predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> tuple[Table, _Truth]:
    """Scores (C, N), -inf for what failed, and whether each example has each class (C, N)."""
    given: list[Table | None] = []
    for prediction, target in zip(predictions, targets, strict=True):
        right = _is_target(prediction, target)
        given.append(None if right or is_failed(prediction) else _scores(metric, prediction))
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
        elif not is_failed(prediction):
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


def _scores(metric: str, prediction: Any) -> Table:
    try:
        found = np.asarray(prediction, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(())
    if isinstance(prediction, str) or found.ndim != 1:
        raise UserError(f"{metric}: prediction {str(prediction)[:60]!r} is not a list of scores, one of each class")
    return found


def _mean_average_precision(
    scores: Table, truth: _Truth, among: npt.NDArray[np.intp] | None = None, envelope: bool = False
) -> float:
    """The mean over classes of the average precision, of scores and truth (C, N), of some examples or of all.

    Args:
        envelope: the precision at a recall is the highest at that recall or at a higher one.
    """

    def precision(times: Draws, scores: Table, truth: _Truth) -> Table:
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


def _over_classes(of_class: Callable[..., Table], scores: npt.NDArray[Any], truth: _Truth) -> float:
    """The mean over classes of what (times, scores (N,), truth (N,)) give for each, NaN left out."""
    classes, n = truth.shape
    if not (classes and n):
        return math.nan

    def of(times: Draws) -> Table:
        return mean_over_classes(np.stack([of_class(times, *one) for one in zip(scores, truth, strict=True)]))

    return ReweightedScore(n, of, min(RESAMPLES, max(1_000, _AFFORDABLE // (classes * n))))


def _sums(times: Draws, groups: npt.NDArray[np.intp], where: _Truth | None = None) -> Table:
    """How often each group of examples counts (groups, R), in rising order of the groups' numbers (N,)."""
    order = np.argsort(groups, kind="stable")
    starts = np.unique(groups[order], return_index=True)[1]
    drawn = times[order]
    if where is not None:
        drawn *= where[order, None]
    return np.add.reduceat(drawn, starts).astype(np.float64)
