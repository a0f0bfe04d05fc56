"""Image-text encoders: CLIP, SigLIP, SigLIP 2 and FLAVA, as transformers has them.

CLIP: https://arxiv.org/abs/2103.00020, SigLIP: https://arxiv.org/abs/2303.15343, SigLIP 2:
https://arxiv.org/abs/2502.14786, FLAVA: https://arxiv.org/abs/2112.04482. Each frame's vector is its embedding beside
the text's, not normalized: CLIP's or FLAVA's projected class token, SigLIP's attention pooling. Tokens are the patches
of the last layer: after the last norm for SigLIP and FLAVA, as the last block gives them for CLIP, which normalizes
nothing but the class token. FLAVA's layers over image and text together are left out.

A SigLIP 2 checkpoint of one resolution calls itself siglip; siglip2 is NaFlex, which takes patches instead of images.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evalkit.api import Clip, Loading
from evalkit.encoders._frames import FRAMES, FrameEncoder, ImageTower
from evalkit.errors import UserError, one_line
from evalkit.weights.huggingface import Weights, load, make_config, read_config
from evalkit.weights.preprocessor import read_clip

MODEL_TYPES = ("clip", "siglip", "siglip2", "clip_vision_model", "siglip_vision_model", "flava")
FLAVA_TOKENS = 77  # that its processor cuts texts at, though it has positions for more
# Of FLAVA: what sees image and text together, the poolers, and what only its training needs.
_LEFT_OUT = (
    r"(flava\.)?((multimodal_model|(image|text)_to_mm_projection|(image|text)_model\.pooler)\.|logit_scale$)"
    r"|(image_codebook|mim_head|mlm_head|itm_head|mmm_(image|text)_head)\."
)

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class PatchTower(ImageTower):
    """NaFlex (SigLIP 2) for square images: converts them to rows of patches and the grid's shape."""

    def inputs(self, images: Tensor) -> dict[str, Any]:
        count, channels, height, width = images.shape
        rows, columns, side = height // self.patch, width // self.patch, self.patch
        patches = images.reshape(count, channels, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
        shapes = torch.tensor([[rows, columns]]).expand(count, 2)  # on the CPU, where the model reads its numbers
        # No mask: every patch is of the image, none is padding.
        return {
            "pixel_values": patches.reshape(count, rows * columns, -1),
            "spatial_shapes": shapes,
            "pixel_attention_mask": None,
        }


class TextTower(nn.Module):
    """Texts -> embeddings (B, E), tokenized as the family was trained.

    CLIP: cut after its 77 tokens, padding masked. SigLIP: cut or padded on the right to its 64 tokens, padding seen by
    the model, whose embedding is that of the last token. SigLIP 2 was trained on lower case
    (https://github.com/google-research/big_vision, SigLIP2_demo.ipynb), which not every tokenizer file says; SigLIP's
    own tokenizer does that by itself.

    FLAVA: cut after its processor's 77 tokens, padding masked; the embedding is that of the class token.

    Args:
        model: the text model.
        projection: of its pooled output, where the family projects it.
        tokenizer: a folder with a tokenizer's files, a tokenizer.json, or SigLIP's sentencepiece model; None: there is
            none, so that texts are refused.
    """

    def __init__(self, model: Any, projection: nn.Module | None, tokenizer: Path | None) -> None:
        super().__init__()
        self.model, self.projection, self.tokenizer = model, projection, tokenizer
        self._read: Any = None

    def forward(self, texts: list[str]) -> Tensor:
        if self._read is None:
            self._read = read_tokenizer(self.tokenizer)
        length, device = self.model.config.max_position_embeddings, self.model.device
        kind = self.model.config.model_type
        if kind in ("clip_text_model", "flava_text_model"):
            length = length if kind == "clip_text_model" else min(length, FLAVA_TOKENS)
            rows = self._read(texts, padding=True, truncation=True, max_length=length, return_tensors="pt").to(device)
            masked = {"attention_mask": rows["attention_mask"]}
        else:
            if type(self._read).__name__ != "SiglipTokenizer":
                texts = [text.lower() for text in texts]
            rows = self._read(
                texts,
                padding="max_length",
                padding_side="right",
                truncation=True,
                max_length=length,
                return_tensors="pt",
            ).to(device)
            masked = {}
        out = self.model(input_ids=rows["input_ids"], **masked)
        pooled: Tensor = out.last_hidden_state[:, 0] if kind == "flava_text_model" else out.pooler_output
        return pooled if self.projection is None else self.projection(pooled)


def read_tokenizer(place: Path | None) -> Any:
    """Read a tokenizer: a folder of transformers, a tokenizer.json, or SigLIP's sentencepiece model.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast, SiglipTokenizer

    if place is None:
        raise UserError(
            "this encoder has no tokenizer, so it cannot embed text: give encoder.tokenizer= a folder with "
            "tokenizer.json, or such a file"
        )
    complete = (["tokenizer.json"], ["vocab.json", "merges.txt"], ["spiece.model"], ["vocab.txt"])
    readable = any(all((place / name).is_file() for name in names) for names in complete)
    if place.is_dir() and not readable:  # transformers would make an empty tokenizer
        raise UserError(
            f"{place} has no tokenizer, so it cannot embed text: wanted tokenizer.json, or vocab.json and merges.txt "
            "(CLIP), or spiece.model (SigLIP). Put it there, or give encoder.tokenizer="
        )
    try:
        if place.is_dir():
            return AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        if place.read_bytes()[:1] != b"{":
            return SiglipTokenizer(str(place))
        tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(place))  # type: ignore[no-untyped-call]
    except Exception as error:  # its own, tokenizers', sentencepiece's
        raise UserError(f"cannot read the tokenizer {place}: {one_line(error, 200)}") from error
    # The file alone does not say which token pads: SigLIP 2's, SigLIP's, CLIP's, FLAVA's.
    padding = next(
        (token for token in ("<pad>", "</s>", "<|endoftext|>", "[PAD]") if token in tokenizer.get_vocab()), None
    )
    if padding is None:
        raise UserError(
            f"{place} is not a tokenizer of CLIP, SigLIP or FLAVA: it has none of <pad>, </s>, <|endoftext|>, [PAD]"
        )
    tokenizer.pad_token = padding
    return tokenizer


def encoder(clip: Clip, tokenizer: Path | None = None, *, model_type: str = "clip", **config: Any) -> FrameEncoder:
    """CLIP, SigLIP, SigLIP 2 or FLAVA over single frames, with random weights.

    Args:
        clip: what the encoder sees.
        tokenizer: a folder with a tokenizer's files, a tokenizer.json, or SigLIP's sentencepiece model; None where
            there is none yet.
        model_type: clip, siglip, siglip2 (NaFlex), clip_vision_model, siglip_vision_model or flava.
        config: what transformers' configuration of that model takes: vision_config, text_config and so on.
    """
    model = _architecture(model_type)
    return _assemble(clip, model(make_config(model_type, config)), tokenizer)


def pretrained(path: Path, loading: Loading, weights: Weights = None) -> FrameEncoder:
    """Load the encoder in a Hugging Face folder, every weight in place.

    The scale and bias of the training loss are read, and not kept: they change no cosine.

    Raises:
        UserError: weights are missing, unexpected or of another shape, or the files cannot be read.
    """
    config = read_config(path)
    left_out = _LEFT_OUT if config.model_type == "flava" else ""
    model = load(_architecture(config.model_type, config.architectures or ()), path, left_out, weights)
    vision = config.image_config if config.model_type == "flava" else getattr(config, "vision_config", config)
    half = (0.5, 0.5, 0.5)
    if config.model_type == "siglip2":  # trained on any shape with its proportions kept
        default = Clip(FRAMES, math.isqrt(vision.num_patches) * vision.patch_size, half, half)
    elif config.model_type.startswith("siglip"):
        default = Clip(FRAMES, vision.image_size, half, half, resize="squash", interpolation="bicubic")
    else:
        default = Clip(FRAMES, vision.image_size, CLIP_MEAN, CLIP_STD, interpolation="bicubic")
        if config.model_type == "flava":  # its file's size is height and width
            default = replace(default, resize="squash")
    return _assemble(read_clip(path, default), model, loading.tokenizer or path)


def _architecture(model_type: str, architectures: Any = ()) -> Any:
    """The model's class in transformers."""
    import transformers

    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type={model_type}: wanted one of {', '.join(MODEL_TYPES)}")
    if model_type == "flava":
        return _flava()
    if "CLIPVisionModelWithProjection" in architectures:
        return transformers.CLIPVisionModelWithProjection
    classes = (
        transformers.CLIPModel,
        transformers.SiglipModel,
        transformers.Siglip2Model,
        transformers.CLIPVisionModel,
        transformers.SiglipVisionModel,
    )
    return classes[MODEL_TYPES.index(model_type)]


def _flava() -> Any:
    """FLAVA's two towers, each with the projection of its class token, by transformers' names."""
    from transformers import FlavaImageModel, FlavaTextModel
    from transformers.models.flava.modeling_flava import FlavaPreTrainedModel

    class FLAVA(FlavaPreTrainedModel):  # type: ignore[no-untyped-call]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            image, text = config.image_config, config.text_config
            self.image_model = FlavaImageModel(image, add_pooling_layer=False)
            self.text_model = FlavaTextModel(text, add_pooling_layer=False)
            self.image_projection = nn.Linear(image.hidden_size, config.projection_dim)
            self.text_projection = nn.Linear(text.hidden_size, config.projection_dim)
            self.post_init()  # type: ignore[no-untyped-call]

    return FLAVA


def _assemble(clip: Clip, model: Any, tokenizer: Path | None) -> FrameEncoder:
    flava = model.config.model_type == "flava"
    vision = model.image_model if flava else getattr(model, "vision_model", model)
    # CLIP's and FLAVA's; SigLIP's pooling gives the embedding itself.
    projection = model.image_projection if flava else getattr(model, "visual_projection", None)
    image: ImageTower
    if model.config.model_type == "siglip2":
        image = PatchTower(vision, 0, projection)
    else:
        extra = 1 if flava or model.config.model_type.startswith("clip") else 0  # class token; SigLIP has none
        image = ImageTower(vision, extra, projection, interpolate_pos_encoding=True)
    text = None
    if hasattr(model, "text_model"):
        text = TextTower(model.text_model, getattr(model, "text_projection", None), tokenizer)
    dim = vision.config.hidden_size
    return FrameEncoder(clip, image, dim, dim if projection is None else projection.out_features, text)
