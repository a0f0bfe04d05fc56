"""One Lightning run: trains all grid points together, keeps the best epoch of each on val."""

from __future__ import annotations

import copy
import logging
import math
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from evalkit.api import Batch, Score
from evalkit.errors import UserError
from evalkit.heads.adapter import Adapter
from evalkit.pipeline.training.cost import TrainingCost
from evalkit.pipeline.training.divided import DividedSteps
from evalkit.pipeline.training.examples import Examples, TrainingBatches, predict, val_score
from evalkit.pipeline.training.shown import ShowFit, Shown
from evalkit.results.scores import headline
from evalkit.runtime.machine import give_back_memory
from evalkit.runtime.progress import track
from evalkit.runtime.ranks import ALONE, Ranks

# Products of larger weights are beyond float32.
MAX_WEIGHT = 1e19


@dataclass(frozen=True)
class TrainSpec:
    """How one Lightning run trains.

    Attributes:
        device: of the arithmetic.
        seed: of the order of the batches.
        precision: of the arithmetic, in Lightning's words.
        max_minutes: fitting stops after so many; 0: no limit.
        ranks: this process's place among those that each take a part of every batch.
        shown: to whom fitting is shown while it goes on.
    """

    device: torch.device
    seed: int = 0
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    max_minutes: float = 0.0
    ranks: Ranks = ALONE
    shown: Shown | None = None


@dataclass(frozen=True)
class TrainingCurve:
    """The training curve of a grid point: the headline on val by epoch, the best epoch (from 1), or its failure.

    Attributes:
        predictions: of the val examples at the epoch kept.
    """

    val_scores: list[float]
    best_epoch: int
    failure: str | None = None
    predictions: Sequence[Any] = field(default=(), compare=False, repr=False)

    @property
    def best(self) -> float | None:
        """The score of the best epoch; None if the point failed."""
        return None if self.failure else self.val_scores[self.best_epoch - 1]


@dataclass(frozen=True)
class Fitted:
    """The result of training: the curve of each grid point, the index of the best one, and the cost of a step.

    Attributes:
        cost: as `cost.training` of a record; None where nothing was trained in steps.
    """

    curves: list[TrainingCurve]
    chosen: int = 0
    cost: dict[str, Any] | None = field(default=None, compare=False, repr=False)


class DivergedError(UserError):
    """No grid point could be fitted; their curves say why.

    Args:
        curves: of the grid points.
        origin: what a loss that is not a number came from, where that is not the training.
    """

    def __init__(self, curves: list[TrainingCurve], origin: str = "") -> None:
        super().__init__(f"{curves[0].failure}: {origin or 'try a lower adapter.lr'}")
        self.curves, self.origin = curves, origin


def fit(
    adapter: Adapter,
    train: Examples,
    val: Examples,
    score: Score,
    spec: TrainSpec,
    keep: Callable[[Tensor], Tensor] | None = None,
) -> Fitted:
    """Trains with Lightning; afterwards the adapter holds the weights of the epoch with the best headline on val.

    Of several grid points that train together, the one with the best headline is selected, of equals the first; points
    that diverge are left out. An adapter with a closed form is solved, with no trainer, and scored on val once: one
    epoch.

    Args:
        adapter: untrained.
        train: examples to train on.
        val: examples to choose on.
        score: whose headline chooses.
        spec: how to train.
        keep: where the rows are uint8 video, because the encoder is trained too: maps clips (N, T, C, H, W) to the
            features that the encoder gives by then.

    Raises:
        UserError: there is nothing to train or to choose on, or the time is too short for one epoch.
        DivergedError: no point has a loss that is finite.
    """
    for split, data in (("training", train), ("validation", val)):
        if not data.examples:
            raise UserError(f"there are no {split} examples that could be decoded to fit the adapter on")
    device, points, ranks = spec.device, adapter.points, spec.ranks
    if adapter.closed_form:
        solved = _solve(adapter.to(device).eval(), train, val, score)
        if spec.shown:
            spec.shown.val({k: curve.val_scores[0] for k, curve in enumerate(solved.curves)}, step=0, epoch=1)
        return solved
    finite = _Finite(points)
    select = SelectOnVal(val, score, keep, points, finite.failures, ranks)
    showing = [ShowFit(spec.shown, select.scores)] if spec.shown else []
    cost = TrainingCost()
    batches = TrainingBatches(train, adapter.batch_size, spec.seed, ranks)
    divided = [DividedSteps(ranks, spec.max_minutes)] if ranks.size > 1 else []
    if divided:
        torch.manual_seed(spec.seed + ranks.rank)  # so that no two drop the same
    adapter.ranks = ranks
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of torch
        warnings.filterwarnings("ignore", message=".*in eval mode at the start.*")  # a frozen part is meant to be
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        trainer = lightning.Trainer(
            accelerator="cpu" if device.type == "cpu" else "gpu" if device.type == "cuda" else device.type,
            devices=1 if device.index is None else [device.index],
            plugins=[LightningEnvironment()],  # whatever the environment has of srun or torchrun
            max_epochs=adapter.epochs,
            max_time=timedelta(minutes=spec.max_minutes) if spec.max_minutes and not divided else None,
            # Scaled gradients skip a step for all points where one has no finite gradient; heads are float32 anyway.
            precision=spec.precision if points == 1 else "32-true",
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*divided, finite, select, _Progress(), cost, *showing],
        )
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(adapter.train(), batches)
        except SystemExit:  # what Lightning makes of Ctrl-C, and then ignores it
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        finally:
            batches.close()
            cost.close()
    if not any(select.scores):
        raise UserError(f"trainer.max_minutes={spec.max_minutes:g} ended before the first epoch did: increase it")
    curves = [
        TrainingCurve(scores, epoch, finite.failures.get(k), predictions)
        for k, (scores, epoch, predictions) in enumerate(
            zip(select.scores, select.best_epoch, select.predictions, strict=True)
        )
    ]
    best = best_point(curves)
    select.restore(adapter, best)
    _release(trainer, adapter)
    adapter.to(device).eval()
    return Fitted(curves, best, cost.record())


