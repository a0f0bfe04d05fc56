"""Linear and attentive probes: a classifier on frozen features, or many of them trained together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from evalkit.api import Batch, Encoder, Example, FeatureSpec, Prediction, Task, pooled_dim
from evalkit.errors import UserError
from evalkit.heads import boxes
from evalkit.heads.adapter import Adapter, Training
from evalkit.heads.bank import Bank, Point
from evalkit.heads.flops import trained_flops
from evalkit.heads.head import Head, HeadShape, attention_heads
from evalkit.heads.labels import class_predictions, key_frame_predictions, multi_hot, multi_label
from evalkit.heads.optim import StackedAdamW
from evalkit.heads.roi import HEADS


@dataclass(frozen=True)
class Settings(Training):
    """Settings of `adapter=probe`.

    Attributes:
        head: linear, attentive, mlap, box or roi.
        heads: attention heads of the attentive probe; 0 means 12 if that divides the width, else the next smaller
            divisor; for roi, whose heads are each as wide as the tokens, 6.
        layers: number of the encoder's last layers that the query of mlap or box passes through, each with attention
            and MLP; 0 means 4 for mlap, and for box the last layer without an MLP.
        lr: peak learning rate.
        weight_decay: weight decay of the matrices.
        epochs: passes over the training examples.
        batch_size: examples per training step.
        dropout: before the classifier.
        label_smoothing: of the cross-entropy.
        eql_gamma: of the equalization loss for long-tailed classes: the share of examples of other classes, drawn in
            each step, that are not used as negatives of a rare class; 0 is the plain cross-entropy.
        eql_lambda: a class is rare if its share of the training examples is below this.
        temporal_positions: the attentive probe learns temporal position embeddings and adds them to the tokens, as in
            VideoGLUE for image encoders.
        token_grid: the attentive probe reads tokens averaged over a grid of this many by this many cells, which saves
            memory; 0 reads all tokens.
        stored: how features are stored: float32, float16, or int8 with an error of at most 1/254 of a vector's largest
            value; auto is float16 for tokens and float32 for pooled vectors.
    """

    TRAINED_WITH: ClassVar[tuple[str, ...]] = ("token_grid", "heads")
    STACKABLE: ClassVar[tuple[str, ...]] = ("lr", "weight_decay", "dropout", "label_smoothing")

    head: Literal["linear", "attentive", "mlap", "box", "roi"] = "attentive"
    heads: Annotated[int, Ge(0)] = 0
    layers: Annotated[int, Ge(0)] = 0
    lr: Annotated[float, Gt(0)] = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 1e-2
    epochs: Annotated[int, Ge(0)] = 30
    batch_size: Annotated[int, Gt(0)] = 32
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    eql_gamma: Annotated[float, Interval(ge=0, le=1)] = 0.0
    eql_lambda: Annotated[float, Ge(0)] = 5e-3
    temporal_positions: bool = False
    token_grid: Annotated[int, Ge(0)] = 0
    stored: Literal["auto", "float32", "float16", "int8"] = "auto"


class Probe(Adapter):
    """A frozen encoder's features -> class scores, of K probes at once until one is chosen.

    Args:
        bank: the probes.
        settings: of the first; in all but `Settings.STACKABLE`, of every probe.
        several: an example may have several classes, or none; each has a sigmoid of its own.
        classes: names, for the boxes of key frames; one without a name is trained and not predicted.
    """

    def __init__(self, bank: Bank, settings: Settings, several: bool = False, classes: Sequence[str] = ()) -> None:
        super().__init__()
        self.bank, self.several, self.points = bank, several, len(bank.points)
        self.classes = classes
        self.epochs, self.batch_size = settings.epochs, settings.batch_size
        shape = bank.shape
        self.divisible = bool(shape.heads)  # a linear head takes less time than its processes would to agree
        spec = FeatureSpec("tokens", max(1, shape.layers), dtype="float16") if shape.heads else FeatureSpec("pooled")
        dtype = spec.dtype if settings.stored == "auto" else settings.stored
        self.feature_spec = replace(spec, grid=settings.token_grid, dtype=dtype)

    def forward(self, features: Tensor, within: Tensor | None = None) -> Tensor:
        """Logits (K, B, classes) of one view from pooled (B, D), or for attentive heads from tokens (B, T', S, D).

        Those of more than one layer are (B, layers, T', S, D). The heads `box` and `roi` need boxes (B, 4).
        """
        return self.bank(features, within)  # type: ignore[no-any-return]

    def _scored(self, examples: Sequence[Example], features: Tensor) -> Any:
        """Logits (K, B V, classes) of all views (B, V, ...) of examples."""
        views = features.shape[1]
        within = boxes.boxes(examples).to(self.device).repeat_interleave(views, 0) if self.bank.shape.boxed else None
        return self(features.flatten(0, 1).to(self.device), within)

    def on_fit_start(self) -> None:
        self.bank.share = self.ranks.rank, self.ranks.size

    def training_step(self, batch: Batch, index: int) -> dict[str, Tensor]:
        """The sum of the probes' losses, and each probe's own (K,)."""
        views = batch.features.shape[1]
        logits = self._scored(batch.examples, batch.features)
        targets = [example.target for example in batch.examples]
        target = multi_hot(targets, self.bank.shape.classes) if self.several else torch.tensor(targets)
        losses = self.bank.loss(logits, target.to(self.device).repeat_interleave(views, 0))
        return {"loss": losses.sum(), "losses": losses.detach()}

    def configure_optimizers(self) -> StackedAdamW:
        return StackedAdamW(self.bank, int(self.trainer.estimated_stepping_batches))

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Does nothing: the optimizer clips each probe's gradient by its own norm."""

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The five likeliest classes of each example, best first, by the mean of the softmax over its views.

        Where an example may have several classes: the probability of every class, the mean of the sigmoid. Of a key
        frame: [left, top, right, bottom, class name, score] of the 50 likeliest pairs of box and class, best first, by
        the probability of the class times the score of the box.
        """
        (predictions,) = self.predict_all(examples, features)
        return predictions

    def predict_all(self, examples: Sequence[Example], features: Tensor | None) -> list[list[Prediction]]:
        """The predictions of each probe."""
        assert features is not None
        if any(example.boxes is not None for example in examples):
            return key_frame_predictions(
                examples, features, self._scored, self.classes, self.several, len(self.bank.points)
            )
        logits = self._scored(examples, features)
        return class_predictions(logits.unflatten(1, features.shape[:2]), self.several)

    @torch.no_grad()
    def attention(self, examples: Sequence[Example], features: Tensor) -> Tensor | None:
        """Where the query of the one probe looks, (B, V, layers, T', S); boxes of a key frame are not asked about."""
        if not self.bank.shape.heads or any(example.boxes is not None for example in examples):
            return None
        head = Head(self.bank.shape).to(self.device).eval()
        head.load_state_dict(self.bank.state(0))
        views = features.shape[1]
        within = boxes.boxes(examples).to(self.device).repeat_interleave(views, 0) if self.bank.shape.boxed else None
        weights = head.attention(features.flatten(0, 1).to(self.device).float(), within)
        return None if weights is None else weights.view(-1, views, *weights.shape[1:])

    def select(self, point: int) -> None:
        """Keeps one probe."""
        self.bank, self.points = self.bank.alone(point), 1

    def adapter_state(self) -> dict[str, Tensor]:
        """The one probe's parameters, named as torch's own modules would."""
        (_,) = self.bank.points
        return self.bank.state(0)

    def load_adapter_state(self, weights: Mapping[str, Tensor]) -> None:
        """Puts the tensors of `adapter_state` back."""
        self.bank.load(0, weights)

    def flops(self, encoder: Any, video: Tensor) -> int:
        """Operations of one clip on `meta` in one probe, as torch's own modules would need them."""
        layers = self.bank.shape.layers
        output = encoder(video, layers=layers) if layers > 1 else encoder(video)
        with torch.device("meta"):
            head = Head(self.bank.shape)
        return trained_flops(head, self.feature_spec.take(output).float())


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> Probe:
    """Classifies with a linear or attentive probe on the frozen encoder.

    The default attentive head is that of VideoGLUE's code (https://arxiv.org/abs/2307.03166): LayerNorm, one
    cross-attention layer with a learned query, dropout and a linear classifier. VideoGLUE's paper adds an MLP after the
    attention, and its MLAP passes the query through the encoder's last four layers: that is `mlap`, which with layers=1
    is the paper's head for the last layer (evalkit/heads/bank.py says which MLP is used). The code's head is the
    default because it is completely known; the FLOPs printed in the paper fit either. The linear head is LayerNorm and
    a linear classifier on the pooled vector.

    The heads `box` and `roi` are for tasks about a box: the content of the box replaces the learned query, as in the
    papers on spatiotemporal localization. These state one layer of 12 heads and width 768, but not how the box is
    pooled; `box` averages over time and over the box. `roi` is the head of VideoGLUE's code: the maximum over RoIAlign
    of the temporal mean, and six heads of another kind (evalkit/heads/roi.py). With layers=4 (MLAP), the content of the
    box passes through the last four layers, and the output of each is added to it (evalkit/heads/bank.py).

    A key frame with several boxes is encoded once for all of them. The score of a box is multiplied by its detection
    score.

    If targets are tuples or lists of class indices, the task is multi-label: each class then has a sigmoid and its own
    cross-entropy instead of the softmax.

    Raises:
        UserError: the task has no classes, its targets are of two kinds, or a setting does not fit.
    """
    if not task.classes:
        raise UserError("adapter=probe needs a task with classes; this task has none")
    settings = points[0]
    boxed, roi = settings.head in ("box", "roi"), settings.head == "roi"
    several = multi_label(boxes.without_key_frames(task, settings.head) if boxed else task)
    for key in ("label_smoothing", "eql_gamma"):
        if several and any(getattr(point, key) for point in points):
            raise UserError(f"adapter.{key} is of the softmax; this task has several classes per example: set it to 0")
    attentive, mlap = settings.head != "linear", settings.head == "mlap"
    if settings.layers and settings.head not in ("mlap", "box"):
        raise UserError(
            f"adapter.layers={settings.layers} has no effect with adapter.head={settings.head}; use "
            f"head={'box' if boxed else 'mlap'}"
        )
    if settings.temporal_positions and (roi or not attentive):
        raise UserError(
            f"adapter.temporal_positions=true has no effect with adapter.head={settings.head}; use head=attentive"
        )
    if settings.token_grid and not attentive:
        raise UserError(f"adapter.token_grid={settings.token_grid} has no effect with adapter.head=linear")
    shape = HeadShape(
        dim=encoder.dim if attentive else pooled_dim(encoder),
        classes=len(task.classes),
        heads=(settings.heads or HEADS) if roi else attention_heads(encoder.dim, settings.heads) if attentive else 0,
        steps=encoder.clip.frames if settings.temporal_positions else 0,
        layers=settings.layers or (4 if mlap else 0),
        boxed=boxed,
        roi=roi,
    )
    seed = torch.initial_seed()
    heads = [Point(**{key: getattr(point, key) for key in Settings.STACKABLE}, seed=seed) for point in points]
    drop_rate = _eql_drop_rate(task, settings.eql_gamma, settings.eql_lambda) if settings.eql_gamma else ()
    return Probe(Bank(heads, shape, drop_rate), settings, several, task.classes)


def _eql_drop_rate(task: Task, gamma: float, most: float) -> list[float]:
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
