"""Image encoders without text: DINOv2, with or without registers, DINOv3 and plain ViT, as transformers has them.

DINOv2: https://arxiv.org/abs/2304.07193, with registers https://arxiv.org/abs/2309.16588, DINOv3:
https://arxiv.org/abs/2508.10104. Each frame's vector is the class token after the last norm; tokens are the patches.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.api import Clip, Loading
from evalkit.encoders._frames import FRAMES, FrameEncoder, ImageTower
from evalkit.weights.huggingface import Weights, load, make_config, read_config
from evalkit.weights.preprocessor import IMAGENET, read_clip

MODEL_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit")

DINO = replace(IMAGENET, frames=FRAMES, share=224 / 256, interpolation="bicubic")
# Clips of the families' default processors, for folders without a processor's file; the size is the configuration's.
CLIPS = {
    "dinov2": DINO,
    "dinov2_with_registers": DINO,
    "dinov3_vit": replace(IMAGENET, frames=FRAMES, resize="squash"),
    "vit": Clip(FRAMES, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resize="squash"),
}
# Classifiers of a fine-tuned copy, and ViT's pooler, which its classifier does not use.
HEADS = r"(classifier|pooler|vit\.pooler)\."


def encoder(clip: Clip, tokenizer: Path | None = None, *, model_type: str = "dinov2", **config: Any) -> FrameEncoder:
    """DINOv2, DINOv3 or ViT over single frames, with random weights.

    Args:
        clip: what the encoder sees.
        tokenizer: unused: none of these embeds text.
        model_type: dinov2, dinov2_with_registers, dinov3_vit or vit.
        config: what transformers' configuration of that model takes.
    """
    model, settings = _architecture(model_type)
    return _assemble(clip, model(make_config(model_type, config), **settings))


def pretrained(path: Path, loading: Loading, weights: Weights = None) -> FrameEncoder:
    """Load the encoder in a Hugging Face folder, every weight in place; classification heads are left out.

    Raises:
        UserError: weights are missing, unexpected or of another shape, or the files cannot be read.
    """
    config = read_config(path)
    model, settings = _architecture(config.model_type)
    default = replace(CLIPS[config.model_type], size=config.image_size)
    return _assemble(read_clip(path, default), load(model, path, left_out=HEADS, weights=weights, **settings))


def _architecture(model_type: str) -> tuple[Any, dict[str, Any]]:
    """The model's class in transformers, and its arguments besides the configuration."""
    import transformers

    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type={model_type}: wanted one of {', '.join(MODEL_TYPES)}")
    classes = (
        transformers.Dinov2Model,
        transformers.Dinov2WithRegistersModel,
        transformers.DINOv3ViTModel,
        transformers.ViTModel,
    )
    return classes[MODEL_TYPES.index(model_type)], {"add_pooling_layer": False} if model_type == "vit" else {}


def _assemble(clip: Clip, model: Any) -> FrameEncoder:
    config = model.config
    # ViT takes other sizes only with this argument; DINO's models always do.
    arguments: dict[str, Any] = {"interpolate_pos_encoding": True} if config.model_type == "vit" else {}
    tower = ImageTower(model, 1 + getattr(config, "num_register_tokens", 0), **arguments)
    return FrameEncoder(clip, tower, config.hidden_size, config.hidden_size)
