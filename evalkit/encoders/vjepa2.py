"""V-JEPA 2 (https://arxiv.org/abs/2506.09985): transformers' encoder, from a Hugging Face folder or the authors' .pt.

The authors' files (https://github.com/facebookresearch/vjepa2) hold a training state: `encoder`, its moving average
`target_encoder`, `predictor`, `opt` and numbers. Their evaluations read `target_encoder`, and so does this where there
is one, else `encoder`, which their torch.hub reads. Weights alone do as well, with or without `module.backbone.` before
their names. V-JEPA 1 has the same names and other positions: its weights cannot be told apart, and give nonsense.
Predictor and classifier are left out.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, Loading
from evalkit.encoders._tubelets import cover, last_states, states_of
from evalkit.errors import UserError
from evalkit.weights import checkpoint, huggingface, peft_adapters
from evalkit.weights.huggingface import IMAGENET, Weights

logger = logging.getLogger("evalkit")

MODEL_TYPES = ("vjepa2",)
SUFFIXES = (".pt", ".pth", ".ckpt")
HEADS = {(1024, 24): 16, (1280, 32): 16, (1408, 40): 22}  # of the published models, by width and depth
FIRST = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
SHARE = 224 / 256  # of the shorter side: the authors' evaluations and transformers scale that of 256 pixels to 292
_LEFT_OUT = r"(vjepa2\.)?predictor\.|(pooler|classifier)\."
_ROW = 4096  # no video has so many patches in a row


class VJEPA2(nn.Module):
    """Video (B, T, 3, H, W), scaled as its clip says -> tokens (B, T / 2, S, D) and their mean, pooled (B, D).

    Positions are rotations by a token's time, row and column, so T may be any number, and H and W any multiples of the
    patch, as in the authors' code. A video whose T is no multiple of the tubelet's depth holds its last frame.
    """

    def __init__(self, clip: Clip, model: Any, config: Any) -> None:
        super().__init__()
        self.clip, self.model, self.dim, self.named_layers = clip, model, config.hidden_size, len(model.layer)
        self.tubelet = (config.tubelet_size, config.patch_size, config.patch_size)
        for block in model.layer:
            block.attention.grid_size = _ROW  # its own is the square that the model was trained on

    def forward(self, video: Tensor, layers: int | tuple[int, ...] = 1) -> EncoderOutput:
        """See the class; `layers` last layers' tokens come along where it is above 1.

        Or those of the layers of these numbers, counted from 0, each after the norm, as the authors' `out_layers`.
        """
        video, grid = cover(video, self.tubelet)
        x = self.model.embeddings(video)
        time, row, column = torch.meshgrid(*(torch.arange(n, device=x.device) for n in grid), indexing="ij")
        positions = ((time * _ROW + row) * _ROW + column).reshape(1, -1)  # which the blocks take apart again
        if isinstance(layers, tuple):
            inner, last = states_of(self.model.layer, x, layers, positions)
            states = [self.model.layernorm(state) for state in (*inner, last)]
        else:
            states = last_states(self.model.layer, x, layers, positions)
            states[-1] = self.model.layernorm(states[-1])
        tokens = tuple(state.reshape(len(video), grid[0], -1, self.dim) for state in states)
        kept = tokens[:-1] if isinstance(layers, tuple) else tokens if layers > 1 else ()
        return EncoderOutput(tokens[-1], tokens[-1].mean((1, 2)), kept)


def encoder(clip: Clip, tokenizer: Path | None = None, *, model_type: str = "vjepa2", **config: Any) -> VJEPA2:
    """V-JEPA 2's encoder with random weights.

    Args:
        clip: what the encoder sees.
        tokenizer: not used: the model has no text tower.
        model_type: vjepa2, the only one.
        config: transformers' own names and values; the rest is the family's default.

    Raises:
        TypeError, ValueError: there is no such name, or transformers does not take the value.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type={model_type!r}: wanted vjepa2")
    made = huggingface.make_config(model_type, config)
    return VJEPA2(clip, _encoder_class()(made).encoder, made)


def pretrained(path: Path, loading: Loading, weights: Weights = None) -> VJEPA2:
    """Load the encoder in a Hugging Face folder or a .pt file strictly.

    A folder's files state the clip. A .pt file does not: its clip is 64 frames of 256 pixels cut from 292, or of 384
    cut from 438 where the file's name says 384, with ImageNet's mean and std; `clip.*` words change that in a run. The
    model's size is read off its arrays, but for the heads: those of the published sizes, else `encoder.heads=`.

    Raises:
        UserError: weights are missing, unexpected or of another shape, the number of heads is not known, or the files
            cannot be read.
    """
    if path.is_file():
        return _from_file(path, loading)
    config = huggingface.read_config(path)
    default = replace(IMAGENET, frames=config.frames_per_clip, size=config.crop_size, share=SHARE)
    # Its processor scales the shorter side so, and cuts, whatever size the file states.
    clip = replace(huggingface.read_clip(path, default), resize="crop", share=SHARE, center="below")
    return VJEPA2(clip, huggingface.load(_encoder_class(), path, _LEFT_OUT, weights).encoder, config)


