"""Linear and attentive probes: a classifier on frozen features, or many of them trained together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import lightning
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from evalkit.api import Batch, Encoder, Example, FeatureSpec, Prediction, Task, pooled_dim
from evalkit.errors import UserError
from evalkit.heads import boxes
from evalkit.heads.bank import Bank, Point
from evalkit.heads.flops import trained_flops
from evalkit.heads.head import Head, attention_heads
from evalkit.heads.labels import class_predictions, multi_hot, multi_label
from evalkit.heads.optim import StackedAdamW

# Points of one grid may differ in these.
TOGETHER = ("lr", "weight_decay", "dropout", "label_smoothing")


class Probe(lightning.LightningModule):
    """A frozen encoder's features -> class scores, of K probes at once until one is chosen.

    Args:
        bank: the probes.
        epochs: passes over the training examples.
        batch_size: examples in one training step.
        several: an example may have several classes, or none; each has a sigmoid of its own.
    """

    trains_encoder = False

    def __init__(self, bank: Bank, epochs: int, batch_size: int, several: bool = False) -> None:
        super().__init__()
        self.bank, self.epochs, self.batch_size, self.several = bank, epochs, batch_size, several
        self.feature_spec = (
            FeatureSpec("tokens", max(1, bank.layers), dtype="float16") if bank.heads else FeatureSpec("pooled")
        )

    @property
    def points(self) -> int:
        """K."""
        return len(self.bank.points)

    def forward(self, features: Tensor, within: Tensor | None = None) -> Tensor:
        """Logits (K, B, classes) of one view from pooled (B, D), or for attentive heads from tokens (B, T', S, D).

        Those of more than one layer are (B, layers, T', S, D). The head `box` needs boxes (B, 4).
        """
        return self.bank(features, within)  # type: ignore[no-any-return]

    def _scored(self, examples: Sequence[Example], features: Tensor) -> Any:
        """Logits (K, B V, classes) of all views (B, V, ...) of examples."""
        views = features.shape[1]
        within = boxes.boxes(examples).to(self.device).repeat_interleave(views, 0) if self.bank.boxed else None
        return self(features.flatten(0, 1).to(self.device), within)

    def on_fit_start(self) -> None:
        self.bank.share = self.trainer.global_rank, self.trainer.world_size

    def training_step(self, batch: Batch, index: int) -> dict[str, Tensor]:
        """The sum of the probes' losses, and each probe's own (K,)."""
        views = batch.features.shape[1]
        logits = self._scored(batch.examples, batch.features)
        targets = [example.target for example in batch.examples]
        target = multi_hot(targets, self.bank.classes) if self.several else torch.tensor(targets)
        losses = self.bank.loss(logits, target.to(self.device).repeat_interleave(views, 0))
        return {"loss": losses.sum(), "losses": losses.detach()}

    def configure_optimizers(self) -> StackedAdamW:
        return StackedAdamW(self.bank, int(self.trainer.estimated_stepping_batches))

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Nothing: the optimizer clips each probe's gradient by its own norm."""

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The five likeliest classes of each example, best first, by the mean of the softmax over its views.

        Where an example may have several classes: the probability of every class, the mean of the sigmoid.
        """
        (predictions,) = self.predict_all(examples, features)
        return predictions

    def predict_all(self, examples: Sequence[Example], features: Tensor | None) -> list[list[Prediction]]:
        """What `predict` gives, of each probe."""
        if features is None:
            raise UserError("a probe has no blind control: without a video it has no input")
        logits = self._scored(examples, features)
        return class_predictions(logits.unflatten(1, features.shape[:2]), self.several)

    def select(self, k: int) -> None:
        """Leaves the k-th probe only."""
        self.bank = self.bank.alone(k)

    def adapter_state(self) -> dict[str, Tensor]:
        """The one probe's parameters, named as torch's own modules would."""
        (_,) = self.bank.points
        return self.bank.state(0)

    def load_adapter_state(self, weights: Mapping[str, Tensor]) -> None:
        """Puts back what `learned` gave."""
        self.bank.load(0, weights)

    def flops(self, encoder: Any, video: Tensor) -> int:
        """Operations of one clip on `meta` in one probe, as torch's own modules would need them."""
        bank = self.bank
        found = encoder(video, layers=bank.layers) if bank.layers > 1 else encoder(video)
        with torch.device("meta"):
            head = Head(bank.dim, bank.classes, bank.heads, bank.steps, bank.layers, boxed=bank.boxed)
        return trained_flops(head, self.feature_spec.take(found).float())


def adapter(
    encoder: Encoder,
    task: Task,
    *,
    head: Literal["linear", "attentive", "mlap", "box"] = "attentive",
    heads: Annotated[int, Ge(0)] = 0,
    layers: int = 0,
    lr: Annotated[float, Gt(0)] = 1e-3,
    weight_decay: Annotated[float, Ge(0)] = 1e-2,
    epochs: Annotated[int, Ge(0)] = 30,
    batch_size: Annotated[int, Gt(0)] = 32,
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
    eql_gamma: float = 0.0,
    eql_lambda: float = 5e-3,
    temporal_positions: bool = False,
    token_grid: Annotated[int, Ge(0)] = 0,
    stored: Literal["auto", "float32", "float16", "int8"] = "auto",
) -> Probe:
    """Classifies with a linear or attentive probe on the frozen encoder.

    The attentive head is VideoGLUE's as its code has it (https://arxiv.org/abs/2307.03166): LayerNorm, one
    cross-attention layer with one learned query, dropout, a linear classifier. Its paper has an MLP after the
    attention, and MLAP passes the query so through the encoder's last four layers: that is `mlap`, and with layers=1
    the paper's head for the last layer (evalkit/heads/bank.py says what the MLP is). The code's is the default, since
    all of it is known; the FLOPs that the paper prints fit either. The linear head is LayerNorm and a linear classifier
    on the pooled vector.

    The head `box` is for tasks that ask about a box: what is in it takes the place of the learned query, as the papers
    have it for localization in space and time. Neither prints how: VideoGLUE's code takes the largest of what RoIAlign
    gives of the mean over time, in six heads of another kind; here it is the mean over time and over the box.

    A task whose targets are tuples or lists of class indices may have several classes in one example: then each class
    has a sigmoid in place of the softmax over all, and is trained by its own cross-entropy.

    Args:
        head: linear, attentive, mlap or box.
        heads: attention heads of the attentive probe; 0 means 12 where they divide the width, else the next fewer.
        layers: of the encoder, the last ones, that mlap's query passes through; 0 means 4.
        lr: peak learning rate.
        weight_decay: of the matrices.
        epochs: passes over the training examples.
        batch_size: examples in one training step.
        dropout: before the classifier.
        label_smoothing: of the cross-entropy.
        eql_gamma: of the equalization loss for few common and many rare classes: the share of the examples of other
            classes, drawn anew in each step, that say nothing against a rare class; 0 is the plain cross-entropy.
        eql_lambda: share of the training examples below which a class is rare.
        temporal_positions: the attentive probe learns positions in time and adds them to the tokens, for encoders that
            embed frames by themselves, as in VideoGLUE.
        token_grid: the attentive probe reads the means of the tokens over a grid of so many by so many fields of the
            frame, which take less space; 0 reads all tokens.
        stored: how features are held: float32, float16, or int8, whose error is at most 1/254 of the largest number in
            a vector; auto is float16 for tokens and float32 for pooled vectors.
    """
    settings = {
        "head": head,
        "heads": heads,
        "layers": layers,
        "lr": lr,
        "weight_decay": weight_decay,
        "epochs": epochs,
        "batch_size": batch_size,
        "dropout": dropout,
        "label_smoothing": label_smoothing,
        "eql_gamma": eql_gamma,
        "eql_lambda": eql_lambda,
        "temporal_positions": temporal_positions,
        "token_grid": token_grid,
        "stored": stored,
    }
    return grid(encoder, task, [settings])


def grid(encoder: Encoder, task: Task, points: Sequence[Mapping[str, Any]]) -> Probe:
    """Probes that train together, one per point, each as `adapter` alone would make it.

    Args:
        encoder: frozen.
        task: with classes.
        points: all settings of `adapter` for each, which differ in `TOGETHER` at most.

    Raises:
        UserError: the task has no classes, its targets are of two kinds, or a setting does not fit.
    """
    if not task.classes:
        raise UserError("adapter=probe needs a task with classes; this task has none")
    several = multi_label(task)
    for key in ("label_smoothing", "eql_gamma"):
        if several and any(point[key] for point in points):
            raise UserError(f"adapter.{key} is of the softmax; this task has several classes per example: set it to 0")
    shared = points[0]
    attentive = shared["head"] != "linear"
    if shared["layers"] and shared["head"] != "mlap":
        raise UserError(
            f"adapter.layers={shared['layers']} has no effect with adapter.head={shared['head']}; use head=mlap"
        )
    layers = (shared["layers"] or 4) if shared["head"] == "mlap" else 0
    heads = attention_heads(encoder.dim, shared["heads"]) if attentive else 0
    if shared["temporal_positions"] and not attentive:
        raise UserError("adapter.temporal_positions=true has no effect with adapter.head=linear; use head=attentive")
    if shared["token_grid"] and not attentive:
        raise UserError(f"adapter.token_grid={shared['token_grid']} has no effect with adapter.head=linear")
    steps = encoder.clip.frames if shared["temporal_positions"] else 0
    dim = encoder.dim if attentive else pooled_dim(encoder)
    seed = torch.initial_seed()
    each = [Point(**{key: point[key] for key in TOGETHER}, seed=seed) for point in points]
    spared = _spared(task, shared["eql_gamma"], shared["eql_lambda"]) if shared["eql_gamma"] else ()
    boxed = shared["head"] == "box"
    if boxed:
        boxes.boxes([*task.train, *task.val, *task.test])  # told now where one has none
    bank = Bank(each, dim, len(task.classes), heads, steps, layers, spared, boxed)
    probe = Probe(bank, shared["epochs"], shared["batch_size"], several)
    dtype = probe.feature_spec.dtype if shared["stored"] == "auto" else shared["stored"]
    probe.feature_spec = replace(probe.feature_spec, grid=shared["token_grid"], dtype=dtype)
    return probe


def _spared(task: Task, gamma: float, most: float) -> list[float]:
    """For each class the share of its negatives that training leaves out: gamma where it is rare."""
    if not 0 < gamma <= 1:
        raise UserError(f"adapter.eql_gamma={gamma:g}: wanted a share from 0 to 1")
    counts = Counter(example.target for example in task.train)
    shares = [counts[c] / max(1, len(task.train)) for c in range(len(task.classes))]
    if task.train and min(shares) >= most:
        raise UserError(
            f"adapter.eql_lambda={most:g}: no class is that rare; the rarest has {min(shares):g} of the examples"
        )
    return [gamma * (share < most) for share in shares]
