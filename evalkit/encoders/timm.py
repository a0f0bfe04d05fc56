"""Image encoders of the package timm, by their names there: ckpt=timm:vit_base_patch16_224.augreg_in21k.

https://github.com/huggingface/pytorch-image-models. The extra timm brings it. A name without a
tag stands for timm's default weights. Each frame's vector is what the model gives its classifier.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from evalkit.api import Clip, Loading
from evalkit.encoders._frames import FRAMES, FrameEncoder, library_backbone, refuse_files, with_filter
from evalkit.errors import UserError, one_line, suggest
from evalkit.weights import huggingface


class Trunk(nn.Module):
    """A model of timm as FrameEncoder calls it: images (N, 3, H, W) -> tokens and vectors.

    Tokens are those after the last norm, without class and register tokens; the places of a convolutional model's last
    map are its tokens, and it has one layer.
    """

    def __init__(self, model: Any, size: int) -> None:
        super().__init__()
        self.model, self.patch, self.size = model, 1, size  # other sizes are the model's to take or refuse
        self.depth = len(getattr(model, "blocks", "1")) if hasattr(model, "num_prefix_tokens") else 1

    def forward(self, images: Tensor, layers: int) -> tuple[list[Tensor], Tensor]:
        model = self.model
        try:
            if layers > 1:
                last, states = model.forward_intermediates(images, indices=layers, output_fmt="NLC")
            else:
                last, states = model.forward_features(images), [None]
        except AssertionError as error:  # a size that the model was not made for
            raise ValueError(f"images of shape {tuple(images.shape)}: {error}") from error
        if last.ndim == 4:
            places = last if getattr(model, "output_fmt", "NCHW") == "NHWC" else last.movedim(1, -1)
            tokens = places.flatten(1, 2)
        else:
            tokens = last[:, getattr(model, "num_prefix_tokens", 0) :]
        return [*states[:-1], tokens], model.forward_head(last, pre_logits=True)


def encoder(clip: Clip, tokenizer: Path | None = None, *, name: str, **settings: Any) -> FrameEncoder:
    """A model of timm over single frames, with random weights.

    Args:
        clip: what the encoder sees.
        tokenizer: unused: none of these embeds text.
        name: of the model in timm, such as vit_base_patch16_224.
        settings: what timm.create_model takes of the model's shape.

    Raises:
        UserError: a setting names files or weights.
    """
    refuse_files(name, settings)
    return _assemble(library_backbone("timm").create_model(name, **settings), clip)


def pretrained_name(name: str, loading: Loading) -> FrameEncoder:
    """Load an encoder that timm publishes under a name, or that timm saved in a folder.

    Raises:
        UserError: timm is missing, knows no such weights, or cannot get or place them.
    """
    timm = library_backbone("timm")
    local = Path(name).expanduser()
    source = f"local-dir:{local}" if local.is_dir() else name
    if ":" not in source and not timm.is_model(name.partition(".")[0]):
        raise UserError(f"ckpt=timm:{name}: timm has no such model.{suggest(name, timm.list_models(pretrained=True))}")
    try:
        with huggingface.without_code():
            model = timm.create_model(source, pretrained=True)  # with its classifier, so that it is loaded strictly
    except Exception as error:  # timm's own, the hub's, the network's
        raise UserError(f"ckpt=timm:{name}: {one_line(error)}") from error
    return _assemble(model)


def _assemble(model: Any, clip: Clip | None = None) -> FrameEncoder:
    config = library_backbone("timm.data").resolve_model_data_config(model)
    model.reset_classifier(0)
    if clip is None:
        clip = Clip(FRAMES, config["input_size"][-1], tuple(config["mean"]), tuple(config["std"]))
        clip = replace(clip, share=min(1.0, config.get("crop_pct") or 1.0))
        if config["crop_mode"] == "squash":
            clip = replace(clip, resize="squash_crop" if clip.share < 1 else "squash")
        clip = with_filter(clip, config, "this model of timm")
    width = model.num_features
    return FrameEncoder(clip, Trunk(model, clip.size), width, getattr(model, "head_hidden_size", width))
