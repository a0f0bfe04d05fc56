"""Contrastive video-text training of an encoder with a text tower, and answers by similarity."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from evalkit.api import Batch, Encoder, Example, FeatureSpec, Prediction, Task, can_mask, check_text, has_text
from evalkit.errors import UserError
from evalkit.heads.adapter import Training
from evalkit.heads.contrastive import check_negatives, contrastive_loss
from evalkit.heads.labels import best_classes
from evalkit.heads.optim import Trained
from evalkit.pretraining.masks import token_grid, tube

from ._ranked import ranked


@dataclass(frozen=True)
class Settings(Training):
    """Settings of `adapter=contrastive`.

    Attributes:
        tune: all; a number n for the last n layers of the video tower; text for the text tower; head for its
            projection; or adapters, lora or temporal, together with the patch embedding, if the encoder has them.
        mask: uniform draws other tokens in each time step (or clip, if attention is joint); tube masks the same
            positions in all steps.
        mask_ratio: share of the tokens left out during training.
        temperature: initial temperature of the softmax.
        lr: peak learning rate.
        weight_decay: weight decay of the matrices.
        epochs: passes over the training examples.
        batch_size: videos per training step.
    """

    tune: str = "all"
    mask: Literal["uniform", "tube"] = "uniform"
    mask_ratio: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    temperature: Annotated[float, Gt(0)] = 0.07
    lr: Annotated[float, Gt(0)] = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 0.05
    epochs: Annotated[int, Ge(0)] = 30
    batch_size: Annotated[int, Gt(0)] = 48


class Contrastive(Trained):
    """Video and caption embeddings pulled together by a symmetric cross-entropy over the batch."""

    trains_encoder, divisible = True, True
    feature_spec = FeatureSpec("pooled")

    def __init__(self, encoder: nn.Module, task: Task, settings: Settings) -> None:
        super().__init__(settings)
        self.encoder, self.classes, self.apart = encoder, task.classes, bool(task.mixture)
        self.has_options = any(example.choices for example in task.train)
        self.can_mask = can_mask(encoder)
        self.mask, self.mask_ratio, self.seed = settings.mask, settings.mask_ratio, torch.initial_seed()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / settings.temperature)))
        _tune(encoder, settings.tune)

    def check_examples(self, count: int) -> None:
        if not self.has_options:  # the wrong ones are negatives, too
            check_negatives(count, self.batch_size)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        clips = batch.features[:, 0].to(self.device)  # uint8 (B, T, C, H, W)
        encoder: Any = self.encoder
        clips = clips if self.can_mask else encoder.clip.normalize(clips)
        captions = [self._captions(example) for example in batch.examples]
        words = [*(texts[0] for texts in captions), *(text for texts in captions for text in texts[1:])]
        videos = [(str(example.video), example.span) for example in batch.examples]
        video, text = encoder(clips, **self._masked(clips)).pooled, encoder.encode_text(words)
        return contrastive_loss(video, text, self.log_scale, videos, words, self.ranks, batch.share)

    def _masked(self, videos: Tensor) -> dict[str, Any]:
        """The arguments that tell the encoder which tokens to leave out."""
        if not self.can_mask:
            return {}
        if not self.mask_ratio or self.mask == "uniform":
            return {"mask_ratio": self.mask_ratio}
        encoder: Any = self.encoder
        draw = np.random.default_rng([self.seed % 2**64, self.global_step, self.ranks.rank])
        grid = token_grid(videos, encoder.tubelet)
        return {"masked": torch.stack([tube(grid, self.mask_ratio, draw) for _ in videos])}

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The option (or the five classes) whose words are nearest to the video, by the cosine; for a task of captions,
        the vectors of which `finalize` makes ranks.
        """
        assert features is not None
        encoder: Any = self.encoder
        video = F.normalize(features.mean(1).to(self.device), dim=-1)
        if not examples[0].choices and not self.classes:
            text = F.normalize(encoder.encode_text([example.text for example in examples]), dim=-1)
            return [Prediction(pair) for pair in zip(video.cpu(), text.cpu(), strict=True)]
        texts = [text for example in examples for text in example.choices] if examples[0].choices else self.classes
        text = F.normalize(encoder.encode_text(list(texts)), dim=-1)
        if not examples[0].choices:
            best = best_classes(video @ text.T).indices
            return [Prediction(row) for row in best.tolist()]
        parts = torch.split(text, [len(example.choices) for example in examples])
        likeness = [(options @ vector).tolist() for options, vector in zip(parts, video, strict=True)]
        return [Prediction(row.index(max(row)), {"similarity": row}) for row in likeness]

    def finalize(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Sequence[Prediction]:
        """Ranks for a task of captions; what was predicted for any other."""
        named = self.classes or not examples or examples[0].choices
        return predictions if named else ranked(examples, predictions, self.apart)

    def _captions(self, example: Example) -> list[str]:
        """The example's own words first, then the options that are wrong."""
        if example.choices:
            right = example.choices[example.target]
            return [right, *(text for text in example.choices if text != right)]
        return [self.classes[example.target] if self.classes else example.text]


def _tune(encoder: nn.Module, tune: str) -> None:
    """Leaves trainable only what `tune` names."""
    depth = len(getattr(encoder, "blocks", ()))
    parts = {
        "all": "",
        "text": r"text\.",
        "head": r"text\.projection\.",
        # What makes a video encoder of an image encoder; the patch, which is new to the image encoder, goes with it.
        "adapters": r"blocks\.\d+\.adapter\.",
        "lora": r"blocks\..*\.lora_",
        "temporal": r"blocks\.\d+\.temporal\.",
    }
    names = [name for name, _ in encoder.named_parameters()]
    words = [word for word, part in parts.items() if any(re.match(part, name) for name in names)]
    if tune in words:
        part = parts[tune] + (r"|patch\." if tune in ("adapters", "lora", "temporal") else "")
    elif tune.isdecimal() and 0 < int(tune) <= depth:
        part = rf"blocks\.({'|'.join(str(i) for i in range(depth - int(tune), depth))})\.|norm\.|pool\."
    else:
        numbers = f", or a number of layers from 1 to {depth}" if depth else ""
        raise UserError(f"adapter.tune={tune}: wanted {', '.join(words)}{numbers}")
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(re.match(part, name) is not None)


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> Contrastive:
    """Trains video and text towers contrastively; answers with the nearest words.

    The symmetric loss of CLIP with a learned temperature (LongViViT, https://arxiv.org/abs/2312.07395, section 3);
    where examples have options, the wrong ones are further negatives of their video. An example's words are its right
    option, else its class's name, else its text. VideoPrism's first stage (https://arxiv.org/abs/2402.13217) is
    task=mixture with adapter.mask=tube adapter.mask_ratio=0.5.
    """
    if not isinstance(encoder, nn.Module) or not has_text(encoder):
        raise UserError("adapter=contrastive needs an encoder with a text tower; this one has none")
    check_text(encoder, "a video")
    (settings,) = points
    if settings.mask_ratio and not can_mask(encoder):
        raise UserError(
            f"adapter.mask_ratio={settings.mask_ratio:g}: this encoder leaves no tokens out, which VideoPrism's and "
            "LongViViT's families do; leave it out"
        )
    if settings.mask == "tube" and not getattr(encoder, "tubelet", None):
        raise UserError("adapter.mask=tube needs an encoder with one grid of tokens; this one has none: mask=uniform")
    return Contrastive(encoder, task, settings)
