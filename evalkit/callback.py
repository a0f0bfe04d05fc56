"""Lightning callback that scores the model in training, on any task, every so many epochs or steps."""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from evalkit.errors import CanaryError, UserError
from evalkit.launch import python

logger = logging.getLogger("evalkit")


class Evaluate(Callback):
    """Log `evalkit/<task>/<metric>` to the trainer's loggers, before the first step and every so often after it.

    Beside each score stand the ends of its interval, `<metric>_low` and `<metric>_high`, and per task `n_failed` and
    `wall_s`.

    Each time is a whole run of a copy of the encoder, whose record lies in `out`, so that `evalkit compare` takes any
    two of them. Randomness, the module, its mode and the number of threads are as they were afterwards: training goes
    on as it would have. Where several processes train, the first scores and the others wait, at most as long as the
    strategy's `timeout` says; all of them may monitor the scores. A module that is sharded over them cannot be scored.

    Args:
        tasks: names, each with the words of its own, such as `kinetics400 adapter.epochs=5`.
        encoder: the evalkit encoder (`evalkit.api.Encoder`) inside the module.
        every: how many epochs, or steps, lie between.
        unit: what `every` counts.
        out: folder of the results; None means `evalkit` in the trainer's default_root_dir.
        words: for all tasks, as `evalkit.run` takes them; features are not stored unless `cache` says so.

    Once the first step is made, no mistake ends the training: where the canary fails, the run goes on without it, and
    what else fails is not scored this time. Either is a warning.

    Raises:
        UserError: a word is wrong, or the encoder is none, or the canary fails; before training starts.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        encoder: Callable[[Any], nn.Module],
        every: int = 1,
        unit: Literal["epoch", "step"] = "epoch",
        out: Path | None = None,
        **words: Any,
    ) -> None:
        if isinstance(tasks, str) or not tasks:
            raise UserError(f"tasks={tasks!r}: wanted a list of at least one task")
        if every < 1 or unit not in ("epoch", "step"):
            raise UserError(f"every={every}, unit={unit!r}: wanted 1 or more, and epoch or step")
        self.tasks = [shlex.split(line) for line in tasks]
        self.encoder, self.every, self.unit, self.out = encoder, every, unit, out
        self.words = {"cache": "off", **words}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Score before the first step, so that a mistake shows now rather than after hours."""
        self._score(trainer, pl_module, before=True)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Score after every n-th epoch."""
        if self.unit == "epoch" and (trainer.current_epoch + 1) % self.every == 0:
            self._score(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Score after every n-th step of the optimizer."""
        if self.unit == "step" and trainer.global_step % self.every == 0 and trainer.global_step != self._scored:
            self._score(trainer, pl_module)

    def _score(self, trainer: lightning.Trainer, module: lightning.LightningModule, before: bool = False) -> None:
        self._scored = trainer.global_step  # of batches whose gradients are accumulated, several have one step
        scores: dict[str, float] = {}
        beside: dict[str, float] = {}  # what is shown, but not monitored
        if trainer.is_global_zero:
            out = self.out or Path(trainer.default_root_dir) / "evalkit"
            with _undisturbed():
                for task, *overrides in self.tasks:
                    name = type(module).__name__
                    given = self.words | {word.partition("=")[0]: word.partition("=")[2] for word in overrides}
                    group = {"log.group": name} if given.get("log") else {}
                    words = {"encoder.name": f"{name}-step{trainer.global_step}"} | group | given
                    result = self._run(task, module, {"out": out} | words, before)
                    if result is None:
                        continue
                    task_name = result.record["task"]["name"]
                    scores |= _named(task_name, result.scores)
                    beside |= _named(task_name, _beside(result.record))
            for logger in trainer.loggers:
                logger.log_metrics(scores | beside, step=trainer.global_step)
        scores = trainer.strategy.broadcast(scores)  # the others wait here, and then monitor the same
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in scores.items()})

    def _run(self, task: str, module: Any, words: dict[str, Any], before: bool) -> python.Result | None:
        """The result; None where it fails once training is under way. Raises UserError before that."""
        try:
            return python.run(task, self.encoder(module), quiet=True, **words)
        except UserError as error:
            if before:
                raise
            if isinstance(error, CanaryError):
                logger.warning(f"step {self._scored}, {task}: evaluated though the canary failed: {error.args[0]}")
                return self._run(task, module, words | {"canary": False}, before)
            logger.warning(f"step {self._scored}, {task}: not evaluated: {error}")
            return None


def _named(task: str, values: Mapping[str, float | None]) -> dict[str, float]:
    return {f"evalkit/{task}/{name}": value for name, value in values.items() if value is not None}


def _beside(record: Mapping[str, Any]) -> dict[str, float | None]:
    """The ends of each score's interval, the number of failed examples, and the seconds that scoring took."""
    ends = {
        f"{score['metric']}_{end}": value
        for score in record["scores"]
        for end, value in zip(("low", "high"), score["ci95"], strict=True)
    }
    return {**ends, "n_failed": record["data"]["n_failed"], "wall_s": record["cost"]["wall_s"]}


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Restore what a run changes in its process: random states, threads, gradients, Lightning's log level."""
    lightnings = logging.getLogger("lightning.pytorch")
    level, threads = lightnings.level, torch.get_num_threads()
    try:
        with isolate_rng(), torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(threads)
        lightnings.setLevel(level)
