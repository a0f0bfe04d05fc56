"""Logs training to trackers while it runs: the loss by step, and the score of each epoch on val."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import lightning
from lightning.pytorch.callbacks import Callback

POINTS = 100  # of a curve of losses: each is the mean of the steps since the one before


class Shown(NamedTuple):
    """To whom fitting is shown.

    Attributes:
        log: takes numbers by name, and the step.
        names: what each grid point adds to a curve's name.
    """

    log: Callable[[Mapping[str, float], int], None]
    names: Sequence[str]

    def val(self, scores: Mapping[int, float], step: int, epoch: int) -> None:
        """Tells the headline on val of some grid points, by their place."""
        self.log({"fit/epoch": epoch, **{f"fit/val{self.names[k]}": value for k, value in scores.items()}}, step)


class ShowFit(Callback):
    """Shows a Lightning run.

    Args:
        shown: to whom.
        scores: of each grid point the scores on val so far, which another callback adds to before this one is asked.
    """

    def __init__(self, shown: Shown, scores: Sequence[Sequence[float]]) -> None:
        self.shown, self.scores = shown, scores
        self.told = [0] * len(scores)  # of the scores
        self.sums, self.steps = [0.0] * len(scores), 0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        outputs = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
        losses = outputs["losses"] if len(self.scores) > 1 else outputs["loss"]
        if losses is None:  # a step without one
            return
        self.sums = [sum + loss for sum, loss in zip(self.sums, losses.reshape(-1).tolist(), strict=True)]
        self.steps += 1
        if self.steps * POINTS >= trainer.estimated_stepping_batches:
            self._tell_losses(trainer.global_step)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._tell_losses(trainer.global_step)
        new = {k: scores[-1] for k, scores in enumerate(self.scores) if len(scores) > self.told[k]}
        self.told = [len(scores) for scores in self.scores]
        self.shown.val(new, trainer.global_step, trainer.current_epoch + 1)

    def _tell_losses(self, step: int) -> None:
        if self.steps:
            named = zip(self.shown.names, self.sums, strict=True)
            self.shown.log({f"fit/loss{name}": sum / self.steps for name, sum in named}, step)
        self.sums, self.steps = [0.0] * len(self.scores), 0
