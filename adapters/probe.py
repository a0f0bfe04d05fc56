"""Linear and attentive probes: a classifier on frozen features, or many of them trained together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightning
import torch
from torch import Tensor

from evalkit.api import Batch, Encoder, Example, Kept, Prediction, Task, UserError
from evalkit.bank import Bank, Point, StackedAdamW

# Points of one grid may differ in these.
TOGETHER = ("lr", "weight_decay", "dropout", "label_smoothing")


class Probe(lightning.LightningModule):
    """A frozen encoder's features -> class scores, of K probes at once until one is chosen."""

    trains_encoder = False

    def __init__(self, bank: Bank, epochs: int, batch_size: int) -> None:
        super().__init__()
        self.bank, self.epochs, self.batch_size = bank, epochs, batch_size
        self.kept = Kept("tokens", dtype="float16") if bank.heads else Kept("pooled")

    @property
    def points(self) -> int:
        """K."""
        return len(self.bank.points)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (K, B, classes) of one view from pooled (B, D), or tokens (B, T', S, D) for attentive heads."""
        return self.bank(features)  # type: ignore[no-any-return]

    def training_step(self, batch: Batch, index: int) -> dict[str, Tensor]:
        """The sum of the probes' losses, and each probe's own (K,)."""
        views = batch.features.shape[1]
        logits = self(batch.features.flatten(0, 1).to(self.device))
        target = torch.tensor([example.target for example in batch.examples], device=self.device)
        losses = self.bank.loss(logits, target.repeat_interleave(views))
        return {"loss": losses.sum(), "losses": losses.detach()}

    def configure_optimizers(self) -> StackedAdamW:
        return StackedAdamW(self.bank, int(self.trainer.estimated_stepping_batches))

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Nothing: the optimiser clips each probe's gradient by its own norm."""

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The five likeliest classes of each example, best first, by the mean of the softmax over its views."""
        (predictions,) = self.predict_all(examples, features)
        return predictions

    def predict_all(self, examples: Sequence[Example], features: Tensor | None) -> list[list[Prediction]]:
        """What `predict` gives, of each probe."""
        if features is None:
            raise UserError("a probe has no blind control: without a video it has no input")
        likely = self(features.flatten(0, 1).to(self.device)).softmax(-1)
        likely = likely.unflatten(1, features.shape[:2]).mean(2)
        best = likely.topk(min(5, self.bank.classes))
        return [
            [
                Prediction(classes, {"probabilities": [round(p, 6) for p in probabilities]})
                for classes, probabilities in zip(*of_probe, strict=True)
            ]
            for of_probe in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def choose(self, k: int) -> None:
        """Leaves the k-th probe only."""
        self.bank = self.bank.alone(k)

    def learned(self) -> dict[str, Tensor]:
        """The one probe's parameters, named as torch's own modules would."""
        (_,) = self.bank.points
        return self.bank.state(0)

    def relearn(self, weights: Mapping[str, Tensor]) -> None:
        """Puts back what `learned` gave."""
        self.bank.load(0, weights)


def adapter(
    encoder: Encoder,
    task: Task,
    *,
    head: Literal["linear", "attentive"] = "attentive",
    heads: int = 0,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    epochs: int = 30,
    batch_size: int = 32,
    dropout: float = 0.0,
    label_smoothing: float = 0.0,
    temporal_positions: bool = False,
) -> Probe:
    """Classifies with a linear or attentive probe on the frozen encoder.

    The attentive head is VideoGLUE's as its code has it (https://arxiv.org/abs/2307.03166): LayerNorm, one
    cross-attention layer with one learned query, dropout, a linear classifier. The linear head is LayerNorm and a
    linear classifier on the pooled vector.

    Args:
        head: linear or attentive.
        heads: attention heads of the attentive probe; 0 means 12 where they divide the width, else the next fewer.
        lr: peak learning rate.
        weight_decay: of the matrices.
        epochs: passes over the training examples.
        batch_size: examples in one training step.
        dropout: before the classifier.
        label_smoothing: of the cross-entropy.
        temporal_positions: the attentive probe learns positions in time and adds them to the tokens, for encoders that
            embed frames by themselves, as in VideoGLUE.
    """
    settings = {
        "head": head,
        "heads": heads,
        "lr": lr,
        "weight_decay": weight_decay,
        "epochs": epochs,
        "batch_size": batch_size,
        "dropout": dropout,
        "label_smoothing": label_smoothing,
        "temporal_positions": temporal_positions,
    }
    return grid(encoder, task, [settings])


def grid(encoder: Encoder, task: Task, points: Sequence[Mapping[str, Any]]) -> Probe:
    """Probes that train together, one per point, each as `adapter` alone would make it.

    Args:
        encoder: frozen.
        task: with classes.
        points: all settings of `adapter` for each, which differ in `TOGETHER` at most.

    Raises:
        UserError: the task has no classes, or a setting does not fit.
    """
    if not task.classes:
        raise UserError("adapter=probe needs a task with classes; this task has none")
    shared = points[0]
    attentive = shared["head"] == "attentive"
    heads = (shared["heads"] or max(n for n in range(1, 13) if encoder.dim % n == 0)) if attentive else 0
    if attentive and encoder.dim % heads:
        allowed = [n for n in range(1, 33) if encoder.dim % n == 0]
        raise UserError(
            f"adapter.heads={heads} does not divide the encoder's width {encoder.dim}; use one of {allowed}"
        )
    if shared["temporal_positions"] and not attentive:
        raise UserError("adapter.temporal_positions=true has no effect with adapter.head=linear; use head=attentive")
    steps = encoder.clip.frames if shared["temporal_positions"] else 0
    dim = encoder.dim if attentive else getattr(encoder, "pooled_dim", encoder.dim)
    seed = torch.initial_seed()
    each = [Point(**{key: point[key] for key in TOGETHER}, seed=seed) for point in points]
    return Probe(Bank(each, dim, len(task.classes), heads, steps), shared["epochs"], shared["batch_size"])
