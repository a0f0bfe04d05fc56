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
from evalkit.heads import boxes, tuning
from evalkit.heads.adapter import Training
from evalkit.heads.bank import Bank, Point
from evalkit.heads.flops import trained_flops
from evalkit.heads.head import Head, HeadShape, attention_heads
from evalkit.heads.labels import class_predictions, key_frame_predictions, multi_hot, multi_label
from evalkit.heads.mixup import mix_batch
from evalkit.heads.optim import Trained


@dataclass(frozen=True)
class Settings(Training):
    """Settings of `adapter=finetune`.

    Attributes:
        tune: all, adapters or lora.
        width: width of the bottleneck adapters.
        rank: rank of LoRA.
        head: attentive or box, as in adapter=probe; auto is box if the test has boxes in key frames.
        heads: attention heads of the probe; 0 means 12 if that divides the width, else the next smaller divisor.
        lr: peak learning rate.
        weight_decay: weight decay of the matrices.
        epochs: passes over the training examples.
        batch_size: examples per training step.
        dropout: before the classifier.
        label_smoothing: of the cross-entropy.
        mixup: alpha of MixUp in training; 0 for none.
        cutmix: alpha of CutMix in training; 0 for none. With both, each batch uses one of them.
        temporal_positions: the probe learns temporal position embeddings and adds them to the tokens, as in VideoGLUE
            for image encoders.
    """

    tune: Literal["all", "adapters", "lora"] = "all"
    width: Annotated[int, Gt(0)] = 64
    rank: Annotated[int, Gt(0)] = 8
    head: Literal["auto", "attentive", "box"] = "auto"
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
        classes: names, for the boxes of key frames; one without a name is trained and not predicted.
    """

    divisible = True
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
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(settings)
        self.encoder, self.sides, self.head, self.several, self.classes = encoder, sides, head, several, classes
        self.label_smoothing, self.seed = settings.label_smoothing, seed
        self.mixup, self.cutmix = settings.mixup, settings.cutmix

    def forward(self, video: Tensor, within: Tensor | None = None) -> Tensor:
        """Logits (B, classes) of float video (B, T, C, H, W), scaled as the encoder's clip says.

        The head `box` needs boxes (B, 4).
        """
        return self.head(self.encoder(video).tokens, within)  # type: ignore[no-any-return]

    def _boxes(self, examples: Sequence[Example], views: int) -> Tensor | None:
        """The boxes (B V, 4) of examples in all their views; None if the head uses no boxes."""
        boxed = self.head.shape.boxed
        return boxes.boxes(examples).to(self.device).repeat_interleave(views, 0) if boxed else None

    def _scored(self, examples: Sequence[Example], tokens: Tensor) -> Any:
        """Logits (1, B V, classes) of the encoder's tokens (B, V, T', S, D) of examples."""
        within = self._boxes(examples, tokens.shape[1])
        return self.head(tokens.flatten(0, 1).to(self.device).float(), within)[None]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        views = batch.features.shape[1]
        encoder: Any = self.encoder
        video = encoder.clip.normalize(batch.features.flatten(0, 1).to(self.device))  # (B V, T, C, H, W)
        target = multi_hot([example.target for example in batch.examples], self.head.shape.classes)
        target = target.repeat_interleave(views, 0).to(self.device)
        # What is mixed depends on the seed and the step alone.
        draw = np.random.default_rng([self.seed % 2**64, self.global_step])
        video, target = mix_batch(video, target, self.mixup, self.cutmix, draw)
        logits = self(video, self._boxes(batch.examples, views))
        if self.several:
            return F.binary_cross_entropy_with_logits(logits, target)
        return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The five likeliest classes of each example, the probability of every class, or what is in the boxes of a key
        frame, as the probe has them.
        """
        assert features is not None
        if any(example.boxes is not None for example in examples):
            (predictions,) = key_frame_predictions(examples, features, self._scored, self.classes, self.several)
        else:
            logits = self._scored(examples, features).unflatten(1, features.shape[:2])
            (predictions,) = class_predictions(logits, self.several)
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

    The head `box` is for tasks that ask about a box, as the probe's. It is trained on an example per box; the boxes of
    a key frame in val and test share what is encoded of it.

    Raises:
        UserError: the task has no classes, or boxes where none are wanted, or a setting does not fit.
    """
    (settings,) = points
    if not isinstance(encoder, nn.Module):
        raise UserError("adapter=finetune needs an encoder that is a torch module")
    if not task.classes:
        raise UserError("adapter=finetune needs a task with classes; this task has none")
    boxed = settings.head == "box" or (settings.head == "auto" and _of_key_frames(task))
    several = multi_label(boxes.without_key_frames(task) if boxed else task)
    if several and settings.label_smoothing:
        raise UserError(
            "adapter.label_smoothing is of the softmax; this task has several classes per example: set it to 0"
        )
    for name, alpha in (("mixup", settings.mixup), ("cutmix", settings.cutmix)):
        if not 0 <= alpha < math.inf:
            raise UserError(f"adapter.{name}={alpha:g}: wanted 0 or the alpha of a beta distribution")
        if alpha and boxed:
            raise UserError(f"adapter.{name}={alpha:g} mixes videos whose boxes lie elsewhere: set it to 0")
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
        boxed=boxed,
    )
    head = Head(shape, settings.dropout)
    seed = torch.initial_seed()
    # The first weights are those of the probe with the same seed.
    head.load_state_dict(Bank([Point(dropout=settings.dropout, seed=seed)], shape).state(0))
    return Finetune(encoder, sides, head, several, settings, seed, task.classes)


def _of_key_frames(task: Task) -> bool:
    """Whether val or test asks about the boxes of key frames, be they given or missing, and train about one each."""
    asked = [*task.val, *task.test]
    missing = any(example.box for example in task.train) and any(example.box is None for example in asked)
    return missing or any(example.boxes is not None for example in asked)
