"""An encoder tuned together with an attentive classifier: all of it, or a few weights beside its layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from evalkit.api import Batch, Encoder, Example, FeatureSpec, Prediction, Task
from evalkit.errors import UserError
from evalkit.heads import tuning
from evalkit.heads.adapter import Training
from evalkit.heads.bank import Bank, Point
from evalkit.heads.flops import trained_flops
from evalkit.heads.head import Head, HeadShape, attention_heads
from evalkit.heads.labels import class_predictions, multi_hot, multi_label
from evalkit.heads.mixup import mix_batch
from evalkit.heads.optim import Trained


@dataclass(frozen=True)
class Settings(Training):
    """Settings of `adapter=finetune`.

    Attributes:
        tune: all, adapters or lora.
        width: of the adapters' bottleneck.
        rank: of lora's terms.
        heads: attention heads of the probe; 0 means 12 where they divide the width, else the next fewer.
        lr: peak learning rate.
        weight_decay: of the matrices.
        epochs: passes over the training examples.
        batch_size: examples in one training step.
        dropout: before the classifier.
        label_smoothing: of the cross-entropy.
        mixup: alpha of MixUp while training; 0 for none.
        cutmix: alpha of CutMix while training; 0 for none. With both, each batch is mixed by one of them.
        temporal_positions: the probe learns positions in time and adds them to the tokens, for encoders that embed
            frames by themselves, as in VideoGLUE.
    """

    tune: Literal["all", "adapters", "lora"] = "all"
    width: Annotated[int, Gt(0)] = 64
    rank: Annotated[int, Gt(0)] = 8
    heads: Annotated[int, Ge(0)] = 0
    lr: Annotated[float, Gt(0)] = 1e-4
    weight_decay: Annotated[float, Ge(0)] = 1e-5
    epochs: Annotated[int, Ge(0)] = 30
    batch_size: Annotated[int, Gt(0)] = 32
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Ge(0)] = 0.0
    cutmix: Annotated[float, Ge(0)] = 0.0
    temporal_positions: bool = False


class Finetune(Trained):
    """Video -> class scores, through an encoder that changes while it is fitted.

    Args:
        encoder: what of it is trained wants a gradient already.
        sides: what was put beside its layers.
        head: classifies its tokens.
        several: an example may have several classes, or none; each has a sigmoid of its own.
        settings: of the loss, MixUp and the training.
        seed: of what is mixed.
    """

    trains_encoder = True
    saves_encoder = False  # what is trained of it is in `adapter_state`
    feature_spec = FeatureSpec("tokens", dtype="float16")

    def __init__(
        self,
        encoder: nn.Module,
        sides: nn.ModuleList,
        head: Head,
        several: bool,
        settings: Settings,
        seed: int,
    ) -> None:
        super().__init__(settings)
        self.encoder, self.sides, self.head, self.several = encoder, sides, head, several
        self.label_smoothing, self.seed = settings.label_smoothing, seed
        self.mixup, self.cutmix = settings.mixup, settings.cutmix

    def forward(self, video: Tensor) -> Tensor:
        """Logits (B, classes) of float video (B, T, C, H, W), scaled as the encoder's clip says."""
        return self.head(self.encoder(video).tokens)  # type: ignore[no-any-return]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        views = batch.features.shape[1]
        encoder: Any = self.encoder
        video = encoder.clip.normalize(batch.features.flatten(0, 1).to(self.device))  # (B V, T, C, H, W)
        target = multi_hot([example.target for example in batch.examples], self.head.shape.classes)
        target = target.repeat_interleave(views, 0).to(self.device)
        # What is mixed depends on the seed and the step alone.
        draw = np.random.default_rng([self.seed % 2**64, self.global_step])
        video, target = mix_batch(video, target, self.mixup, self.cutmix, draw)
        logits = self(video)
        if self.several:
            return F.binary_cross_entropy_with_logits(logits, target)
        return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The five likeliest classes of each example, or the probability of every class, as the probe has them."""
        assert features is not None
        logits = self.head(features.flatten(0, 1).to(self.device).float())
        (predictions,) = class_predictions(logits.unflatten(0, features.shape[:2])[None], self.several)
        return predictions

    def adapter_state(self) -> dict[str, Tensor]:
        """All that is trained, of the encoder too."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def flops(self, encoder: Any, video: Tensor) -> int:
        """Operations of one clip on `meta` in the layers that are trained."""
        return trained_flops(self, video)


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> Finetune:
    """Classifies with an attentive probe on an encoder that is tuned with it.

    VideoGLUE's end-to-end and adapter rows (https://arxiv.org/abs/2307.03166, section 3 and figure 5): the probe is
    that of adapter=probe. All of the encoder is tuned that its tokens depend on; or a bottleneck beside each MLP, a
    place that the paper draws but does not state; or a low-rank term beside each linear map. What it prints of its
    settings is data.protocol=videoglue_finetune.
    """
    (settings,) = points
    if not isinstance(encoder, nn.Module):
        raise UserError("adapter=finetune needs an encoder that is a torch module")
    if not task.classes:
        raise UserError("adapter=finetune needs a task with classes; this task has none")
    several = multi_label(task)
    if several and settings.label_smoothing:
        raise UserError(
            "adapter.label_smoothing is of the softmax; this task has several classes per example: set it to 0"
        )
    for name, alpha in (("mixup", settings.mixup), ("cutmix", settings.cutmix)):
        if not 0 <= alpha < math.inf:
            raise UserError(f"adapter.{name}={alpha:g}: wanted 0 or the alpha of a beta distribution")
    for name, value in (("width", settings.width), ("rank", settings.rank)):
        if value < 1:
            raise UserError(f"adapter.{name}={value}: wanted at least 1")
    reached = tuning.tuned_layers(encoder)
    sides = nn.ModuleList()
    if settings.tune == "adapters":
        sides = tuning.put_bottlenecks(encoder, reached, settings.width)
    elif settings.tune == "lora":
        sides = tuning.put_low_rank(encoder, reached, settings.rank)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(settings.tune == "all" and name in reached)
    shape = HeadShape(
        dim=encoder.dim,
        classes=len(task.classes),
        heads=attention_heads(encoder.dim, settings.heads),
        steps=encoder.clip.frames if settings.temporal_positions else 0,
    )
    head = Head(shape, settings.dropout)
    seed = torch.initial_seed()
    # The first weights are those of the probe with the same seed.
    head.load_state_dict(Bank([Point(dropout=settings.dropout, seed=seed)], shape).state(0))
    return Finetune(encoder, sides, head, several, settings, seed)
