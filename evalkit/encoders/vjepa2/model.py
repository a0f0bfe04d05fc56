"""V-JEPA 2 (https://arxiv.org/abs/2506.09985), 2.1 and 1 (https://arxiv.org/abs/2404.08471): transformers' encoder.

V-JEPA 2 is read from a Hugging Face folder or the authors' .pt, 2.1 from the same authors' .pt, V-JEPA 1 from its
authors' .pth.tar. The authors' files
(https://github.com/facebookresearch/vjepa2, .../jepa) hold a training state: `encoder`, its moving average
`target_encoder`, `predictor`, `opt` and numbers. Their evaluations read `target_encoder`, and so does this where there
is one, else `encoder`, which their torch.hub reads. Weights alone do as well, with or without `module.backbone.` before
their names. Predictor and classifier are left out.

Both have weights of the same names and shapes. V-JEPA 1 adds a table of sines and cosines to its tokens, which its
files hold as `pos_embed`; V-JEPA 2 turns queries and keys, and its code writes no table, but its published files still
have one. `encoder.positions=` says which it is where the file does not. V-JEPA 2.1 adds a learned vector to all tokens
of a video, turns queries and keys in another way, and has a norm for each of four layers; its names tell. What it has
for still images is left out: a frame is shown as a video, twice.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, Loading
from evalkit.encoders._tubelets import cover, last_states, states_of
from evalkit.encoders.vjepa2 import names
from evalkit.encoders.vjepa2 import positions as vjepa_positions
from evalkit.encoders.vjepa2 import predictor as vjepa_predictor
from evalkit.errors import UserError
from evalkit.weights import checkpoint, huggingface, own_head, peft_adapters, strict
from evalkit.weights.huggingface import Weights
from evalkit.weights.preprocessor import IMAGENET, read_clip

logger = logging.getLogger("evalkit")

MODEL_TYPES = ("vjepa2",)
LOADING = ("ahead",)  # of `evalkit.api.Loading`, what a folder takes
SUFFIXES = (".pt", ".pth", ".ckpt", ".tar")
HEADS = {(1024, 24): 16, (1280, 32): 16, (1408, 40): 22}  # of the published V-JEPA 2, by width and depth
SIZES_1 = {(1024, 24): (224,), (1280, 32): (224, 384)}  # pixels of the published V-JEPA 1, whose heads are as many
FRAMES_1 = 16
HEADS_2_1 = {(768, 12): 12, (1024, 24): 16, (1408, 40): 22, (1664, 48): 26}
NORMED_2_1 = {12: (2, 5, 8, 11), 24: (5, 11, 17, 23), 40: (9, 19, 29, 39), 48: (11, 23, 37, 47)}  # layers, by depth
SIDES_2_1 = {14: 252 // 14, 16: 256 // 16}  # patches of the square that it was trained on first, by their size
FIRST = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
SHARE = 224 / 256  # of the shorter side: the authors' evaluations and transformers scale that of 256 pixels to 292
_LEFT_OUT = r"(pooler|classifier)\."
_PREDICTOR = r"(vjepa2\.)?predictor\.|"
_ROW = 4096  # no video has so many patches in a row


class VJEPA2(nn.Module):
    """Video (B, T, 3, H, W), scaled as its clip says -> tokens (B, T / 2, S, D) and their mean, pooled (B, D).

    Positions are rotations by a token's time, row and column, so T may be any number, and H and W any multiples of the
    patch, as in the authors' code. A video whose T is not a multiple of the tubelet's depth holds its last frame.

    Args:
        clip: what the encoder sees.
        model: transformers' encoder.
        config: its configuration.
        positions: of V-JEPA 1, the table (T', S, S, D) that is added to the tokens in place of rotations; it is
            interpolated for other numbers of frames and other sizes, as in the authors' code.
        dense: it is V-JEPA 2.1. Layers that are named are those with a norm of their own then.
        predictor: of V-JEPA 2; the tokens that it gives of a later time step are the last, tokens (B, T / 2 + 1, S, D).

    Raises:
        ValueError: V-JEPA 2.1 has no such depth or patch.
    """

    positions: Tensor | None

    def __init__(
        self,
        clip: Clip,
        model: Any,
        config: Any,
        positions: Tensor | None = None,
        dense: bool = False,
        predictor: vjepa_predictor.Predictor | None = None,
    ) -> None:
        super().__init__()
        self.clip, self.model, self.dim, self.named_layers = clip, model, config.hidden_size, len(model.layer)
        self.tubelet = (config.tubelet_size, config.patch_size, config.patch_size)
        self.register_buffer("positions", positions)
        self.interpolates = () if positions is None else ("frames", "size")
        self.dense, depth = dense, len(model.layer)
        if dense:
            if depth not in NORMED_2_1 or config.patch_size not in SIDES_2_1:
                raise ValueError(
                    f"{depth} layers and patches of {config.patch_size} pixels: V-JEPA 2.1 has "
                    f"{', '.join(map(str, NORMED_2_1))} layers, and patches of 14 or 16"
                )
            self.video_embedding = nn.Parameter(torch.zeros(1, 1, self.dim))
            self.norms = nn.ModuleList(nn.LayerNorm(self.dim, config.layer_norm_eps) for _ in NORMED_2_1[depth][:-1])
        self.predictor = predictor
        for block in predictor.model.layer if predictor else ():
            block.attention.grid_size = _ROW
        for block in model.layer:
            block.attention.grid_size = _ROW  # its own is the square that the model was trained on
            if positions is not None:
                block.attention.apply_rotary_embeddings = vjepa_positions.unturned
            elif dense:
                turned = partial(vjepa_positions.turned, SIDES_2_1[config.patch_size])
                block.attention.apply_rotary_embeddings = turned

    def forward(self, video: Tensor, layers: int | tuple[int, ...] = 1) -> EncoderOutput:
        """See the class; `layers` last layers' tokens come along where it is above 1.

        Or those of the layers of these numbers, counted from 0, each after the norm, as the authors' `out_layers`.
        """
        video, grid = cover(video, self.tubelet)
        x = self.model.embeddings(video)
        if self.positions is not None:
            x = x + vjepa_positions.resized(self.positions, grid)
        if self.dense:
            x = x + self.video_embedding
        places = _places(torch.arange(grid[0], device=x.device), grid)
        if isinstance(layers, tuple):
            inner, last = states_of(self.model.layer, x, layers, places)
            norms = [self._norm(number) for number in (*layers, len(self.model.layer) - 1)]
            states = [norm(state) for norm, state in zip(norms, (*inner, last), strict=True)]
        else:
            states = last_states(self.model.layer, x, layers, places)
            states[-1] = self.model.layernorm(states[-1])
        tokens = tuple(state.reshape(len(video), grid[0], -1, self.dim) for state in states)
        if self.predictor is not None:
            if layers != 1:
                raise UserError("encoder.ahead= gives a time step of the last layer alone: leave adapter.layers= out")
            later = _places(torch.tensor([grid[0] + self.predictor.ahead], device=x.device), grid)
            tokens = (torch.cat([tokens[0], self.predictor(tokens[0], places, later)], 1),)
        kept = tokens[:-1] if isinstance(layers, tuple) else tokens if layers > 1 else ()
        return EncoderOutput(tokens[-1], tokens[-1].mean((1, 2)), kept)

    def _norm(self, number: int) -> Any:
        """The norm that follows the layer of this number where it is asked for by it."""
        depth = len(self.model.layer)
        if not self.dense or number == depth - 1:
            return self.model.layernorm
        if number not in NORMED_2_1[depth]:
            normed = ", ".join(map(str, NORMED_2_1[depth]))
            raise UserError(f"layer {number} of V-JEPA 2.1 has no norm: name layers of {normed}")
        return self.norms[NORMED_2_1[depth].index(number)]


def _places(times: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Positions (1, T' x S) of the tokens at these times, as numbers that the blocks take apart again."""
    rows, columns = (torch.arange(n, device=times.device) for n in grid[1:])
    time, row, column = torch.meshgrid(times, rows, columns, indexing="ij")
    return ((time * _ROW + row) * _ROW + column).reshape(1, -1)


def encoder(
    clip: Clip,
    tokenizer: Path | None = None,
    *,
    model_type: str = "vjepa2",
    positions: Literal["rotary", "sincos", "sincos_uniform"] = "rotary",
    dense: bool = False,
    ahead: Annotated[int, Ge(0)] = 0,
    **config: Any,
) -> VJEPA2:
    """V-JEPA 2's encoder with random weights, or V-JEPA 1's or 2.1's.

    Args:
        clip: what the encoder sees.
        tokenizer: not used: the model has no text tower.
        model_type: vjepa2, the only one.
        positions: rotary is V-JEPA 2, sincos_uniform V-JEPA 1 as published, sincos as its code has it by default.
        dense: V-JEPA 2.1, which was trained on dense features, too.
        ahead: its predictor gives the tokens of a time step, too, so many after the clip's end; 0: it is left out.
        config: transformers' own names and values; the rest is the family's default.

    Raises:
        TypeError, ValueError: there is no such name, or transformers does not take the value; or it is V-JEPA 1 or 2.1,
            with a predictor.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type={model_type!r}: wanted vjepa2")
    if ahead and (dense or positions != "rotary"):
        raise ValueError(f"ahead={ahead}: wanted V-JEPA 2, of which alone the predictor is read")
    made = huggingface.make_config(model_type, config)
    table = None
    if positions != "rotary":
        times, side = made.frames_per_clip // made.tubelet_size, made.crop_size // made.patch_size
        table = vjepa_positions.table(positions, made.hidden_size, times, side)
    model = _model_class(ahead > 0)(made)
    return VJEPA2(clip, model.encoder, made, table, dense, _predictor(model, ahead))


def pretrained(path: Path, loading: Loading, weights: Weights = None) -> VJEPA2:
    """Load the encoder in a Hugging Face folder or a .pt file strictly.

    A folder's files state the clip. A .pt file does not: its clip is 64 frames of 256 pixels cut from 292, or of 384
    cut from 438 where the file's name says 384, with ImageNet's mean and std; `clip.*` words change that in a run. Of
    V-JEPA 1 it is what the table of positions was made for, 16 frames of 224 pixels cut from 256. The model's size is
    read off its arrays, but for the heads: those of the published sizes, else `encoder.heads=`.

    Raises:
        UserError: weights are missing, unexpected or of another shape, the number of heads or whether they are V-JEPA
            1's or 2's is not known, or the files cannot be read.
    """
    if path.is_file():
        return _from_file(path, loading)
    config = huggingface.read_config(path)
    default = replace(IMAGENET, frames=config.frames_per_clip, size=config.crop_size, share=SHARE)
    # Its processor scales the shorter side so, and cuts, whatever size the file states.
    clip = replace(read_clip(path, default), resize="crop", share=SHARE, center="below")
    left_out = _LEFT_OUT if loading.ahead else _PREDICTOR + _LEFT_OUT
    model = huggingface.load(_model_class(loading.ahead > 0), path, left_out, weights)
    module = VJEPA2(clip, model.encoder, config, predictor=_predictor(model, loading.ahead))
    if weights is None:
        own_head.attach(module, path, "VJEPA2ForVideoClassification")
    return module


def _model_class(whole: bool) -> Any:
    """Transformers' model class, with or without the predictor."""
    from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder, VJEPA2Model, VJEPA2PreTrainedModel

    class VJEPA2EncoderModel(VJEPA2PreTrainedModel):  # type: ignore[no-untyped-call]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.encoder = VJEPA2Encoder(config)
            self.post_init()  # type: ignore[no-untyped-call]

    return VJEPA2Model if whole else VJEPA2EncoderModel


def _predictor(model: Any, ahead: int) -> vjepa_predictor.Predictor | None:
    return vjepa_predictor.Predictor(model.predictor, ahead) if ahead else None


def _from_file(path: Path, loading: Loading) -> VJEPA2:
    weights, predictor = _read_weights(path, loading)
    patch, first = (weights.get(name) for name in FIRST)
    if patch is None or patch.ndim != 5 or first is None:
        start = strict.shared_prefix(FIRST, weights)
        raise UserError(
            f"{path} does not say which model it belongs to: it has {', '.join(sorted(weights)[:3]) or 'nothing'}. "
            "Give encoder.model= (a preset, a folder with config.json, or package.module:function); of V-JEPA's own "
            f"files, with patch_embed.proj.weight and blocks.0.mlp.fc1.weight, encoder.prefix="
            f"{start and weights.prefix + start} the start of the encoder's names"
        )
    dim, _, depth_of_tubelet, size_of_patch, _ = patch.shape
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    dense = "video_mod_embed" in weights
    heads = strict.attention_heads(path, dim, depth, HEADS_2_1 if dense else HEADS, loading.heads)
    if dense and (depth not in NORMED_2_1 or size_of_patch not in SIDES_2_1):
        raise UserError(
            f"{path} is {depth} layers deep and has patches of {size_of_patch} pixels, as no V-JEPA 2.1 has"
        )
    if dense and loading.ahead:
        raise UserError(f"encoder.ahead={loading.ahead}: {path} is V-JEPA 2.1, which takes none: leave it out")
    predicting = names.stripped(predictor) if loading.ahead else {}
    size = 384 if dense or "384" in path.name else 256
    clip = replace(IMAGENET, frames=64, size=size, share=SHARE)
    with torch.device("meta"):  # a billion random numbers would only be overwritten
        module = encoder(
            clip,
            dense=dense,
            ahead=loading.ahead,
            **(vjepa_predictor.sizes(predicting, path) if loading.ahead else {}),
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
    renamed = names.of_encoder(weights)
    renamed |= {f"predictor.model.{name}": value for name, value in names.of_predictor(predicting).items()}
    places = {name.removeprefix("model."): name for name in module.state_dict()}
    strict.check_names({name: module.state_dict()[place] for name, place in places.items()}, renamed, path)
    strict.check_finite(renamed, path)
    if dense and loading.positions not in ("auto", "rotary"):
        raise UserError(
            f"encoder.positions={loading.positions}: {path} is V-JEPA 2.1, which has rotations; leave it out"
        )
    positions = None if dense else _positions(path, weights.get("pos_embed"), module, predictor, loading.positions)
    module.to_empty(device="cpu")
    module.load_state_dict({places[name]: value for name, value in renamed.items()})
    if positions is None:
        return module
    if loading.ahead:
        raise UserError(f"encoder.ahead={loading.ahead}: {path} is V-JEPA 1, which takes none: leave it out")
    strict.attention_heads(path, dim, depth, {size: HEADS[size] for size in SIZES_1}, loading.heads)
    frames, side = positions.shape[0] * depth_of_tubelet, positions.shape[1] * size_of_patch
    return VJEPA2(replace(clip, frames=frames, size=side), module.model, module.model.config, positions)


def _positions(
    path: Path, stored: Tensor | None, module: VJEPA2, predictor: Collection[str], stated: str
) -> Tensor | None:
    """The table (T', S, S, D) of V-JEPA 1's weights; None of V-JEPA 2's.

    Args:
        path: the file, for messages.
        stored: its `pos_embed`.
        module: the encoder, as V-JEPA 2.
        predictor: names of the predictor's weights in the file: V-JEPA 1 has two mask tokens, the published V-JEPA 2
            ten.
        stated: `encoder.positions`.

    Raises:
        UserError: it is not known which they are, or `stated` is what the table shows they are not.
    """
    size, patch = (module.dim, len(module.model.layer)), module.tubelet[1]
    mask_tokens = sum(".mask_tokens." in f".{name}" for name in predictor)
    known = stored is not None and vjepa_positions.recognize(stored)
    if known and stored is not None:
        kind, times, side = known
        # The published files of V-JEPA 2 hold a table that nothing reads.
        either = size in HEADS and side * patch not in SIZES_1.get(size, ())
        if stated not in ("auto", kind) and not (stated == "rotary" and either):
            raise UserError(
                f"encoder.positions={stated}: the pos_embed of {path} is V-JEPA 1's table, {kind}, of {times} x {side} "
                f"x {side} tokens; leave it out"
            )
        if stated == kind or not either:
            return stored.float().reshape(times, side, side, module.dim)
        if stated == "rotary" or mask_tokens > 2:
            return None
        raise UserError(
            f"{path} may be V-JEPA 1 or V-JEPA 2, whose published files hold such a table of positions, too, and do "
            f"not use it: give encoder.positions=rotary for V-JEPA 2, encoder.positions={kind} for V-JEPA 1"
        )
    if stored is not None:
        unread = "is zero" if not stored.any() else "is not a table of sines and cosines"
        if stated.startswith("sincos") or (stored.any() and stated == "auto"):
            raise UserError(
                f"the pos_embed of {path} {unread}, which V-JEPA 1's is: give encoder.positions=rotary if these are "
                "weights of V-JEPA 2, which uses none"
            )
        return None
    if stated.startswith("sincos"):
        kind = vjepa_positions.KINDS[stated == "sincos_uniform"]
        side = (384 if "384" in path.name else 224) // patch
        return vjepa_positions.table(kind, module.dim, FRAMES_1 // module.tubelet[0], side)
    # V-JEPA 1's code writes both tables, its encoder's and its predictor's, and V-JEPA 2's code neither: of an encoder
    # alone only its size tells, and only that of a model that was published as V-JEPA 2 and not as V-JEPA 1.
    stripped = any(name.endswith("predictor_pos_embed") for name in predictor)
    if stated == "auto" and (size not in HEADS or size in SIZES_1 or stripped) and mask_tokens <= 2:
        raise UserError(
            f"{path} holds no table of positions (pos_embed), so it may be V-JEPA 1 or V-JEPA 2: give "
            "encoder.positions=rotary for V-JEPA 2, encoder.positions=sincos_uniform for the published V-JEPA 1"
        )
    return None


def _read_weights(path: Path, loading: Loading) -> tuple[checkpoint.Weights, dict[str, Tensor]]:
    """The encoder's weights, by the authors' names, from their training state or alone; and the predictor's."""
    if loading.prefix:
        return checkpoint.read_weights(path, prefix=loading.prefix, trust=loading.trust), {}
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
        if others := sorted(sets.keys() - {part, "predictor" if loading.ahead else part}):
            weights.prefix = f"{part}."
            logger.info(f"{path}: took {part}, and not {', '.join(others)}")
    peft_adapters.refuse_names(weights, path)
    named = names.stripped(weights)
    return (checkpoint.Weights(named) if FIRST[0] in named else weights), sets.get("predictor", {})
