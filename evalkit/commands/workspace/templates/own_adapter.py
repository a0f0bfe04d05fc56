"""own_adapter, a way of your own to join a frozen encoder to a task.

evalkit run task=folder mini=true ckpt=demo adapter=./own_adapter.py adapter.hidden=32
evalkit sweep task=folder mini=true ckpt=demo adapter=./own_adapter.py adapter.lr=1e-4,1e-3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor, nn

from evalkit.api import Adapter, Batch, Encoder, Example, FeatureSpec, Prediction, Task, Training, pooled_dim
from evalkit.errors import UserError


@dataclass(frozen=True)
class Settings(Training):
    """Settings of the adapter: the keys of `adapter.*`, beside lr, weight_decay, epochs and batch_size.

    Attributes:
        hidden: units of the hidden layer.
    """

    hidden: Annotated[int, Gt(0)] = 64


class TwoLayers(Adapter):
    """Pooled vectors (B, V, D) -> class scores, the mean over the views first."""

    # What is kept of the encoder's output, and stored: pooled (D,), frames (T', D) or tokens (T', S, D).
    feature_spec = FeatureSpec("pooled")

    def __init__(self, dim: int, classes: int, settings: Settings) -> None:
        super().__init__()
        self.lr, self.weight_decay = settings.lr, settings.weight_decay
        self.epochs, self.batch_size = settings.epochs, settings.batch_size
        # Encoders differ in the scale of their vectors: without a norm, one learning rate does not fit them all.
        self.head = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, settings.hidden), nn.GELU(), nn.Linear(settings.hidden, classes)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, classes)."""
        logits: Tensor = self.head(features.to(self.device).float().mean(1))
        return logits

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The cross-entropy of a batch."""
        targets = torch.tensor([example.target for example in batch.examples], device=self.device)
        return nn.functional.cross_entropy(self(batch.features), targets)

    def configure_optimizers(self) -> Any:
        """AdamW with a constant rate; evalkit.heads.optim.Trained has warm-up and cosine."""
        return torch.optim.AdamW(self.parameters(), self.lr, weight_decay=self.weight_decay)

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The five likeliest classes of each example, best first; targets are never looked at."""
        assert features is not None
        ranked = self(features).argsort(1, descending=True)
        return [Prediction(classes) for classes in ranked[:, :5].tolist()]


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> TwoLayers:
    """Classifies with two layers on the pooled vector.

    Raises:
        UserError: the task has no classes.
    """
    if not task.classes:
        raise UserError("adapter=own_adapter needs a task with classes; this task has none")
    (settings,) = points  # several only where `Settings.STACKABLE` names settings that train together
    return TwoLayers(pooled_dim(encoder), len(task.classes), settings)
