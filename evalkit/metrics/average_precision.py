"""Mean average precision and PR-AUC, single- and multi-label: functions of (predictions, targets)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.errors import UserError
from evalkit.metrics.bootstrap import PERCENT, RESAMPLES, Draws, ReweightedScore, Table
from evalkit.metrics.classification import accuracy, is_failed, mean_over_classes


def top1_map(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float | list[float]]:
    """Top-1 accuracy and mean average precision over classes: `top1`, `mAP`.

    Args:
        predictions: (C,) scores of each example, higher is likelier.
        targets: the one class of each example, as a tuple.

    Raises:
        UserError: a prediction is not such a list, or they differ in length.
    """
    precision = multilabel_map(predictions, targets)
    best = [_argmax(scores) for scores in predictions]
    return {"top1": accuracy(best, [target for (target,) in targets])["accuracy"], **precision}


def _argmax(scores: Any) -> int | None:
    """The class of the highest score; None if all are NaN. A single number is a target in place of scores."""
    known = np.atleast_1d(np.asarray(scores, dtype=np.float64))
    if np.isnan(known).all():
        return None
    return int(known[0]) if len(known) == 1 else int(np.nanargmax(known))


_Truth = npt.NDArray[np.bool_]

# Bound on classes x examples x bootstrap draws, all of which are visited: about ten seconds.
_MAX_OPERATIONS = 4_000_000_000


def multilabel_map(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float]:
    """Mean average precision over the classes with examples, in percent: `mAP`.

    Examples with equal scores share the precision at the last of them, so that a
    constant prediction gives the share of examples that have the class. A failed example is never retrieved.

    Args:
        predictions: (C,) scores of each example, higher is likelier.
        targets: the class indices that each example has; may be none.

    Raises:
        UserError: a prediction is not such a list, or they differ in length.
    """
    scores, truth = _multilabel("multilabel_map", predictions, targets)
    return {"mAP": _mean_average_precision(scores, truth)}


def foreground_map(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float]:
    """`multilabel_map` without class 0, the background: `mAP`.

    Examples of the background alone are kept, as negatives of the other classes. Arguments are those of
    `multilabel_map`.
    """
    scores, truth = _multilabel("foreground_map", predictions, targets)
    return {"mAP": _mean_average_precision(scores[1:], truth[1:])}


def box_map(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float]:
    """AVA's mean average precision for given boxes, one example each, in percent: `mAP`.

    Its evaluation (https://github.com/activitynet/ActivityNet/blob/master/Evaluation/get_ava_performance.py) has the
    rule of PASCAL VOC: what counts at a recall is the highest precision at that recall or at a higher one. There, one
    of two boxes in a frame that overlap by half may be taken for the other; here each is itself. Arguments and ties are
    those of `multilabel_map`.
    """
    scores, truth = _multilabel("box_map", predictions, targets)
    return {"mAP": _mean_average_precision(scores, truth, envelope=True)}


def charades_map(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float]:
    """Charades' mean average precision in percent: `mAP`, and `mAP_all_videos`, which includes videos without action.

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
    """The expected mean average precision, in percent, of a random ranking.

    Args:
        targets: the class indices that each example has; may be none.
        empty: count examples without a class; Charades' rule does not.
    """
    n = sum(empty or len(target) > 0 for target in targets)
    positives = np.unique([c for target in targets for c in set(target)], return_counts=True)[1]
    harmonic = float((1 / np.arange(1, n + 1)).sum())
    # At rank i a positive has precision 1 / i, and (i - 1) / i of the share of positives among the others.
    return float(mean_over_classes(((positives - 1) / max(1, n - 1) * (n - harmonic) + harmonic) / max(1, n)))


def pr_auc(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, float]:
    """Mean over classes of the area under the precision-recall curve, as Keras computes it, in percent: `PR-AUC`.

    200 thresholds from just below 0 to just above 1, evenly spaced; between two of them true positives grow linearly
    with what is retrieved (Davis and Goadrich 2006, https://doi.org/10.1145/1143844.1143874). Classes without examples
    are left out; Keras counts them as 0. Arguments are those of `multilabel_map`, scores in 0..1.

    Raises:
        UserError: as `multilabel_map`, and if a score is not in 0..1.
    """
    scores, truth = _multilabel("pr_auc", predictions, targets)
    if (known := scores[np.isfinite(scores)]).size and not 0 <= known.min() <= known.max() <= 1:
        raise UserError(f"pr_auc: scores reach from {known.min():g} to {known.max():g}; wanted probabilities in 0..1")
    thresholds = np.concatenate([[-1e-7], np.arange(1, 199) / 199])  # and one above 1, which nothing reaches
    above = np.searchsorted(thresholds, np.clip(scores, -1, 1), "left")  # how many thresholds each score is above

    def area(times: Draws, above: npt.NDArray[np.intp], truth: _Truth) -> Table:
        """The area of one class, from the highest threshold down, skipping thresholds with no example in between."""
        positives = times[truth].sum(0, dtype=np.float64)
        more_hits, more = _sums(times, -above, truth), _sums(times, -above)
        if above.min() == 0:  # what failed is above none of them
            more_hits, more = more_hits[:-1], more[:-1]
        hits, retrieved = more_hits.cumsum(0) - more_hits, more.cumsum(0) - more
        slope = more_hits / np.maximum(more, 1)
        # The integral over x in 0..more of (hits + slope x) / (retrieved + x), times slope / positives: recall's rise.
        growth = np.log(np.where(retrieved > 0, (retrieved + more) / np.maximum(retrieved, 1), 1))
        areas = (slope * (more_hits + (hits - slope * retrieved) * growth)).sum(0)
        return np.where(positives > 0, areas / np.maximum(positives, 1), math.nan)

    return {"PR-AUC": _over_classes(area, above, truth)}


def _multilabel(metric: str, predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> tuple[Table, _Truth]:
    """Scores (C, N), -inf for failed examples, and labels (C, N)."""
    given: list[Table | None] = []
    for prediction, target in zip(predictions, targets, strict=True):
        given.append(None if _is_target(prediction, target) or is_failed(prediction) else _scores(metric, prediction))
    lengths = {len(row) for row in given if row is not None}
    largest = max((c for target in targets for c in target), default=-1)
    if len(lengths) > 1 or (lengths and largest >= min(lengths)):
        raise UserError(
            f"{metric}: predictions hold {' and '.join(map(str, sorted(lengths)))} scores, and there is a class "
            f"{largest}; wanted one score of each class"
        )
    classes = lengths.pop() if lengths else largest + 1
    scores, truth = np.full((len(given), classes), -math.inf), np.zeros((len(given), classes), dtype=bool)
    for i, (row, prediction, target) in enumerate(zip(given, predictions, targets, strict=True)):
        truth[i, list(target)] = True
        if row is not None:
            scores[i] = row
        elif not is_failed(prediction):
            scores[i, list(target)] = math.inf
    scores[np.isnan(scores)] = -math.inf
    return np.ascontiguousarray(scores.T), np.ascontiguousarray(truth.T)


def _is_target(prediction: Any, target: Sequence[int]) -> bool:
    """Whether the prediction is the target itself: class indices, where predictions are float scores."""
    return prediction is target or (
        isinstance(prediction, list | tuple)
        and len(prediction) == len(target)
        and list(prediction) == list(target)
        and all(isinstance(value, Integral) for value in prediction)
    )


def _scores(metric: str, prediction: Any) -> Table:
    try:
        scores = np.asarray(prediction, dtype=np.float64)
    except (TypeError, ValueError):
        scores = np.empty(())
    if isinstance(prediction, str) or scores.ndim != 1:
        raise UserError(f"{metric}: prediction {str(prediction)[:60]!r} is not a list of scores, one of each class")
    return scores


def _mean_average_precision(
    scores: Table, truth: _Truth, among: npt.NDArray[np.intp] | None = None, envelope: bool = False
) -> float:
    """Mean average precision of scores and labels (C, N).

    Args:
        scores: -inf for failed examples.
        truth: whether each example has each class.
        among: indices of the examples that count; None for all.
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
        # Rank steps: one per distinct score of a positive, best first; negatives join the next lower step.
        steps = np.unique(-scores[known])
        step = np.searchsorted(steps, -scores)
        below = step < len(steps)
        retrieved, more_hits = _sums(times[below], step[below]).cumsum(0), _sums(times[known], step[known])
        reached = more_hits.cumsum(0) / np.maximum(retrieved, 1)
        if envelope:
            reached = np.maximum.accumulate(reached[::-1])[::-1]
        return np.where(positives > 0, (more_hits * reached).sum(0) / np.maximum(positives, 1), math.nan)

    return _over_classes(precision, scores, truth)


def _over_classes(of_class: Callable[..., Table], scores: npt.NDArray[Any], truth: _Truth) -> float:
    """The mean over classes, ignoring NaN, of `of_class(times, scores (N,), truth (N,))`."""
    classes, n = truth.shape
    if not (classes and n):
        return math.nan

    def of(times: Draws) -> Table:
        return mean_over_classes(
            np.stack([of_class(times, *class_row) for class_row in zip(scores, truth, strict=True)])
        )

    return ReweightedScore(n, of, min(RESAMPLES, max(1_000, _MAX_OPERATIONS // (classes * n))), limits=PERCENT)


def _sums(times: Draws, groups: npt.NDArray[np.intp], where: _Truth | None = None) -> Table:
    """Summed weights of each group of examples (groups, R), in ascending order of the group indices (N,)."""
    order = np.argsort(groups, kind="stable")
    starts = np.unique(groups[order], return_index=True)[1]
    drawn = times[order]
    if where is not None:
        drawn *= where[order, None]
    return np.add.reduceat(drawn, starts).astype(np.float64)
