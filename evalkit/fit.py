"""Fits an adapter on training examples and keeps the epoch that is best on val."""

from __future__ import annotations

import copy
import logging
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from evalkit import encode
from evalkit.api import Adapter, Batch, Example, Score, UserError
from evalkit.config import Config
from evalkit.encode import Encoding, Source
from evalkit.parts import Parts
from evalkit.progress import track

PREDICT_BATCH = 64


@dataclass(frozen=True)
class Examples:
    """Examples whose features are at hand.

    Attributes:
        examples: those that could be decoded.
        rows: (n, V, ...) features, or uint8 video while the encoder is trained; n distinct sources.
        index: row of each source.
    """

    examples: Sequence[Example]
    rows: Tensor
    index: dict[Source, int]

    def batch(self, chosen: Sequence[int]) -> Batch:
        """The examples at these positions with their features."""
        examples = [self.examples[i] for i in chosen]
        rows = [self.index[Source(example.video, example.span)] for example in examples]
        return Batch(examples, self.rows[rows])


@dataclass(frozen=True)
class Fitted:
    """What fitting chose: epochs run, the epoch kept (from 1), and the headline of each epoch on val."""

    epochs: int
    kept: int
    val_scores: list[float]


def fit_adapter(parts: Parts, config: Config) -> tuple[dict[str, Any], float]:
    """Fits on train and keeps the epoch that is best on val; the record of the choice and the seconds it took."""
    train, val = list(parts.task.train), list(parts.task.val)
    if not val:
        train, val = split_val(train, config.options.seed)
    if parts.task.provide:
        parts.task.provide([*train, *val])
    keep = _pixels if parts.adapter.trains_encoder else parts.keep
    unique = encode.sources([*train, *val])
    rows = torch.empty(0)
    index: dict[Source, int] = {}
    failed: list[Encoding] = []
    for one in parts.reader.encode(unique, keep, "encode train", {"": encode.unchanged}, parts.shelf):
        if one.failure:
            failed.append(one)
            continue
        if not index:
            rows = torch.empty(len(unique), *one.features[""].shape, dtype=one.features[""].dtype)
        rows[len(index)] = one.features[""]
        index[one.source] = len(index)
    encode.report(failed, len(unique))
    started = time.monotonic()
    fitted = fit(
        parts.adapter,
        _at_hand(train, rows, index),
        _at_hand(val, rows, index),
        parts.task.score,
        keep=parts.keep if parts.adapter.trains_encoder else None,
        epochs=parts.adapter.epochs,
        seed=config.options.seed,
        device=parts.device,
        precision=config.trainer.precision,
        max_minutes=config.trainer.max_minutes,
    )
    settings = {key: value for key, value in parts.settings.items() if value != ""}
    best = fitted.val_scores[fitted.kept - 1]
    record = {
        "grid": [settings],
        "chosen": {"epoch": fitted.kept, "epochs": fitted.epochs},
        "val_score": best,
        "val_scores": fitted.val_scores,
        "n_train": len(train),
        "n_val": len(val),
        "undecodable": [{"video": str(one.source.video), "reason": one.failure} for one in failed],
    }
    return record, time.monotonic() - started


def fit(
    adapter: lightning.LightningModule,
    train: Examples,
    val: Examples,
    score: Score,
    *,
    keep: Callable[[Tensor], Tensor] | None,
    epochs: int,
    seed: int,
    device: torch.device,
    precision: Any,
    max_minutes: float,
) -> Fitted:
    """Trains with Lightning; afterwards the adapter holds the weights of the epoch with the best headline on val.

    Where the rows are uint8 video, because the encoder is trained too, `keep` maps clips (N, T, C, H, W) to what the
    adapter keeps of the encoder's output as it is by then.

    Raises:
        UserError: there is nothing to train or to choose on, the loss is not finite, or the time is too short for one
            epoch.
    """
    assert isinstance(adapter, Adapter)
    for split, data in (("training", train), ("validation", val)):
        if not data.examples:
            raise UserError(f"there are no {split} examples that could be decoded to fit the adapter on")
    choose = _ChooseOnVal(val, score, keep)
    with warnings.catch_warnings():
        # Features are in memory: loader workers would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of torch
        warnings.filterwarnings("ignore", message=".*in eval mode at the start.*")  # a frozen part is meant to be
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        trainer = lightning.Trainer(
            accelerator="cpu" if device.type == "cpu" else "gpu" if device.type == "cuda" else device.type,
            devices=1,
            max_epochs=epochs,
            max_time=timedelta(minutes=max_minutes) if max_minutes else None,
            precision=precision,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[choose, _Progress()],
        )
        loader: Any = torch.utils.data.DataLoader(
            range(len(train.examples)),  # type: ignore[arg-type]
            batch_size=adapter.batch_size,
            shuffle=True,
            generator=torch.Generator().manual_seed(seed),
            collate_fn=train.batch,
        )
        try:
            trainer.fit(adapter.train(), loader)
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
    if not choose.scores:
        raise UserError(f"trainer.max_minutes={max_minutes:g} were over before the first epoch was: give it more")
    choose.restore(adapter)
    adapter.to(device).eval()
    return Fitted(len(choose.scores), choose.kept, choose.scores)


