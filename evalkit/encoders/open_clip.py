"""Image-text encoders of the package open_clip, CoCa among them: ckpt=open_clip:ViT-B-16/laion2b_s34b_b88k.

https://github.com/mlfoundations/open_clip. The extra open_clip brings it. A name is a model and
its weights' tag, `hf-hub:organization/model`, or a folder with open_clip_config.json and the weights. A file of
weights is read with that file beside it, or with the model's name: ckpt=FILE encoder.model=open_clip:ViT-B-16. Each
frame's vector is its embedding beside the text's, not normalized.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evalkit.api import Clip, Loading
from evalkit.encoders._frames import FRAMES, OPEN_CLIP_CONFIG, FrameEncoder, library_backbone, refuse_files, with_filter
from evalkit.errors import UserError, one_line, suggest
from evalkit.weights import checkpoint, huggingface, strict


class Towers(nn.Module):
    """A model of open_clip as FrameEncoder calls it: images (N, 3, H, W) -> tokens and vectors.

    Tokens are those of the last block, as it gives them, in open_clip's own vision transformer, and those after the
    last norm in one of timm's; without class tokens.
    """

    def __init__(self, model: Any, size: int) -> None:
        super().__init__()
        self.model, self.patch, self.size = model, 1, size
        visual = model.visual
        inner: Any = visual.trunk if hasattr(visual, "trunk") else getattr(visual, "transformer", None)
        blocks = getattr(inner, "blocks", getattr(inner, "resblocks", ()))
        self.depth = len(blocks)

    def forward(self, images: Tensor, layers: int) -> tuple[list[Tensor], Tensor]:
        if images.shape[-2:] != (self.size, self.size):  # open_clip does not interpolate positions
            raise ValueError(f"images of shape {tuple(images.shape)}: wanted {self.size} x {self.size} pixels")
        visual = self.model.visual
        if hasattr(visual, "trunk"):
            last, states = visual.trunk.forward_intermediates(images, indices=layers, output_fmt="NLC")
            tokens = last[:, visual.trunk.num_prefix_tokens :]
            return [*states[:-1], tokens], visual.head(visual.trunk.forward_head(last))
        outputs = visual.forward_intermediates(images, indices=layers, output_fmt="NLC")
        return outputs["image_intermediates"], outputs["image_features"]


class Texts:
    """Texts -> embeddings (B, E), by the text tower."""

    def __init__(self, name: str, model: Any) -> None:
        self.name, self.model = name, model
        self.tokenize: Any = None

    def __call__(self, texts: list[str]) -> Tensor:
        if self.tokenize is None:
            try:
                with huggingface.without_code():
                    self.tokenize = library_backbone("open_clip").get_tokenizer(self.name)
            except Exception as error:  # some of its tokenizers are on the hub
                raise UserError(f"no tokenizer of open_clip's {self.name}: {one_line(error)}") from error
        embeddings: Tensor = self.model.encode_text(self.tokenize(texts).to(self.model.logit_scale.device))
        return embeddings


def encoder(clip: Clip, tokenizer: Path | None = None, *, name: str, **settings: Any) -> FrameEncoder:
    """A model of open_clip over single frames, with random weights.

    Args:
        clip: what the encoder sees.
        tokenizer: unused: open_clip brings its own.
        name: of the model in open_clip, such as ViT-B-16.
        settings: what open_clip.create_model takes of the model's shape.

    Raises:
        UserError: a setting names files or weights.
    """
    refuse_files(name, settings)
    make, device = library_backbone("open_clip").create_model, torch.get_default_device()
    model = make(name, device=device, pretrained_image=False, pretrained_text=False, **settings)
    return _assemble(name, model, clip)


def pretrained_name(name: str, loading: Loading) -> FrameEncoder:
    """Load an encoder that open_clip publishes under model/tag, or that open_clip saved in a folder.

    Raises:
        UserError: open_clip is missing, knows no such weights, or cannot get or place them; the tag is missing.
    """
    open_clip = library_backbone("open_clip")
    local = Path(name).expanduser()
    model, _, tag = name.rpartition("/")
    settings: dict[str, Any] = {}
    if local.is_file():
        return pretrained_file(local, loading)
    if local.is_dir():
        model = f"local-dir:{local}"
    elif name.startswith("hf-hub:"):
        model = name
    else:
        known = [pair[0] for pair in open_clip.list_pretrained()]
        if name in known:
            tags = open_clip.list_pretrained_tags_by_model(name)
            raise UserError(
                f"ckpt=open_clip:{name} names no weights, and untrained ones score nothing: give "
                f"open_clip:{name}/TAG with one of {', '.join(tags)}"
            )
        if model not in known:
            raise UserError(f"ckpt=open_clip:{name}: open_clip has no weights of that model.{suggest(model, known)}")
        tags = open_clip.list_pretrained_tags_by_model(model)
        if tag not in tags:
            raise UserError(f"ckpt=open_clip:{name}: no such tag.{suggest(tag, tags)} Known: {', '.join(tags)}")
        trained = library_backbone("open_clip.pretrained").get_pretrained_cfg(model, tag)
        # The first weights were trained with a faster GELU, which the model's name does not say.
        settings = {"pretrained": tag, "force_quick_gelu": trained.get("quick_gelu", False)}
    try:
        with warnings.catch_warnings(), huggingface.without_code():
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            made = open_clip.create_model(model, require_pretrained=True, **settings)
    except Exception as error:  # open_clip's own, the hub's, the network's
        raise UserError(f"ckpt=open_clip:{name}: {one_line(error)}") from error
    return _assemble(model, made)


def pretrained_file(path: Path, loading: Loading) -> FrameEncoder:
    """Load a file of weights, of the model that `encoder.model=open_clip:NAME` names or open_clip_config.json says.

    A training checkpoint holds them as `state_dict`, with `module.` before their names where several GPUs trained it.

    Raises:
        UserError: open_clip is missing, the model is not known, or the weights do not fit it.
    """
    open_clip, factory = library_backbone("open_clip"), library_backbone("open_clip.factory")
    name = loading.model.removeprefix("open_clip:")
    if name:
        refuse_files(name, {})
        known = open_clip.list_models()
        if name not in known:
            raise UserError(f"encoder.model=open_clip:{name}: open_clip has no such model.{suggest(name, known)}")
    elif (path.parent / OPEN_CLIP_CONFIG).is_file():
        checkpoint.read_json(path.parent / OPEN_CLIP_CONFIG)
        name = f"local-dir:{path.parent}"
    else:
        raise UserError(
            f"{path} does not say its model: put {OPEN_CLIP_CONFIG} beside it, or give encoder.model=open_clip:NAME"
        )
    weights = checkpoint.read_weights(path, prefix=loading.prefix, trust=loading.trust)
    try:
        with huggingface.without_code():
            made = open_clip.create_model(name, load_weights=False, pretrained_image=False, pretrained_text=False)
        named = {key.removeprefix("module."): value for key, value in weights.items()}
        state = factory.convert_state_dict(made, named)  # of other packages' layouts
        if "positional_embedding" in state and not hasattr(made, "positional_embedding"):
            state = library_backbone("open_clip.model").convert_to_custom_text_state_dict(state)
    except UserError:
        raise
    except Exception as error:  # open_clip's own
        raise UserError(f"cannot read {path} as open_clip's {name}: {one_line(error)}") from error
    state.pop("text.transformer.embeddings.position_ids", None)  # of former versions of transformers
    taken = checkpoint.Weights(state)
    taken.prefix = weights.prefix
    strict.load_strictly(made, taken, path)
    return _assemble(name, made.eval())


def _assemble(name: str, model: Any, clip: Clip | None = None) -> FrameEncoder:
    config = library_backbone("open_clip.model").get_model_preprocess_cfg(model)
    size = config["size"][0] if isinstance(config["size"], tuple | list) else config["size"]
    if clip is None:
        clip = Clip(FRAMES, size, tuple(config["mean"]), tuple(config["std"]))
        clip = replace(clip, resize="squash") if config.get("resize_mode") == "squash" else clip
        clip = with_filter(clip, config, f"open_clip's {name}")
    towers = Towers(model, size)
    if not towers.depth:
        raise UserError(f"open_clip's {name} is not a vision transformer, so evalkit cannot read its tokens")
    trunk = getattr(model.visual, "trunk", None)
    width = trunk.num_features if trunk is not None else model.visual.conv1.out_channels  # CoCa's last norm is narrower
    with torch.no_grad():  # what heads and projections there are differs from model to model
        pooled = model.encode_image(torch.zeros(1, 3, size, size)).shape[-1]
    return FrameEncoder(clip, towers, width, pooled, Texts(name, model))
