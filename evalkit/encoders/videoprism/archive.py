"""Official VideoPrism archives (.npz of Flax parameters): the array-to-weight mapping, checked and loaded."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.api import Clip
from evalkit.encoders.videoprism.model import VideoPrism, encoder
from evalkit.encoders.videoprism.text import sinusoid
from evalkit.errors import UserError, one_line
from evalkit.runtime import bounded
from evalkit.weights.strict import check_finite, check_names, raise_problems

_Names = dict[str, tuple[str, str]]  # official name -> ours, and the array's axes


class _Array(NamedTuple):
    """An array of the archive, and the weights that it becomes.

    Attributes:
        axes: a letter for each axis, the same for lengths that must be equal; digits are the length itself.
        targets: our names; where layers are stacked along the first axis, one for each.
        stacked: whether they are.
    """

    axes: tuple[str, ...]
    targets: tuple[str, ...]
    stacked: bool = False


def _norm(official: str, ours: str) -> _Names:
    return {f"{official}/scale": (f"{ours}.weight", "D"), f"{official}/bias": (f"{ours}.bias", "D")}


def _attention(official: str, ours: str, width: str) -> _Names:
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "post": "o_proj"}
    weights = {f"{official}/{a}/w": (f"{ours}.{b}.weight", f"DN{width}") for a, b in names.items()}
    biases = {f"{official}/{a}/b": (f"{ours}.{b}.bias", f"N{width}") for a, b in names.items()}
    return weights | biases | {f"{official}/post/b": (f"{ours}.o_proj.bias", "D")}


# Axes: D width of the tokens, N heads, H width of a head, M of the MLP, C values of a patch, S places, T frames,
# W width of the pooler's heads, K classes, V vocabulary. The text's own N, H and M are written small.
_VISION: _Names = {
    "patch_projection/linear/kernel": ("spatial_embeddings.patch_embeddings.projection.weight", "CD"),
    "patch_projection/linear/bias": ("spatial_embeddings.patch_embeddings.projection.bias", "D"),
    "spatial_pos_emb/emb_var": ("spatial_embeddings.position_embeddings", "SD"),
    "temporal_pos_emb/emb_var": ("temporal_embeddings.position_embeddings", "TD"),
    **_norm("spatial_ln", "layernorm1"),
    **_norm("temporal_ln", "layernorm2"),
}
_POOLER: _Names = {
    "pooling_attention_query": ("head.pooling_attention_query", "1D"),
    **_attention("pooling_attention", "head", "W"),
    "pooling_attention/per_dim_scale/per_dim_scale": ("head.per_dim_scale", "W"),
    **_norm("pooling_attention_layer_norm", "head_norm"),
}
_CLASSIFIER: _Names = {"linear/kernel": ("classifier.weight", "DK"), "linear/bias": ("classifier.bias", "K")}
_TEXT: _Names = {
    "token_emb/emb_var": ("embeddings.token_embedding.weight", "VD"),
    "cls_emb": ("embeddings.cls_emb", "11D"),
    **_norm("unimodal_ln", "layernorm"),
}
_LAYER: _Names = {
    **_norm("layer_norm", "layernorm_before"),
    **_attention("self_attention", "attention", "H"),
    **_norm("ff_layer/layer_norm", "layernorm_after"),
    "ff_layer/ffn_layer1/linear/kernel": ("mlp.fc1.weight", "DM"),
    "ff_layer/ffn_layer1/linear/bias": ("mlp.fc1.bias", "M"),
    "ff_layer/ffn_layer2/linear/kernel": ("mlp.fc2.weight", "MD"),
    "ff_layer/ffn_layer2/linear/bias": ("mlp.fc2.bias", "D"),
}
_SMALL = str.maketrans("NHM", "nhm")
_TEXT_LAYER: _Names = {name: (ours, axes.translate(_SMALL)) for name, (ours, axes) in _LAYER.items()}
_HYBRID_LAYER: _Names = {
    name.replace("layer_norm", "pre_layer_norm"): (ours.replace("o_proj", "o_proj.0").replace("fc2", "fc2.0"), axes)
    for name, (ours, axes) in _TEXT_LAYER.items()
} | {**_norm("post_layer_norm", "attention.o_proj.1"), **_norm("ff_layer/post_layer_norm", "mlp.fc2.1")}


def load_archive(path: Path, tokenizer: Path | None) -> VideoPrism:
    """VideoPrism from an official archive, its sizes read off the arrays; see `pretrained`."""
    arrays = _read(path)
    settings, layout = _layout(arrays)
    sizes = _sizes(layout, arrays)
    wanted = {name: [int(a) if a.isdigit() else sizes.get(a, 1) for a in held.axes] for name, held in layout.items()}
    check_names(_shapes(wanted), _shapes({name: array.shape for name, array in arrays.items()}), path)
    patch, side = math.isqrt(sizes["C"] // 3), math.isqrt(sizes["S"])
    problems = [f"{name} is {tuple(shape)}, which is empty" for name, shape in wanted.items() if not all(shape)]
    problems += [f"{name} holds {array.dtype}, not floats" for name, array in arrays.items() if array.dtype.kind != "f"]
    if sizes["C"] != 3 * patch**2:
        problems.append(f"patch_projection has {sizes['C']} inputs, wanted 3 x a square number")
    if sizes["S"] != side**2:
        problems.append(f"spatial_pos_emb has {sizes['S']} places, wanted a square number")
    for heads, width in ("NH", "nh"):
        if heads in sizes and sizes[heads] * sizes[width] != sizes["D"]:
            problems.append(f"{sizes[heads]} heads of {sizes[width]} do not make a width of {sizes['D']}")
    raise_problems(problems, path)
    settings |= {"patch": patch, "dim": sizes["D"], "heads": sizes["N"], "hidden": sizes["M"]}
    settings |= {"pooler": sizes["N"] * sizes.get("W", 0), "classes": sizes.get("K", 0)}
    if "text" in settings:
        settings["text"] |= {"vocabulary": sizes["V"], "heads": sizes["n"], "hidden": sizes["m"]}
    with torch.device("meta"):  # random weights would cost time and memory, and every one is replaced
        module = encoder(Clip(frames=sizes["T"], size=patch * side, resize="squash"), tokenizer, **settings)
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for name, held in layout.items():
        array = arrays.pop(name)  # so that the file's copy goes while ours grows
        for target, part in zip(held.targets, array if held.stacked else array[None], strict=True):
            weights[target] = _tensor(name, part).reshape(shapes[target])
    if module.text is not None:  # what no archive holds
        embeddings = "text.model.embeddings"
        weights[f"{embeddings}.position_embedding"] = sinusoid(*shapes[f"{embeddings}.position_embedding"])
        weights[f"{embeddings}.position_ids"] = torch.arange(shapes[f"{embeddings}.position_ids"][1])[None]
    check_finite(weights, path)
    module.load_state_dict(weights, assign=True)
    return module


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """Read an archive's arrays by name; pickled objects are refused, so no code runs."""
    try:
        bounded.check_archive(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile's, zlib's, numpy's, the disk's
        if "allow_pickle" in str(error):
            raise UserError(f"refused {path}: it holds pickled objects, which can run code; wanted arrays") from error
        raise UserError(f"cannot read weights {path}: {one_line(error, 200)}") from error


def _layout(arrays: Mapping[str, NDArray[Any]]) -> tuple[dict[str, Any], dict[str, _Array]]:
    """Layout of an archive by its arrays' names: settings of `encoder`, and every array that must be there."""
    settings: dict[str, Any] = {}
    layout: dict[str, _Array] = {}

    def has(*parts: str) -> bool:
        return any(name.startswith(f"params/{part}/") for name in arrays for part in parts)

    def add(names: _Names, official: str, ours: str = "") -> None:
        layout.update(
            {official + name: _Array(tuple(axes), (ours + target,)) for name, (target, axes) in names.items()}
        )

    def add_layers(official: str, ours: str, names: _Names = _LAYER) -> int:
        """Add a stack of layers; returns how many there are."""
        suffixes = [name.removeprefix(official) for name in arrays if name.startswith(official)]
        numbers = {name.split("/")[0] for name in suffixes if name.startswith("x_layers_")}
        if numbers:
            for i in range(len(numbers)):
                add(names, f"{official}x_layers_{i}/", f"{ours}.{i}.")
            return len(numbers)
        lengths = Counter(len(arrays[official + name]) for name in suffixes if arrays[official + name].ndim)
        depth = lengths.most_common(1)[0][0] if lengths else 1
        for name, (target, axes) in names.items():
            targets = tuple(f"{ours}.{i}.{target}" for i in range(depth))
            layout[f"{official}x_layers/{name}"] = _Array((str(depth), *axes), targets, stacked=True)
        return depth

    contrastive = has("vision_encoder", "auxiliary_encoder", "contrastive_vision_pooler", "text_encoder")
    classifies = not contrastive and has("encoder", "atten_pooler", "projection")
    root = "params/vision_encoder/" if contrastive else "params/encoder/" if classifies else "params/"
    add(_VISION, root, "vision.")
    for part in ("spatial", "temporal"):
        stack = f"{root}{part}_encoder/transformers_stack/"
        settings[f"{part}_depth"] = add_layers(stack, f"vision.{part}_layers")
    if contrastive:
        add(_POOLER, "params/contrastive_vision_pooler/")
    if has("auxiliary_encoder"):
        settings["auxiliary_depth"] = add_layers("params/auxiliary_encoder/transformers_stack/", "auxiliary")
    if has("text_encoder"):
        hybrid = any("/post_layer_norm/" in name for name in arrays if name.startswith("params/text_encoder/"))
        add(_TEXT, "params/text_encoder/", "text.model.")
        stack, names = "params/text_encoder/unimodal_transformer/", _HYBRID_LAYER if hybrid else _TEXT_LAYER
        depth = add_layers(stack, "text.model.layers", names)
        settings["text"] = {"depth": depth, "norm": "primer_hybrid" if hybrid else "pre"}
    if classifies:
        add(_POOLER, "params/atten_pooler/")
        add(_CLASSIFIER, "params/projection/")
    return settings, layout


def _sizes(layout: Mapping[str, _Array], arrays: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Length of each axis by majority over the arrays, to detect single wrong arrays."""
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for name, held in layout.items():
        if name in arrays and arrays[name].ndim == len(held.axes):
            for axis, length in zip(held.axes, arrays[name].shape, strict=True):
                votes[axis][length] += 1
    return {axis: lengths.most_common(1)[0][0] for axis, lengths in votes.items()}


def _shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(*shape, device="meta") for name, shape in shapes.items()}


def _tensor(name: str, array: NDArray[Any]) -> Tensor:
    """An official array with its axes in torch's order."""
    if name.endswith("patch_projection/linear/kernel"):  # pixels by row, column and channel, then the width
        side = math.isqrt(len(array) // 3)
        array = array.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)
    elif name.endswith("/kernel") or (name.endswith("/w") and "/post/" not in name):  # inputs come first
        array = array.reshape(len(array), -1).T
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
