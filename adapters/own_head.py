"""A fine-tuned checkpoint's own classifier, its labels mapped to the data set's classes by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, tensor

from evalkit.api import Encoder, Example, Prediction, Task
from evalkit.errors import UserError
from evalkit.heads.adapter import Adapter, AdapterSettings
from evalkit.heads.labels import class_predictions, multi_label
from evalkit.heads.own_head import OwnHead, class_order, read_labels


@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings of `adapter=own_head`.

    Attributes:
        labels: a text file with the checkpoint's class names in its order, one per line, if its own names differ from
            the data set's.
        subset: ignore labels that the data set does not have, before the softmax: for a Kinetics-710 checkpoint on
            kinetics400.
    """

    labels: Path | None = None
    subset: bool = False


class Classifier(Adapter):
    """A checkpoint's classifier as it is; nothing is trained.

    Args:
        head: the classifier.
        order: for each class of the task its number in the checkpoint.
        clips: temporal views of a video.
        several: an example may have several classes, or none; each has a sigmoid of its own.
    """

    def __init__(self, head: OwnHead, order: Sequence[int], clips: int, several: bool) -> None:
        super().__init__()
        self.feature_spec, self.joined, self.clips, self.several = head.feature_spec, head.joined, clips, several
        self.head = head.module.requires_grad_(False)
        self.order: Tensor
        self.register_buffer("order", tensor(order))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, V, C) from features (B, V, ...); V counts crops alone where all clips are read together."""
        if self.joined:
            apart = features.reshape(len(features), self.clips, -1, *features.shape[2:]).transpose(1, 2)
            features = apart.flatten(2, -2)  # (B, crops, N, D)
        scores: Tensor = self.head(features.flatten(0, 1).float())
        return scores.view(*features.shape[:2], -1)[..., self.order]

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The five likeliest classes of each example, best first, by the mean of the softmax over its views.

        Where an example may have several classes: the probability of every class, the mean of the sigmoid.
        """
        assert features is not None
        (predictions,) = class_predictions(self(features.to(self.order.device))[None], self.several)
        return predictions


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> Classifier:
    """Classifies with a fine-tuned checkpoint's own classifier; nothing is trained.

    Raises:
        UserError: the task has no classes or the checkpoint no classifier, or their names do not match.
    """
    (settings,) = points
    if not task.classes:
        raise UserError("adapter=own_head needs a task with classes; this task has none")
    read: Callable[[], OwnHead] | None = getattr(encoder, "own_head", None)
    if read is None:
        raise UserError(
            "adapter=own_head needs a classifier (...ForVideoClassification) in a folder or hub name of transformers' "
            "VideoMAE, ViViT, TimeSformer or V-JEPA 2, or in a file of VideoMAE v2, UMT or InternVideo2, and this "
            "encoder has none: adapter=probe trains one"
        )
    several, head = multi_label(task), read()
    labels = read_labels(settings.labels, len(head.labels)) if settings.labels else head.labels
    return Classifier(head, class_order(labels, task.classes, settings.subset), task.views.clips, several)
