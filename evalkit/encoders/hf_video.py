"""VideoMAE, ViViT and TimeSformer as transformers keeps them, from a Hugging Face folder.

VideoMAE: https://arxiv.org/abs/2203.12602, ViViT: https://arxiv.org/abs/2103.15691, TimeSformer:
https://arxiv.org/abs/2102.05095. What is on top of an encoder is left out: classifiers, with VideoMAE's norm between
mean and classifier, which adapter=own_head reads; VideoMAE's decoder and mask token; ViViT's pooler, which no published
weights have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, Loading
from evalkit.encoders._tubelets import cover, last_states
from evalkit.errors import UserError
from evalkit.weights import huggingface, own_head
from evalkit.weights.huggingface import Weights
from evalkit.weights.preprocessor import IMAGENET, read_clip


@dataclass(frozen=True)
class Family:
    """Differences between the models.

    Attributes:
        model: its class in transformers.
        classifier: the class with a classifier on it.
        left_out: pattern of weights that are not part of the encoder.
        clip: value range, mean, std and share as published.
        arguments: of its class.
    """

    model: str
    classifier: str
    left_out: str
    clip: Clip
    arguments: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "videomae": Family(
        "VideoMAEModel",
        "VideoMAEForVideoClassification",
        r"(classifier|fc_norm|decoder|encoder_to_decoder)\.|mask_token$",
        replace(IMAGENET, frames=16),
    ),
    # Its processor in transformers maps pixels to -1..1, and then normalizes by 0.5 and 0.5 all the same.
    "vivit": Family(
        "VivitModel",
        "VivitForVideoClassification",
        r"(classifier|(vivit\.)?pooler)\.",
        Clip(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), value_range=(-1.0, 1.0), share=224 / 256),
        {"add_pooling_layer": False},
    ),
    "timesformer": Family(
        "TimesformerModel",
        "TimesformerForVideoClassification",
        r"classifier\.",
        Clip(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225)),
    ),
}
MODEL_TYPES = tuple(FAMILIES)


class VideoTransformer(nn.Module):
    """Video (B, T, 3, H, W), scaled as its clip says -> tokens (B, T', S, D) in the order of time, rows, columns.

    pooled (B, D) is the class token's state, or for VideoMAE, which has none, the mean of the tokens. T and H, W may
    differ from the clip's where H and W are multiples of the patch: positions are interpolated, by VideoMAE and ViViT
    linearly, by TimeSformer to the nearest. If T is not a multiple of the tubelet's depth, the last frame is repeated.
    """

    interpolates = ("frames", "size")

    def __init__(self, clip: Clip, model: Any) -> None:
        super().__init__()
        config = model.config
        self.clip, self.model, self.dim, self.kind = clip, model, config.hidden_size, config.model_type
        if self.kind == "vivit":
            self.tubelet = _three(config.tubelet_size)
        else:
            depth = config.tubelet_size if self.kind == "videomae" else 1
            self.tubelet = (depth, *_pair(config.patch_size))
        if self.kind == "timesformer" and config.attention_type == "space_only":
            raise UserError("a TimeSformer with attention_type=space_only embeds frames alone: it is not supported")
        size = (config.num_frames, *_pair(config.image_size))
        self.grid = tuple(length // step for length, step in zip(size, self.tubelet, strict=True))

    def forward(self, video: Tensor, layers: int = 1) -> EncoderOutput:
        """See the class; `layers` last layers' tokens come along where it is above 1."""
        video, grid = cover(video, self.tubelet)
        blocks = self.model.layers if self.kind == "vivit" else self.model.encoder.layer
        states = last_states(blocks, self._embed(video, grid), layers)
        if self.model.layernorm is not None:  # a VideoMAE that was tuned on classes has its norm after the mean
            states[-1] = self.model.layernorm(states[-1])
        tokens = tuple(self._tokens(state, grid[0]) for state in states)
        pooled = tokens[-1].mean((1, 2)) if self.kind == "videomae" else states[-1][:, 0]
        return EncoderOutput(tokens[-1], pooled, tokens if layers > 1 else ())

    def _embed(self, video: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Input of the first block: (B, [1 +] tokens, D), positions added."""
        embeddings = self.model.embeddings
        if self.kind == "timesformer":
            config = self.model.config
            shape = grid[0], grid[2] * self.tubelet[2]
            if (config.num_frames, config.image_size) != shape:  # its blocks read the clip's shape here
                config.num_frames, config.image_size = shape
            return embeddings(video)  # type: ignore[no-any-return]
        x = embeddings.patch_embeddings.projection(video.transpose(1, 2)).flatten(2).transpose(1, 2)
        positions = embeddings.position_embeddings.to(x)
        places = positions[:, -self.grid[0] * self.grid[1] * self.grid[2] :]
        if grid != self.grid:
            places = places.transpose(1, 2).unflatten(2, self.grid)
            places = F.interpolate(places, grid, mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)
        if self.kind == "videomae":
            return x + places  # type: ignore[no-any-return]
        x = torch.cat([embeddings.cls_token.expand(len(x), -1, -1) + positions[:, :1], x + places], 1)
        return embeddings.dropout(x)  # type: ignore[no-any-return]

    def _tokens(self, x: Tensor, steps: int) -> Tensor:
        """Tokens (B, T', S, D) from a block's output."""
        if self.kind != "videomae":
            x = x[:, 1:]  # without the class token
        if self.kind == "timesformer":  # keeps all times of a place together
            return x.reshape(len(x), -1, steps, self.dim).transpose(1, 2)
        return x.reshape(len(x), steps, -1, self.dim)


def encoder(clip: Clip, tokenizer: Path | None = None, *, model_type: str, **config: Any) -> VideoTransformer:
    """VideoMAE, ViViT or TimeSformer with random weights.

    Args:
        clip: what the encoder sees.
        tokenizer: not used: these models have no text tower.
        model_type: videomae, vivit or timesformer.
        config: transformers' own names and values; the rest is the family's default.

    Raises:
        TypeError, ValueError: there is no such name, or transformers does not take the value.
    """
    import transformers

    if model_type not in FAMILIES:
        raise ValueError(f"model_type={model_type!r}: wanted one of {', '.join(FAMILIES)}")
    family = FAMILIES[model_type]
    made = huggingface.make_config(model_type, config)
    return VideoTransformer(clip, getattr(transformers, family.model)(made, **family.arguments))


def pretrained(path: Path, loading: Loading, weights: Weights = None) -> VideoTransformer:
    """Load the encoder in a Hugging Face folder strictly, with the clip that its files state.

    Raises:
        UserError: weights are missing, unexpected or of another shape, or the files cannot be read.
    """
    import transformers

    config = huggingface.read_config(path)
    family = FAMILIES[config.model_type]
    default = replace(family.clip, frames=config.num_frames, size=_pair(config.image_size)[0])
    clip = read_clip(path, default, shift=family.clip.value_range[0])
    model = huggingface.load(getattr(transformers, family.model), path, family.left_out, weights, **family.arguments)
    module = VideoTransformer(clip, model)
    if weights is None:
        own_head.attach(module, path, family.classifier)
    return module


def _pair(value: Any) -> tuple[int, int]:
    height, width = value if isinstance(value, Iterable) else (value, value)
    return height, width


def _three(value: Any) -> tuple[int, int, int]:
    depth, height, width = value
    return depth, height, width
