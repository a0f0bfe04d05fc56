"""Score functions for tasks: (predictions, targets) in the same order -> {metric: value}.

A value is one number per example in 0..1, whose mean in percent is the score, or one float over the whole split. The
first metric is the headline. A prediction of None stands for a failed example and is wrong, and so is NaN; a target in
place of a prediction is right. `evalkit.scores.scores` adds the interval, the bounds and the kinds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from statistics import fmean, median
from typing import Any

from evalkit.api import UserError


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
        if _failed(prediction):
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
    return {
        "top1": [float(target in ranked[:1]) for ranked, target in zip(best, targets, strict=True)],
        "top5": [float(target in ranked) for ranked, target in zip(best, targets, strict=True)],
    }


def retrieval(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float | list[float]]:
    """How high each query ranks what it should find: `R@1`, `R@5`, `R@10`, `median_rank`, `mean_rank`.

    A failed query is a miss. For the median and the mean it ranks last, at the number of queries (or the largest rank
    seen, where that is larger): left out, a failure would improve both, and an infinite rank would drown the mean.

    Args:
        predictions: {"rank": r} with r from 1, the average rank of what ties, so that a constant similarity matrix
            ranks everything in the middle and not first.
        targets: anything; only looked at where it stands in place of a prediction.

    Raises:
        UserError: a prediction has no rank, or a rank below 1.
    """
    ranks = [_rank(p, t) for p, t in zip(predictions, targets, strict=True)]
    last = max([float(len(ranks)), *(rank for rank in ranks if math.isfinite(rank))])
    placed = [min(rank, last) for rank in ranks]
    return {
        **{f"R@{k}": [float(rank <= k) for rank in ranks] for k in (1, 5, 10)},
        "median_rank": median(placed) if placed else math.nan,
        "mean_rank": fmean(placed) if placed else math.nan,
    }


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


def _rank(prediction: Any, target: Any) -> float:
    """The rank, from 1; infinite for a miss."""
    if prediction is None:
        return math.inf
    if prediction is target:
        return 1.0
    if isinstance(prediction, Mapping) and "rank" in prediction:
        rank = prediction["rank"]
        if rank is None or math.isnan(rank):
            return math.inf
        if rank >= 1:
            return float(rank)
    elif prediction == target:
        return 1.0
    raise UserError(f'retrieval: prediction {prediction!r} is not {{"rank": r}} with r from 1')
