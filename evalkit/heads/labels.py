"""Classes as targets and as predictions: one right class per example, or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evalkit.api import Example, Prediction, Task
from evalkit.errors import UserError
from evalkit.metrics.localization import BOXES_PER_FRAME


def multi_label(task: Task) -> bool:
    """Whether an example may have several classes: targets are tuples or lists of class indices.

    Raises:
        UserError: only some targets are, or an index is none of the task's classes; or an example is a key frame, whose
            boxes have classes, and the example none, or a sequence of windows.
    """
    if task.views.window:
        raise UserError(
            "an example of this task is a sequence of windows with segments in it, to which this adapter gives no "
            "answer: use adapter=localizer"
        )
    known = [example for example in (*task.train, *task.val, *task.test) if example.target is not None]
    refuse_key_frames(known)
    kinds = {isinstance(example.target, tuple | list) for example in known}
    if len(kinds) > 1:
        single = next(example for example in known if not isinstance(example.target, tuple | list))
        raise UserError(
            f"example {single.id!r} has the target {single.target!r}, others have lists of class indices: wanted one "
            "kind"
        )
    if several := kinds == {True}:
        for example in known:
            if wrong := [index for index in example.target if index not in range(len(task.classes))]:
                raise UserError(
                    f"example {example.id!r}: target {wrong[0]!r} is not an index of its {len(task.classes)} classes"
                )
    return several


def refuse_key_frames(examples: Sequence[Example]) -> None:
    """Checks that no example asks about the boxes of a key frame, of an adapter that gives one answer per video.

    Raises:
        UserError: one does.
    """
    if framed := next((example.id for example in examples if example.boxes is not None), None):
        raise UserError(
            f"example {framed!r} asks about each box of a key frame, to which this adapter gives no answer: use "
            "adapter=probe adapter.head=box (adapter.layers=4 for MLAP) or adapter=finetune"
        )


def multi_hot(targets: Sequence[int | Sequence[int]], classes: int) -> Tensor:
    """Ones where a class is an example's, else zeros: (B, classes)."""
    labels = torch.zeros(len(targets), classes)
    for row, target in zip(labels, targets, strict=True):
        row[[target] if isinstance(target, int) else list(target)] = 1
    return labels


class Best(NamedTuple):
    """Values (..., k) and class indices (..., k), falling."""

    values: Tensor
    indices: Tensor


def best_classes(scores: Tensor, most: int = 5) -> Best:
    """The classes of the highest scores (..., C), best first; of equals the lower one, which torch.topk leaves open."""
    values, indices = scores.sort(dim=-1, descending=True, stable=True)
    return Best(values[..., :most], indices[..., :most])


def class_predictions(logits: Tensor, several: bool) -> list[list[Prediction]]:
    """For each of K classifiers, from logits (K, B, V, C), the five likeliest classes of each example, best first.

    It goes by the mean of the softmax over the views. Where an example may have several classes: the probability of
    every class, the mean of the sigmoid.
    """
    likely = (logits.sigmoid() if several else logits.softmax(-1)).mean(2)
    if several:
        return [[Prediction(probabilities) for probabilities in of_point] for of_point in likely.tolist()]
    best = best_classes(likely)
    rounded = best.values.double().round(decimals=6).tolist()
    return [
        [
            Prediction(classes, {"probabilities": probabilities})
            for classes, probabilities in zip(*of_point, strict=True)
        ]
        for of_point in zip(best.indices.tolist(), rounded, strict=True)
    ]


def key_frame_predictions(
    examples: Sequence[Example],
    features: Tensor,
    logits: Callable[[Sequence[Example], Tensor], Any],
    classes: Sequence[str],
    several: bool,
    points: int = 1,
) -> list[list[Prediction]]:
    """The predictions of each of K classifiers for the boxes of each key frame, which share its features.

    That is [left, top, right, bottom, class name, score] of the 50 likeliest pairs of box and class, best first, by the
    probability of the class times the score of the box; nothing where there is no box.

    Args:
        examples: key frames.
        features: of their videos, (B, V, ...).
        logits: those (K, boxes x V, C) of examples with a box each, and of their features (boxes, V, ...).
        classes: names; one without a name is not predicted.
        several: each class has a sigmoid of its own.
        points: K.
    """
    named = [(number, name) for number, name in enumerate(classes) if name]
    predictions: list[list[Prediction]] = [[] for _ in range(points)]
    for example, of_video in zip(examples, features, strict=True):
        if not example.boxes:
            for of_point in predictions:
                of_point.append(Prediction([]))
            continue
        asked = [replace(example, box=box[:4], boxes=None) for box in example.boxes]
        of_boxes = logits(asked, of_video.expand(len(asked), *of_video.shape)).unflatten(1, (len(asked), -1))
        likely = (of_boxes.sigmoid() if several else of_boxes.softmax(-1)).mean(2)
        detected = torch.tensor([box[4] for box in example.boxes], device=likely.device)
        scores = (likely * detected[:, None])[..., [number for number, _ in named]].flatten(1)
        best = best_classes(scores, BOXES_PER_FRAME)
        for of_point, values, indices in zip(predictions, best.values.tolist(), best.indices.tolist(), strict=True):
            pairs = [(example.boxes[index // len(named)], named[index % len(named)][1]) for index in indices]
            of_point.append(
                Prediction([[*box[:4], name, score] for (box, name), score in zip(pairs, values, strict=True)])
            )
    return predictions