def split_val(examples: Sequence[Example], seed: int, share: float = 0.1) -> tuple[list[Example], list[Example]]:
    """Train and val, val a seeded share of the videos: no video is in both."""
    videos = sorted({example.video for example in examples})
    random.Random(seed).shuffle(videos)
    held_out = set(videos[: max(1, round(share * len(videos)))])
    train = [example for example in examples if example.video not in held_out]
    return train, [example for example in examples if example.video in held_out]


def predict(adapter: Adapter, data: Examples, keep: Callable[[Tensor], Tensor] | None) -> list[Any]:
    """The values predicted for examples at hand; `keep` as in `fit`."""
    values: list[Any] = []
    for start in range(0, len(data.examples), PREDICT_BATCH):
        batch = data.batch(range(start, min(start + PREDICT_BATCH, len(data.examples))))
        features = batch.features
        if keep:
            features = keep(features.flatten(0, 1)).reshape(*features.shape[:2], -1)
        with torch.inference_mode():
            values += [prediction.value for prediction in adapter.predict(batch.examples, features)]
    return values


def headline(score: Score, predictions: Sequence[Any], targets: Sequence[Any]) -> float:
    """A score's first entry; a value per example becomes its mean in percent."""
    value = next(iter(score(predictions, targets).values()))
    return float(value) if np.ndim(value) == 0 else 100 * float(np.mean(value))  # type: ignore[arg-type]


def _pixels(pixels: Tensor) -> Tensor:
    return pixels


def _at_hand(examples: Sequence[Example], rows: Tensor, index: dict[Source, int]) -> Examples:
    known = [e for e in examples if Source(e.video, e.span) in index]
    return Examples(known, rows, index)


class _ChooseOnVal(Callback):
    """Scores val after each epoch and remembers the trainable weights of the best; of equals the last.

    A small val gives the same score in many epochs, and the learning rate has settled only towards the end.
    """

    def __init__(self, val: Examples, score: Score, keep: Callable[[Tensor], Tensor] | None) -> None:
        self.val, self.score, self.keep = val, score, keep
        self.scores: list[float] = []
        self.kept = 0
        self.best: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, Adapter)
        pl_module.eval()
        targets = [example.target for example in self.val.examples]
        value = headline(self.score, predict(pl_module, self.val, self.keep), targets)
        pl_module.train()
        if not self.best or not value < self.scores[self.kept - 1]:
            self.kept = len(self.scores) + 1
            self.best = {n: copy.deepcopy(p.data) for n, p in pl_module.named_parameters() if p.requires_grad}
        self.scores.append(value)

    def restore(self, adapter: nn.Module) -> None:
        """Puts the remembered weights back."""
        own = dict(adapter.named_parameters())
        for name, value in self.best.items():
            own[name].data.copy_(value)


class _Progress(Callback):
    """Steps on stderr; stops where the loss is no number."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        total = int(trainer.estimated_stepping_batches)
        self.steps: Iterator[int] = track(range(total), "fit", total)
        next(self.steps, None)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if loss is not None and not torch.isfinite(loss):
            raise UserError(f"the loss became {float(loss)} at step {trainer.global_step}: try a lower adapter.lr")
        next(self.steps, None)
