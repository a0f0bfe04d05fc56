"""Image encoders as video encoders: every frame by itself, then the mean over time."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, as_texts
from evalkit.errors import UserError, install, one_line

logger = logging.getLogger("evalkit")

# Frames of a clip where the model's files name none, as for every image model: VideoGLUE, whose tables have their rows,
# gives a head 8 steps in time (https://arxiv.org/abs/2307.03166, tables 10 to 12); each frame is one.
FRAMES = 8
LIBRARIES = ("open_clip", "timm")  # optional packages, each with a family of its own here
OPEN_CLIP_CONFIG = "open_clip_config.json"  # beside weights that open_clip saved
# Of a setting's key, where packages of models take what they read or fetch; drop_path_rate is none of these.
_READS = "pretrained|checkpoint|weights|load|cache|file|(?<!drop_)path|url|hf_|hub"


class FrameEncoder(nn.Module):
    """Video (B, T, 3, H, W) -> one image encoder over its B x T frames; pooled is the mean of the frames' vectors.

    A head that should know the order of the frames adds positions to the tokens itself
    (`adapter.temporal_positions`): an image encoder has none.

    Attributes:
        image: a module called with images (N, 3, H, W) and a number of layers k from 1 to its `depth`; H and W are
            multiples of its `patch`, or its own `size`. It returns the tokens of its last k layers, oldest first, each
            (N, S, D) without class tokens, and one vector per image (N, E).
        text: embeds texts, list[str] -> (B, E); None where there is none.
    """

    def __init__(self, clip: Clip, image: Any, dim: int, pooled_dim: int, text: Any = None) -> None:
        super().__init__()
        if clip.size % image.patch and clip.size != image.size:
            raise UserError(
                f"clip.size={clip.size}: wanted a multiple of the patch's {image.patch} pixels, or {image.size}, this "
                "encoder's own size"
            )
        self.clip, self.image, self.dim, self.pooled_dim, self.text = clip, image, dim, pooled_dim, text
        self.interpolates = ("size",) if getattr(image, "interpolates", False) else ()

    def forward(self, video: Tensor, layers: int = 1) -> EncoderOutput:
        image = self.image
        sides = video.shape[3:]
        if video.ndim != 5 or video.shape[2] != 3 or any(s < 1 or s % image.patch and s != image.size for s in sides):
            raise ValueError(
                f"video of shape {tuple(video.shape)}: wanted (B, T, 3, H, W) with H and W multiples of {image.patch}, "
                f"or {image.size}"
            )
        if not 1 <= layers <= image.depth:
            raise ValueError(f"layers={layers}: wanted 1 to {image.depth}, which is how many this encoder has")
        states, vectors = image(video.flatten(0, 1), layers)
        shape = video.shape[:2]
        tokens = tuple(state.unflatten(0, shape) for state in states)  # each (B, T, S, D)
        frames = vectors.unflatten(0, shape)
        return EncoderOutput(tokens[-1], frames.mean(1), tokens if layers > 1 else (), frames)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings (B, E) of texts, comparable with pooled by their cosine.

        Raises:
            UserError: there is no text tower, or no tokenizer beside its weights.
        """
        if self.text is None:
            raise UserError("this encoder has no text tower, so it cannot embed text")
        embeddings: Tensor = self.text(as_texts(texts))
        return embeddings


class ImageTower(nn.Module):
    """An image model of transformers as FrameEncoder calls it: images (N, 3, H, W) -> tokens and vectors.

    Tokens are the blocks' outputs, those of the last layer the model's `last_hidden_state`. The vector is
    the model's pooled output, projected where the family projects it; where it has none, the first token, which is the
    class token, or the mean over the tokens where there is no class token.

    Args:
        model: the image model; its configuration states patch and depth.
        extra: class and register tokens in front of the image's own.
        projection: of the pooled output to the width of the text's embeddings.
        arguments: of the model's call, beside the images.
    """

    def __init__(self, model: Any, extra: int, projection: nn.Module | None = None, **arguments: Any) -> None:
        super().__init__()
        self.model, self.extra, self.projection, self.arguments = model, extra, projection, arguments
        self.patch: int = model.config.patch_size
        self.size: int = getattr(model.config, "image_size", 0)  # NaFlex has none of its own
        self.depth: int = model.config.num_hidden_layers
        self.interpolates: bool = model.config.model_type != "dinov3_vit"  # whose positions are rotations

    def inputs(self, images: Tensor) -> dict[str, Any]:
        """Arguments of the model's call for images (N, 3, H, W)."""
        return {"pixel_values": images, **self.arguments}

    def forward(self, images: Tensor, layers: int) -> tuple[list[Tensor], Tensor]:
        out = self.model(**self.inputs(images), output_hidden_states=layers > 1)
        states = [*out.hidden_states[-layers:-1]] if layers > 1 else []
        tokens = [state[:, self.extra :] for state in [*states, out.last_hidden_state]]
        vectors = out.pooler_output
        if vectors is None:
            vectors = out.last_hidden_state[:, 0] if self.extra else out.last_hidden_state.mean(1)
        return tokens, vectors if self.projection is None else self.projection(vectors)


def refuse_files(name: str, settings: Any) -> None:
    """Refuse settings of a model of timm or open_clip that say more than its shape: they may come from a file.

    The packages take more: where weights or a part of the model come from, and whether they may run code when read.

    Raises:
        UserError: one is, or reads like, the place of a file, or says how one is read.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"settings.name={name[:200]!r}: wanted the name of a model, and no folder, file or address")
    for key, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
        words = [value] if isinstance(value, str) else []
        if re.search(_READS, str(key)) or any(mark in word for word in words for mark in "/\\:"):
            raise UserError(
                f"settings.{key}={str(value)[:60]!r}: an encoder's settings say its shape alone, and name no files or "
                "weights; leave it out"
            )
        if isinstance(value, dict | list):
            refuse_files(name, value)


def with_filter(clip: Clip, config: Mapping[str, Any], source: str) -> Clip:
    """The clip with the filter of a package's evaluation transforms: bicubic where they draw or name another."""
    if {config.get("crop_mode"), config.get("resize_mode")} & {"border", "longest"}:
        logger.warning(f"{source} was trained on padded whole frames; here it sees the central square of a frame")
    named = config.get("interpolation", clip.interpolation)
    return replace(clip, interpolation="bilinear" if named == "bilinear" else "bicubic")


def library_backbone(name: str) -> Any:
    """Import an optional package of pretrained image encoders; evalkit's extra has the same name.

    Raises:
        UserError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"the encoder needs {error.name}, which is missing: {install(name)}") from error
    except Exception as error:  # of the package itself, or of a torchvision that was built for another torch
        raise UserError(
            f"the encoder needs {name}, and the package cannot be imported: {one_line(error, 200)}"
        ) from error
