"""Accuracy metrics. A score function takes (predictions, targets) in the same order and returns {metric: value}.

A value is a list of one number per example in 0..1, whose mean in percent is the score, or one float over the whole
split, in percent, preferably an `AdditiveScore` or a `ReweightedScore` (evalkit/metrics/bootstrap.py), which have
intervals. The first metric is the headline. A prediction of None or NaN stands for a failed example and is wrong; a
target in place of a prediction is right. `evalkit.results.scores.scores` adds intervals, bounds and kinds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from evalkit.errors import UserError, counted
from evalkit.metrics.bootstrap import PERCENT, Draws, ReweightedScore, Table
from evalkit.runtime.notes import remark

_WHOLE = frozenset({int})
SURE = 20  # rankings that all hold the same five classes: then there are no others


def accuracy(predictions: Sequence[Any], targets: Sequence[int]) -> dict[str, list[float]]:
    """Accuracy of predicted class or option indices: `accuracy`.

    Raises:
        UserError: a prediction is not one whole number.
    """
    return {"accuracy": [float(_index(p, "accuracy") == t) for p, t in zip(predictions, targets, strict=True)]}


def top1_top5(predictions: Sequence[Any], targets: Sequence[int]) -> dict[str, list[float]]:
    """Top-1 and top-5 accuracy: `top1`, `top5`.

    Of five classes or fewer, every ranking has a top5 of 100; a run notes that.

    Args:
        predictions: class indices in descending order of score; all of them, or at least the first five.
        targets: class indices.

    Raises:
        UserError: a prediction is not such a list, or is shorter than five although there are more classes.
    """
    best = _best_five(predictions, targets)
    classes = len(set().union(*best))
    right = all(target in ranked for ranked, target in zip(best, targets, strict=True) if ranked)
    few = classes < 5 or (classes == 5 and len(best) >= SURE)  # a few rankings of five may all leave out the same class
    if len(best) > 1 and classes and few and right and all(len(ranked) == classes for ranked in best if ranked):
        remark(f"with {counted(classes, 'class')}, top5 counts every prediction as right; use top1")
    return {
        "top1": [float(target in ranked[:1]) for ranked, target in zip(best, targets, strict=True)],
        "top5": [float(target in ranked) for ranked, target in zip(best, targets, strict=True)],
    }


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


def class_mean_recall5(predictions: Sequence[Any], targets: Sequence[int]) -> dict[str, float | list[float]]:
    """Top-5 accuracy per class, averaged over the classes with examples: `recall@5`; and `top1`, `top5` over examples.

    EPIC-KITCHENS' measure of what is anticipated (https://github.com/epic-kitchens/C2-Action-Anticipation). Arguments
    are those of `top1_top5`.
    """
    best = _best_five(predictions, targets)
    hits = [float(target in ranked) for ranked, target in zip(best, targets, strict=True)]
    top1 = [float(target in ranked[:1]) for ranked, target in zip(best, targets, strict=True)]
    return {"recall@5": _class_mean(hits, targets), "top1": top1, "top5": hits}


def verb_noun_accuracy(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, list[float]]:
    """Accuracy of EPIC-KITCHENS' 97 verbs and 300 nouns: `action`, where both are right, `verb` and `noun`.

    Args:
        predictions: a score of every class, the verbs' first.
        targets: the class of the verb, and that of the noun.

    Raises:
        UserError: a prediction is not a list of numbers that is longer than the classes of its target.
    """
    return _verb_noun(predictions, targets, 97)


def mini_verb_noun_accuracy(predictions: Sequence[Any], targets: Sequence[Sequence[int]]) -> dict[str, list[float]]:
    """`verb_noun_accuracy` of the miniature, which has nine verbs."""
    return _verb_noun(predictions, targets, 9)


def _verb_noun(predictions: Sequence[Any], targets: Sequence[Sequence[int]], verbs: int) -> dict[str, list[float]]:
    right = [_verb_and_noun(p, list(t), verbs) for p, t in zip(predictions, targets, strict=True)]
    return {
        "action": [float(verb and noun) for verb, noun in right],
        "verb": [float(verb) for verb, _ in right],
        "noun": [float(noun) for _, noun in right],
    }


def _verb_and_noun(prediction: Any, target: list[int], verbs: int) -> tuple[bool, bool]:
    """Whether the likeliest verb is right, and the likeliest noun; of equals the first."""
    if is_failed(prediction):
        return False, False
    if isinstance(prediction, list | tuple) and list(prediction) == target:
        return True, True
    try:
        scores = np.asarray(prediction, dtype=np.float64)
        if scores.ndim != 1 or len(scores) <= max(target):
            raise ValueError
    except (TypeError, ValueError):
        raise UserError(
            f"verb_noun_accuracy: prediction {prediction!r:.60} is not a list with a score of each verb and noun"
        ) from None
    return int(scores[:verbs].argmax()) == target[0], verbs + int(scores[verbs:].argmax()) == target[1]


def macro_accuracy(predictions: Sequence[Any], targets: Sequence[int]) -> dict[str, float | list[float]]:
    """Accuracy per class, averaged over the classes with examples: `macro_accuracy`; and `top1` over examples.

    Arguments are those of `top1_top5`.
    """
    best = _best_five(predictions, targets)
    hits = [float(target in ranked[:1]) for ranked, target in zip(best, targets, strict=True)]
    return {"macro_accuracy": _class_mean(hits, targets), "top1": hits}


def _class_mean(values: Sequence[float], targets: Sequence[int]) -> float:
    """The mean over classes of the mean of their examples' values in 0..1, in percent; NaN without examples."""
    hits = np.array(values)
    order = np.argsort(targets, kind="stable")
    starts = np.unique(np.asarray(targets)[order], return_index=True)[1]

    def of(times: Draws) -> Table:
        drawn = times[order]
        size = np.add.reduceat(drawn, starts).astype(np.float64)
        right = np.add.reduceat(drawn * hits[order, None].astype(np.float32), starts)
        return mean_over_classes(np.where(size > 0, right / np.maximum(size, 1), math.nan))

    return ReweightedScore(len(hits), of, limits=PERCENT) if len(hits) else math.nan


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