def _encoder_class() -> Any:
    """Transformers' model class without the predictor, which is never run here."""
    from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder, VJEPA2PreTrainedModel

    class VJEPA2EncoderModel(VJEPA2PreTrainedModel):  # type: ignore[no-untyped-call]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.encoder = VJEPA2Encoder(config)
            self.post_init()  # type: ignore[no-untyped-call]

    return VJEPA2EncoderModel


def _from_file(path: Path, loading: Loading) -> VJEPA2:
    weights = _read_weights(path, loading)
    patch, first = (weights.get(name) for name in FIRST)
    if patch is None or patch.ndim != 5 or first is None:
        start = checkpoint.shared_prefix(FIRST, weights)
        raise UserError(
            f"{path} holds no V-JEPA 2 encoder: wanted patch_embed.proj.weight, blocks.0.mlp.fc1.weight and so on, "
            f"found {', '.join(sorted(weights)[:3]) or 'nothing'}. encoder.model= names another model, "
            f"encoder.prefix={start and weights.prefix + start} the start of the encoder's names"
        )
    dim, _, depth_of_tubelet, size_of_patch, _ = patch.shape
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    heads = loading.heads or HEADS.get((dim, depth), 0)
    if not heads:
        raise UserError(
            f"{path} is {dim} wide and {depth} layers deep, no published size, and does not say how many attention "
            "heads it has: encoder.heads="
        )
    if dim % heads:
        raise UserError(f"encoder.heads={heads}: {path} is {dim} wide, which is no multiple of that")
    size = 384 if "384" in path.name else 256
    with torch.device("meta"):  # a billion random numbers would only be overwritten
        module = encoder(
            replace(IMAGENET, frames=64, size=size, share=SHARE),
            crop_size=size,
            frames_per_clip=64,
            patch_size=size_of_patch,
            tubelet_size=depth_of_tubelet,
            hidden_size=dim,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            mlp_ratio=(len(first) + 0.5) / dim,  # transformers cuts width times ratio to a whole number
            qkv_bias="blocks.0.attn.qkv.bias" in weights,
        )
    renamed = _renamed(weights)
    checkpoint.check_names(module.model.state_dict(), renamed, path)
    checkpoint.check_finite(renamed, path)
    module.to_empty(device="cpu")
    module.model.load_state_dict(renamed)
    return module


def _read_weights(path: Path, loading: Loading) -> checkpoint.Weights:
    """Read the encoder's weights, by the authors' names, from their training state or from weights alone."""
    if loading.prefix:
        return checkpoint.read_weights(path, prefix=loading.prefix, trust=loading.trust)
    state = checkpoint.read_pickle(path, trust=loading.trust)
    sets = checkpoint.weight_sets(state)
    if not sets:
        keys = f": {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else ""
        raise UserError(
            f"{path} holds a {type(state).__name__}{keys[:200]}; wanted weights, or a training state with encoder"
        )
    part = next((part for part in ("target_encoder", "ema_encoder", "encoder", "state_dict") if part in sets), None)
    if part is None:
        weights = checkpoint.Weights(checkpoint.choose_set(sets, path))
    else:
        weights = checkpoint.Weights(sets[part])
        if others := sorted(sets.keys() - {part}):
            weights.prefix = f"{part}."
            logger.info(f"{path}: took {part}, and not {', '.join(others)}")
    peft_adapters.refuse_names(weights, path)
    # What training in parallel, compiling and the authors' wrapper put before the names.
    named = {re.sub(r"^((module|_orig_mod)\.)*(backbone\.)?", "", name): value for name, value in weights.items()}
    return checkpoint.Weights(named) if FIRST[0] in named else weights


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to transformers' names, with queries, keys and values apart."""
    changes = {"patch_embed.": "embeddings.patch_embeddings.", "blocks.": "layer.", "norm.": "layernorm."}
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name == "pos_embed":  # kept in the published files although positions are rotations
            continue
        start = next((old for old in changes if name.startswith(old)), "")
        new = (changes.get(start, "") + name.removeprefix(start)).replace(".attn.", ".attention.")
        if ".qkv." in new and len(value) % 3 == 0:
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            renamed |= {new.replace(".qkv.", f".{part}."): piece for part, piece in parts}
        else:
            renamed[new] = value
    return renamed
