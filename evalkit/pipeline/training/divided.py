"""Data-parallel training: each process takes a part of every batch, and all take the same step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from evalkit.runtime.ranks import Ranks

if TYPE_CHECKING:
    import lightning


def part(batch: Sequence[int], ranks: Ranks) -> tuple[list[int], float]:
    """This process's examples of a batch, and which share of the batch they are.

    Where there are fewer examples than processes, one that would have none takes the first, which then counts nothing.
    """
    own = list(ranks.share(batch))
    return (own, len(own) / len(batch)) if own else ([batch[0]], 0.0)


class DividedSteps(Callback):
    """Sums losses and gradients of all processes, each weighted by its share of the batch.

    With a loss that is a mean over examples, or `contrastive_loss`, these are loss and gradient of the whole batch, but
    for the order in which they are added. It comes before callbacks that look at either.

    Args:
        ranks: this process's place.
        max_minutes: all stop after so many by the clock of the first; 0: no limit.
    """

    def __init__(self, ranks: Ranks, max_minutes: float = 0.0) -> None:
        self.ranks = ranks
        self.deadline = time.monotonic() + 60 * max_minutes if max_minutes else None
        self.share = 1.0

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.share = batch.share

    def on_after_backward(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        gradients = [value.grad for value in pl_module.parameters() if value.grad is not None]
        for gradient, whole in zip(gradients, self._sum(gradients), strict=True):
            gradient.copy_(whole)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        losses = [value for value in outputs.values() if isinstance(value, Tensor)]
        for loss, whole in zip(losses, self._sum(losses), strict=True):
            loss.copy_(whole)
        if self.deadline is not None:
            trainer.should_stop |= self.ranks.broadcast(time.monotonic() > self.deadline)

    def _sum(self, values: Sequence[Tensor]) -> list[Tensor]:
        """The weighted sums of these values over all processes, in one message."""
        flat = self.ranks.sum(torch.cat([value.flatten().float() for value in values]) * self.share)
        sizes = [value.numel() for value in values]
        return [whole.view_as(value) for whole, value in zip(torch.split(flat, sizes), values, strict=True)]
