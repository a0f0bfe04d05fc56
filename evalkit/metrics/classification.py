"""Accuracies. A score function takes (predictions, targets) in the same order and returns {metric: value}.

A value is a list of one number per example in 0..1, whose mean in percent is the score, or one float over the whole
split, in percent, preferably an `AdditiveScore` or a `ReweightedScore` (evalkit/metrics/bootstrap.py), which have
intervals. The first metric is the headline. A prediction of None or NaN stands for a failed example and is wrong; a
target in place of a prediction is right. `evalkit.results.scores.scores` adds intervals, bounds and kinds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import cache
from numbers import Integral
from typing import Any

import numpy as np

from evalkit.errors import UserError
from evalkit.metrics.bootstrap import Draws, ReweightedScore, Table

logger = logging.getLogger("evalkit")

_WHOLE = frozenset({int})


def accuracy(predictions: Sequence[Any], targets: Sequence[int]) -> dict[str, list[float]]:
    """Accuracy of predicted class or option indices: `accuracy`.

    Raises:
        UserError: a prediction is not one whole number.
    """
    return {"accuracy": [float(_index(p, "accuracy") == t) for p, t in zip(predictions, targets, strict=True)]}


def top1_top5(predictions: Sequence[Any], targets: Sequence[int]) -> dict[str, list[float]]:
    """Top-1 and top-5 accuracy: `top1`, `top5`.

    Of five classes or fewer, every ranking has a top5 of 100; a note says so.

    Args:
        predictions: class indices in descending order of score; all of them, or at least the first five.
        targets: class indices.

    Raises:
        UserError: a prediction is not such a list, or is shorter than five although there are more classes.
    """
    best = _best_five(predictions, targets)
    classes = len(set().union(*best))
    if len(best) > 1 and 0 < classes <= 5 and all(len(ranked) == classes for ranked in best if ranked):
        _warn_every_class(classes)
    return {
        "top1": [float(target in ranked[:1]) for ranked, target in zip(best, targets, strict=True)],
        "top5": [float(target in ranked) for ranked, target in zip(best, targets, strict=True)],
    }


@cache
def _warn_every_class(classes: int) -> None:
    logger.warning(f"top5 counts every prediction as right: it has all of {classes} classes; read top1")


def _best_five(predictions: Sequence[Any], targets: Sequence[int]) -> list[Sequence[Any]]:
    """The five likeliest classes of each example, or fewer where there are fewer; none of a failed one."""
    enough = min(5, max((int(target) for target in targets), default=0) + 1)
    best: list[Sequence[Any]] = []
    for prediction, target in zip(predictions, targets, strict=True):
        if type(prediction) is list and len(prediction) >= enough and _WHOLE.issuperset(map(type, prediction[:5])):
            best.append(prediction[:5])  # the common case, three times as fast as the general one
        elif is_failed(prediction):
            best.append(())
        elif isinstance(prediction, Sequence) and not isinstance(prediction, str) and len(prediction) >= enough:
            best.append([_index(index, "top1_top5") for index in prediction[:5]])
        elif isinstance(prediction, Integral) and prediction == target:
            best.append((target,))
        else:
            raise UserError(
                f"top1_top5: prediction {prediction!r} is not a list of at least {enough} class indices in falling "
                "order of score; return such a list, or score the task with evalkit.metrics:accuracy"
            )
    return best


def macro_accuracy(predictions: Sequence[Any], targets: Sequence[int]) -> dict[str, float | list[float]]:
    """Accuracy per class, averaged over the classes with examples: `macro_accuracy`; and `top1` over examples.

    Arguments are those of `top1_top5`.
    """
    best = _best_five(predictions, targets)
    hits = np.array([float(target in ranked[:1]) for ranked, target in zip(best, targets, strict=True)])
    order = np.argsort(targets, kind="stable")
    starts = np.unique(np.asarray(targets)[order], return_index=True)[1]

    def of(times: Draws) -> Table:
        drawn = times[order]
        size = np.add.reduceat(drawn, starts).astype(np.float64)
        right = np.add.reduceat(drawn * hits[order, None].astype(np.float32), starts)
        return mean_over_classes(np.where(size > 0, right / np.maximum(size, 1), math.nan))

    score = ReweightedScore(len(hits), of) if len(hits) else math.nan
    return {"macro_accuracy": score, "top1": hits.tolist()}


def mean_over_classes(values: Table) -> Table:
    """The mean over the first dimension, in percent, ignoring NaN; NaN if all are NaN."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(100 * np.where(known, values, 0).sum(0) / known.sum(0))


def is_failed(prediction: Any) -> bool:
    """Whether a prediction is that of a failed example: None or NaN."""
    return prediction is None or (isinstance(prediction, float) and math.isnan(prediction))


def _index(prediction: Any, metric: str) -> int | None:
    if is_failed(prediction):
        return None
    try:
        return int(prediction.__index__())
    except (AttributeError, TypeError):
        raise UserError(
            f"{metric}: prediction {prediction!r} is not a class index (a whole number from 0, or None for a failure)"
        ) from None