def _release(trainer: lightning.Trainer, adapter: Adapter) -> None:
    """Frees the memory that only training needs: gradients and optimizer state, three times the weights."""
    adapter.zero_grad(set_to_none=True)
    for optimizer in trainer.optimizers:  # which the trainer, in circles with its parts, would keep
        optimizer.state.clear()
        optimizer.param_groups.clear()
    give_back_memory()


def _solve(adapter: Adapter, train: Examples, val: Examples, score: Score) -> Fitted:
    """Fits every point at once and selects the best, of equals the first."""
    adapter.solve(train.whole())
    targets = [example.target for example in val.examples]
    curves = [
        TrainingCurve([headline(score, values, targets)], 1, predictions=values)
        for values in predict(adapter, val, None)
    ]
    best = best_point(curves)
    if len(curves) > 1:
        adapter.select(best)
    return Fitted(curves, best)


def best_point(curves: Sequence[TrainingCurve]) -> int:
    """The index of the curve with the best score, the first in case of ties; NaN is worse than any score."""
    scores = [-math.inf if curve.best is None or math.isnan(curve.best) else curve.best for curve in curves]
    return max((k for k, curve in enumerate(curves) if not curve.failure), key=lambda k: scores[k])


def _weights(module: nn.Module, k: int, points: int) -> dict[str, Tensor]:
    """The trained weights of one grid point."""
    trained = {name: p.data for name, p in module.named_parameters() if p.requires_grad}
    return {name: value[k] for name, value in trained.items()} if points > 1 else trained


class SelectOnVal(Callback):
    """Scores val after each epoch and remembers the trainable weights of each point's best; of equals the last.

    A small val gives the same score in many epochs, and the learning rate has settled only towards the end.
    """

    def __init__(
        self,
        val: Examples,
        score: Score,
        keep: Callable[[Tensor], Tensor] | None,
        points: int,
        failures: dict[int, str],
        ranks: Ranks = ALONE,
    ) -> None:
        self.val, self.score, self.keep, self.failures, self.ranks = val, score, keep, failures, ranks
        self.scores: list[list[float]] = [[] for _ in range(points)]
        self.best_epoch = [0] * points
        self.best: list[dict[str, Tensor]] = [{} for _ in range(points)]
        self.predictions: list[list[Any]] = [[] for _ in range(points)]  # of the best epoch

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, Adapter)
        pl_module.eval()
        for k in range(len(self.scores)):  # the last step's weights are in no loss
            if not all(
                bool((value.abs() < MAX_WEIGHT).all()) for value in _weights(pl_module, k, len(self.scores)).values()
            ):
                self.failures.setdefault(k, f"the weights became too large or nan at step {trainer.global_step}")
        if len(self.failures) == len(self.scores):
            raise DivergedError([TrainingCurve([], 0, self.failures[k]) for k in range(len(self.scores))])
        targets = [example.target for example in self.val.examples]
        predictions = (
            [[None] * len(targets)] if pl_module.scores_val else predict(pl_module, self.val, self.keep, self.ranks)
        )
        for k, values in enumerate(predictions):
            if k in self.failures:
                continue
            if pl_module.scores_val:
                value = val_score(pl_module, self.val, self.ranks)
            else:
                value = headline(self.score, values, targets)
            if not self.best[k] or not value < self.scores[k][self.best_epoch[k] - 1]:
                self.best_epoch[k] = len(self.scores[k]) + 1
                self.predictions[k] = values
                self.best[k] = copy.deepcopy(_weights(pl_module, k, len(self.scores)))
            self.scores[k].append(value)
        pl_module.train()

    def restore(self, adapter: Adapter, chosen: int) -> None:
        """Restores the saved weights of a point, and drops all other points."""
        for name, value in _weights(adapter, chosen, len(self.scores)).items():
            value.copy_(self.best[chosen][name])
        self.best.clear()
        if len(self.scores) > 1:
            adapter.select(chosen)


class _Finite(Callback):
    """Records the points whose loss is not a number; stops where all are."""

    def __init__(self, points: int) -> None:
        self.points = points
        self.failures: dict[int, str] = {}
        self.batch: Batch | None = None
        self.origin = ""

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch, self.origin = batch, ""

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Asks where a loss that is not a number comes from, while the weights are still those that gave it."""
        if self.points == 1 and not bool(loss.isfinite().all()) and self.batch is not None:
            assert isinstance(pl_module, Adapter)
            self.origin = pl_module.loss_origin(self.batch)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        outputs = outputs if isinstance(outputs, dict) else {"loss": outputs}
        losses = outputs["losses"] if self.points > 1 else outputs["loss"]
        for k, loss in enumerate([] if losses is None else losses.reshape(-1).tolist()):
            if not math.isfinite(loss):
                self.failures.setdefault(k, f"the loss became {loss} at step {trainer.global_step}")
        if len(self.failures) == self.points:
            raise DivergedError([TrainingCurve([], 0, self.failures[k]) for k in range(self.points)], self.origin)


class _Progress(Callback):
    """Steps on stderr."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        total = int(trainer.estimated_stepping_batches)
        self.steps: Iterator[int] = track(range(total), "fit", total)
        next(self.steps, None)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        next(self.steps, None)
