"""Linear and attentive probes: a classifier on frozen features."""

from __future__ import annotations

from typing import Any, Literal

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Batch, Encoder, Example, Kept, Prediction, Task, UserError
from evalkit.optim import adamw


class AttentivePooling(nn.Module):
    """One cross-attention layer with a learned query over tokens (B, N, D): LayerNorm, attention, (B, D) out."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm(tokens)
        pooled, _ = self.attention(self.query.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False)
        return pooled[:, 0]  # type: ignore[no-any-return]


class Probe(lightning.LightningModule):
    """A frozen encoder's features -> class scores."""

    trains_encoder = False

    def __init__(
        self,
        dim: int,
        classes: int,
        head: Literal["linear", "attentive"],
        heads: int,
        lr: float,
        weight_decay: float,
        epochs: int,
        batch_size: int,
        dropout: float,
        label_smoothing: float,
    ) -> None:
        super().__init__()
        self.head, self.classes = head, classes
        self.kept = Kept("tokens", dtype="float16") if head == "attentive" else Kept("pooled")
        self.lr, self.weight_decay, self.label_smoothing = lr, weight_decay, label_smoothing
        self.epochs, self.batch_size = epochs, batch_size
        self.pool = AttentivePooling(dim, heads) if head == "attentive" else nn.LayerNorm(dim)
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes) of one view from pooled (B, D), or tokens (B, T', S, D) for the attentive head."""
        if self.head == "attentive":
            features = features.flatten(1, 2)
        return self.classify(self.pool(features.float()))  # type: ignore[no-any-return]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        views = batch.features.shape[1]
        logits = self(batch.features.flatten(0, 1).to(self.device))
        target = torch.tensor([example.target for example in batch.examples], device=self.device)
        return F.cross_entropy(logits, target.repeat_interleave(views), label_smoothing=self.label_smoothing)

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        return adamw(self, self.lr, self.weight_decay, steps)

    def predict(self, examples: list[Example], features: Tensor | None) -> list[Prediction]:
        """The five likeliest classes of each example, best first, by the mean of the softmax over its views."""
        if features is None:
            raise UserError("a probe has no blind control: without a video it has no input")
        logits = self(features.flatten(0, 1).to(self.device)).float()
        likely = logits.softmax(-1).reshape(*features.shape[:2], -1).mean(1)
        best = likely.topk(min(5, self.classes))
        return [
            Prediction(classes, {"probabilities": [round(p, 6) for p in probabilities]})
            for classes, probabilities in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


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
    """
    if not task.classes:
        raise UserError("adapter=probe needs a task with classes; this task has none")
    heads = heads or max(n for n in range(1, 13) if encoder.dim % n == 0)
    if head == "attentive" and encoder.dim % heads:
        allowed = [n for n in range(1, 33) if encoder.dim % n == 0]
        raise UserError(
            f"adapter.heads={heads} does not divide the encoder's width {encoder.dim}; use one of {allowed}"
        )
    dim = encoder.dim if head == "attentive" else getattr(encoder, "pooled_dim", encoder.dim)
    return Probe(dim, len(task.classes), head, heads, lr, weight_decay, epochs, batch_size, dropout, label_smoothing)
