"""V-JEPA 2's attentive classifier: self-attention over all tokens of a video, then one query; or many side by side.

V-JEPA 1's, of which there are released files, is one query, and its further blocks, where it has any, follow that.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
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
from evalkit.weights import checkpoint

# Tokens that one classifier reads at a time: of four videos of eight clips of 2,048, as on each of the authors' GPUs.
AT_ONCE = 4 * 8 * 2048
# Of V-JEPA 1's classifiers alone: its query's attention has a map of its output, which its forward pass does not use.
_LEFT_OUT = tuple(f"pooler.cross_attention_block.xattn.proj.{kind}" for kind in ("weight", "bias"))


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
        head_index: index of the classifier in that file, from 0, if it has several.
    """

    STACKABLE: ClassVar[tuple[str, ...]] = ("lr", "weight_decay")

    heads: Annotated[int, Ge(0)] = 16
    blocks: Annotated[int, Gt(0)] = 4
    layers: int | tuple[int, ...] = 1
    lr: Annotated[float, Gt(0)] = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 1e-2
    epochs: Annotated[int, Ge(0)] = 20
    batch_size: Annotated[int, Gt(0)] = 32
    probe: Path | None = None
    labels: Path | None = None
    head_index: int | None = None


class AttentiveClassifier(nn.Module):
    """Class scores (B, C) from tokens (B, N, D); its parameters have the names that they have in the authors' files.

    Args:
        dim: D.
        classes: C.
        heads: attention heads, a divisor of dim.
        blocks: in all; the last is the query's.
        query_first: the query's is the first, as in V-JEPA 1, and the others see its output alone.
    """

    def __init__(self, dim: int, classes: int, heads: int, blocks: int, query_first: bool = False) -> None:
        super().__init__()
        self.pooler = _Pooler(dim, heads, blocks, query_first)
        self.linear = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(self.pooler(tokens))  # type: ignore[no-any-return]


class _Pooler(nn.Module):
    """One vector (B, D) from tokens (B, N, D)."""

    def __init__(self, dim: int, heads: int, blocks: int, query_first: bool) -> None:
        super().__init__()
        self.query_first = query_first
        self.query_tokens = nn.Parameter(torch.empty(1, 1, dim))
        self.cross_attention_block = _Query(dim, heads)
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(blocks - 1))
        for name, value in self.named_parameters():
            if value.ndim > 1:
                nn.init.trunc_normal_(value, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(value)
        # What is added to the residual is smaller the deeper it is; the query's counts as the block before it.
        for i, block in enumerate([*self.blocks, self.cross_attention_block], 1):
            for name, value in block.named_parameters():
                if name in ("attn.proj.weight", "mlp.fc2.weight"):
                    value.data /= math.sqrt(2 * max(1, min(i, blocks - 1)))

    def forward(self, tokens: Tensor) -> Tensor:
        queries = self.query_tokens.expand(len(tokens), -1, -1)
        if self.query_first:
            tokens = self.cross_attention_block(queries, tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return (tokens if self.query_first else self.cross_attention_block(queries, tokens))[:, 0]


class _Block(nn.Module):
    """Tokens (B, N, D) after they have looked at one another."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), _mlp(dim)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.attn["qkv"](self.norm1(tokens)).chunk(3, -1)
        tokens = tokens + self.attn["proj"](_attend(queries, keys, values, self.heads))
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class _Query(nn.Module):
    """A query (B, 1, D) after it has looked at tokens (B, N, D); the attention has no map of its output."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), _mlp(dim)
        self.xattn = nn.ModuleDict({"q": nn.Linear(dim, dim), "kv": nn.Linear(dim, 2 * dim)})

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        keys, values = self.xattn["kv"](self.norm1(tokens)).chunk(2, -1)
        query = query + _attend(self.xattn["q"](query), keys, values, self.heads)
        return query + self.mlp(self.norm2(query))  # type: ignore[no-any-return]

    def weights(self, query: Tensor, tokens: Tensor) -> Tensor:
        """How much the query looks at each of the tokens (B, N): the mean over the heads."""
        keys = self.xattn["kv"](self.norm1(tokens)).chunk(2, -1)[0]
        q, k = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.xattn["q"](query), keys))
        return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1).mean((1, 2))  # type: ignore[no-any-return]


