"""V-JEPA 2's attentive classifier: self-attention over all tokens of a video, then one query; or many side by side.

V-JEPA 1's, of which there are released files, is one query, and its further blocks, where it has any, follow that.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint as computed_again

from evalkit.api import Batch, Encoder, Example, FeatureSpec, Prediction, Task
from evalkit.errors import UserError
from evalkit.heads.adapter import Adapter, Training
from evalkit.heads.flops import trained_flops
from evalkit.heads.head import attention_heads, recorded_weights
from evalkit.heads.labels import class_predictions, multi_hot, multi_label
from evalkit.heads.own_head import class_order, read_labels
from evalkit.weights import strict

from .network import AttentiveClassifier
from .released import UNUSED_OF_V_JEPA_1, released_weights

# Tokens that one classifier reads at a time: of four videos of eight clips of 2,048, as on each of the authors' GPUs.
AT_ONCE = 4 * 8 * 2048


@dataclass(frozen=True)
class Settings(Training):
    """Settings of `adapter=attentive_classifier`.

    Attributes:
        heads: attention heads, 16 in the authors' files, which do not state them; 0 means 12 if that divides the width,
            else the next smaller divisor.
        blocks: self-attention blocks plus a final block with the query; for a V-JEPA 1 probe, as many as it has.
        layers: encoder layers whose tokens are read together: the number of last layers; or, for V-JEPA 2, layer
            numbers in brackets, counted from 0, each after its norm: for Diving48 the authors use [17,19,21,23] of
            ViT-L and [24,29,34,39] of ViT-g.
        lr: initial learning rate.
        weight_decay: weight decay of all weights.
        epochs: passes over the training examples.
        batch_size: examples per training step.
        probe: a file of classifiers released by the authors, such as ssv2-vitl-16x2x3.pt, or k400-probe.pth.tar of
            V-JEPA 1; nothing is trained then.
        labels: a text file with the probe's class names in its order, one per line, if the data set's order differs.
        test_classes: predict only classes that have test examples, as V-JEPA 2's code does on EPIC-KITCHENS; this uses
            the test labels.
        head_index: index of the classifier in that file, from 0, if it has several.
    """

    STACKABLE: ClassVar[tuple[str, ...]] = ("lr", "weight_decay")
    INFERENCE_SETTINGS: ClassVar[tuple[str, ...]] = ("test_classes",)

    heads: Annotated[int, Ge(0)] = 16
    blocks: Annotated[int, Gt(0)] = 4
    layers: int | tuple[int, ...] = 1
    lr: Annotated[float, Gt(0)] = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 1e-2
    epochs: Annotated[int, Ge(0)] = 20
    batch_size: Annotated[int, Gt(0)] = 32
    probe: Path | None = None
    labels: Path | None = None
    test_classes: bool = False
    head_index: int | None = None


class Classifiers(Adapter):
    """A frozen encoder's tokens -> class scores, of K classifiers at once until one is chosen.

    All tokens of a video's clips are read together, and the softmax is averaged over crops only. One classifier reads a
    few videos at a time, and in the backward pass again, so that the memory holds the activations of no more than that.

    Args:
        head: a classifier, whose weights are the first of all K.
        points: learning rate and weight decay of each, and the settings that all share.
        clips: temporal views of a video, which are read together.
        layers: of the encoder, whose tokens are read together: as in `evalkit.api.FeatureSpec`.
        several: an example may have several classes, or none; each has a sigmoid of its own.
        answers: the classes that are answered with; None means all.
    """

    divisible = True

    def __init__(
        self,
        head: AttentiveClassifier,
        points: Sequence[Settings],
        clips: int,
        layers: int | tuple[int, ...],
        several: bool,
        answers: Collection[int] | None = None,
    ) -> None:
        super().__init__()
        self.rates, self.clips, self.several = [(point.lr, point.weight_decay) for point in points], clips, several
        self.answers = answers
        self.points, self.batch_size = len(points), points[0].batch_size
        self.epochs = 0 if points[0].probe else points[0].epochs
        self.feature_spec = FeatureSpec("tokens", layers, dtype="float16")
        first = dict(head.named_parameters())
        self.names, self.classes = list(first), head.linear.out_features
        self.stacked = nn.ParameterList(torch.stack([value.detach()] * len(points)) for value in first.values())
        self.classify = partial(functional_call, head.to("meta"))  # a function: meta weights are none of ours

    def forward(self, features: Tensor) -> Tensor:
        """Logits (K, B, crops, C) from tokens (B, V, T', S, D), or of several layers (B, V, layers, T', S, D).

        Raises:
            UserError: the views are not the task's clips, in one crop or three.
        """
        crops, rest = divmod(features.shape[1], self.clips)
        if rest or crops not in (1, 3):
            raise UserError(
                f"adapter=attentive_classifier reads the task's {self.clips} clips together, and {features.shape[1]} "
                "views are no crops of these: leave out clip.clips="
            )
        apart = features.reshape(-1, self.clips, crops, *features.shape[2:])
        tokens = apart.transpose(1, 2).flatten(0, 1).flatten(1, -2)
        parts = torch.split(tokens, max(1, AT_ONCE // tokens.shape[1]))
        heads = zip(*(stack.unbind() for stack in self.stacked), strict=True)
        logits = [torch.cat([self._logits(list(head), part) for part in parts]) for head in heads]
        return torch.stack(logits).view(self.points, -1, crops, self.classes)

    def _logits(self, head: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """Logits (B, C) of one classifier from tokens (B, N, D) of any float dtype, on any device."""

        def scored(tokens: Tensor) -> Tensor:
            weights = dict(zip(self.names, head, strict=True))
            return self.classify(weights, (tokens.to(head[0]),))  # type: ignore[no-any-return]

        if not torch.is_grad_enabled():
            return scored(tokens)
        return computed_again(scored, tokens, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]

    def training_step(self, batch: Batch, index: int) -> dict[str, Tensor]:
        """The sum of the classifiers' losses, and each one's own (K,)."""
        logits = self(batch.features)
        target = multi_hot([example.target for example in batch.examples], self.classes).to(logits)[:, None]
        if self.several:
            each = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none").mean(-1)
        else:
            each = -(target * logits.log_softmax(-1)).sum(-1)
        losses = each.mean((1, 2))
        return {"loss": losses.sum(), "losses": losses.detach()}

    def configure_optimizers(self) -> Any:
        """AdamW of each classifier by itself, on views of the stacked weights; biases and norms decay too."""
        groups: list[dict[str, Any]] = [
            {"params": [stack.detach()[k] for stack in self.stacked], "lr": lr, "weight_decay": weight_decay}
            for k, (lr, weight_decay) in enumerate(self.rates)
        ]
        self.optimized = [group["params"] for group in groups]
        optimizer, steps = AdamW(groups), int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(1, (step + 1) / steps))))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_after_backward(self) -> None:
        """Hands each classifier's gradient on to the views that are optimized."""
        for stack, views in zip(self.stacked, zip(*self.optimized, strict=True), strict=True):
            assert stack.grad is not None
            for view, gradient in zip(views, stack.grad, strict=True):
                view.grad = gradient
            stack.grad = None

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Does nothing: the authors clip no gradient."""

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The five likeliest classes of each example, best first, by the mean of the softmax over its crops.

        Where an example may have several classes: the probability of every class, the mean of the sigmoid.
        """
        (predictions,) = self.predict_all(examples, features)
        return predictions

    def predict_all(self, examples: Sequence[Example], features: Tensor | None) -> list[list[Prediction]]:
        """The predictions of each classifier."""
        assert features is not None
        logits = self(features)
        if self.answers is not None:
            others = [number for number in range(self.classes) if number not in self.answers]
            logits[..., others] = -torch.inf
        return class_predictions(logits, self.several)

    @torch.no_grad()
    def attention(self, examples: Sequence[Example], features: Tensor) -> Tensor:
        """Where the query of the one classifier looks, (B, V, 1, T', S): at tokens that have looked at one another."""
        query = self.classify.args[0].pooler.cross_attention_block
        weights = torch.cat(recorded_weights([query], self, features))
        weights = weights.view(len(features), -1, self.clips, features[0, 0, ..., 0].numel())  # (B, crops, clips, N)
        return weights.transpose(1, 2).reshape(*features.shape[:2], -1, *features.shape[-3:-1]).sum(2, keepdim=True)

    def select(self, point: int) -> None:
        """Keeps one classifier."""
        self.rates, self.points = [self.rates[point]], 1
        self.stacked = nn.ParameterList(stack.detach()[point : point + 1].clone() for stack in self.stacked)

    def adapter_state(self) -> dict[str, Tensor]:
        """The one classifier's parameters, named as in the authors' files."""
        return {name: value for name, (value,) in zip(self.names, self.stacked, strict=True)}

    @torch.no_grad()
    def load_adapter_state(self, weights: Mapping[str, Tensor]) -> None:
        """Puts the tensors of `adapter_state` back."""
        for name, (value,) in zip(self.names, self.stacked, strict=True):
            value.copy_(weights[name])

    def flops(self, encoder: Any, video: Tensor) -> int:
        """Operations of one clip on `meta`: its share of what the clips that are read together cost."""
        layers = self.feature_spec.layers
        tokens = self.feature_spec.take(encoder(video) if layers == 1 else encoder(video, layers=layers))
        return trained_flops(self, torch.stack([tokens] * self.clips, 1)) // self.clips


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> Classifiers:
    """Classifies with V-JEPA 2's attentive classifier on the frozen encoder.

    As in its code (https://github.com/facebookresearch/vjepa2, evals/video_classification_frozen): the tokens of all
    clips of a video pass through blocks of self-attention together, and one learned query looks at them in the last
    block. It is trained by AdamW with a cosine to zero, without warm-up, decay of all weights, no smoothing. The first
    weights of the points of a grid are the same.

    Raises:
        UserError: the task has no classes, or its training views not its clips; a setting does not fit; the file of
            `probe` does not.
    """
    if not task.classes:
        raise UserError("adapter=attentive_classifier needs a task with classes; this task has none")
    settings, clips = points[0], task.views.clips
    if settings.blocks < 1:
        raise UserError(f"adapter.blocks={settings.blocks}: wanted at least 1")
    layers = _layers(encoder, settings.layers)
    probe = settings.probe
    if clips > 1 and task.augment and not task.augment.all_clips and not probe:
        raise UserError(
            f"adapter=attentive_classifier reads the task's {clips} clips together, and its training views have one: "
            "use data.protocol=vjepa2"
        )
    heads, blocks = attention_heads(encoder.dim, settings.heads), settings.blocks
    weights = released_weights(probe, settings.head_index, len(task.classes)) if probe else {}
    query_first = UNUSED_OF_V_JEPA_1[0] in weights
    if query_first:
        blocks = 1 + len({name.split(".")[2] for name in weights if name.startswith("pooler.blocks.")})
        weights = {name: value for name, value in weights.items() if name not in UNUSED_OF_V_JEPA_1}
    with torch.random.fork_rng(devices=[]):
        head = AttentiveClassifier(encoder.dim, len(task.classes), heads, blocks, query_first)
    if probe:
        if isinstance(layers, int) and layers > 1:
            raise UserError(
                f"adapter.layers={layers}: the authors' classifiers of several layers read each after the encoder's "
                "norm, and not the last ones: name them, as adapter.layers=[17,19,21,23] of ViT-L for Diving48"
            )
        strict.load_strictly(head, weights, probe)
        if settings.labels:
            order = class_order(read_labels(settings.labels, len(task.classes)), task.classes)
            head.linear.weight.data, head.linear.bias.data = (value.data[order] for value in head.linear.parameters())
    elif settings.labels:
        raise UserError(f"adapter.labels={settings.labels} has no effect without adapter.probe=")
    elif settings.head_index is not None:
        raise UserError(f"adapter.head_index={settings.head_index} has no effect without adapter.probe=")
    several = multi_label(task)
    answers = None
    if settings.test_classes:
        answers = {example.target for example in task.test if isinstance(example.target, int)}
        if not answers:
            raise UserError(
                "adapter.test_classes=true takes the one class of each test example, and this task has several, or "
                "none that is public: leave it out"
            )
    return Classifiers(head, points, clips, layers, several, answers)


def _layers(encoder: Encoder, layers: int | Sequence[int]) -> int | tuple[int, ...]:
    """How many of the last layers, or which ones."""
    if isinstance(layers, int):
        if layers < 1:
            raise UserError(f"adapter.layers={layers}: wanted at least 1")
        return layers
    key, depth = f"adapter.layers={list(layers)}", getattr(encoder, "named_layers", 0)
    if not depth:
        raise UserError(f"{key} names layers, and this encoder gives its last ones alone: use adapter.layers=4, or so")
    if not layers or list(layers) != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] < depth:
        raise UserError(f"{key}: wanted rising numbers from 0 to {depth - 1}, which is this encoder's last layer")
    return tuple(layers)