def _mlp(dim: int) -> nn.Sequential:
    layers = {"fc1": nn.Linear(dim, 4 * dim), "gelu": nn.GELU(), "fc2": nn.Linear(4 * dim, dim)}
    return nn.Sequential(OrderedDict(layers))


def _attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """What each of the queries (B, N, D) finds in the values."""
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


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
    """

    divisible = True

    def __init__(
        self,
        head: AttentiveClassifier,
        points: Sequence[Settings],
        clips: int,
        layers: int | tuple[int, ...],
        several: bool,
    ) -> None:
        super().__init__()
        self.rates, self.clips, self.several = [(point.lr, point.weight_decay) for point in points], clips, several
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
        return class_predictions(self(features), self.several)

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
    weights = _released(probe, settings.head_index) if probe else {}
    query_first = _LEFT_OUT[0] in weights
    if query_first:
        blocks = 1 + len({name.split(".")[2] for name in weights if name.startswith("pooler.blocks.")})
        weights = {name: value for name, value in weights.items() if name not in _LEFT_OUT}
    with torch.random.fork_rng(devices=[]):
        head = AttentiveClassifier(encoder.dim, len(task.classes), heads, blocks, query_first)
    if probe:
        if isinstance(layers, int) and layers > 1:
            raise UserError(
                f"adapter.layers={layers}: the authors' classifiers of several layers read each after the encoder's "
                "norm, and not the last ones: name them, as adapter.layers=[17,19,21,23] of ViT-L for Diving48"
            )
        checkpoint.load_strictly(head, weights, probe)
        if settings.labels:
            order = class_order(read_labels(settings.labels, len(task.classes)), task.classes)
            head.linear.weight.data, head.linear.bias.data = (value.data[order] for value in head.linear.parameters())
    elif settings.labels:
        raise UserError(f"adapter.labels={settings.labels} has no effect without adapter.probe=")
    elif settings.head_index is not None:
        raise UserError(f"adapter.head_index={settings.head_index} has no effect without adapter.probe=")
    return Classifiers(head, points, clips, layers, multi_label(task))


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


def _released(file: Path, index: int | None) -> dict[str, Tensor]:
    """The weights of a classifier in a file that the authors' training wrote; V-JEPA 2's has one per point of its grid.

    Args:
        file: with `classifiers`, a list of state dicts, or of V-JEPA 1 `classifier`, one.
        index: which of them; None where there is one.

    Raises:
        UserError: the file is missing, damaged or another; or which of its classifiers is meant is not known.
    """
    if not file.is_file():
        raise UserError(f"adapter.probe={file}: no such file")
    state = checkpoint.read_pickle(file)
    held = state if isinstance(state, dict) else {}
    heads = held.get("classifiers", [held["classifier"]] if "classifier" in held else None)
    if not isinstance(heads, list) or not heads or not all(isinstance(head, dict) for head in heads):
        raise UserError(
            f"adapter.probe={file}: wanted `classifiers`, a list, as V-JEPA 2's evaluations write it, or `classifier`, "
            "one, as V-JEPA 1's do"
        )
    if (len(heads) > 1) if index is None else (index not in range(len(heads))):
        which = "add" if index is None else f"adapter.head_index={index} is none; use"
        raise UserError(
            f"adapter.probe={file} holds {len(heads)} classifiers: {which} adapter.head_index=0 to {len(heads) - 1}"
        )
    return {name.removeprefix("module."): value for name, value in heads[index or 0].items()}
