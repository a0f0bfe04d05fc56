"""Weights of the authors' files by transformers' names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor


def stripped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what training in parallel, compiling and the authors' wrapper put before the names."""
    return {re.sub(r"^((module|_orig_mod)\.)*(backbone\.)?", "", name): value for name, value in weights.items()}


def of_encoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's; positions are read apart, and of V-JEPA 2.1 what still images pass through is left out."""
    starts = {"patch_embed.": "embeddings.patch_embeddings.", "blocks.": "layer.", "norm.": "layernorm."}
    left_out = r"pos_embed$"
    if "video_mod_embed" in weights:
        starts |= {"video_mod_embed": "video_embedding", "norms_block.3.": "layernorm.", "norms_block.": "norms."}
        left_out += r"|patch_embed_img\.|img_mod_embed$"
    return _renamed(weights, starts, left_out)


def of_predictor(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A predictor's; a table of positions, in whose place V-JEPA 2 turns queries and keys, is left out."""
    starts = {
        "predictor_embed.": "embeddings.predictor_embeddings.",
        "predictor_blocks.": "layer.",
        "predictor_norm.": "layernorm.",
        "predictor_proj.": "proj.",
    }
    renamed = _renamed(weights, starts, r"predictor_pos_embed$|mask_tokens\.")
    masks = [weights[f"mask_tokens.{number}"] for number in range(len(weights)) if f"mask_tokens.{number}" in weights]
    return renamed | ({"embeddings.mask_tokens": torch.stack(masks)} if masks else {})


def _renamed(weights: Mapping[str, Tensor], starts: Mapping[str, str], left_out: str) -> dict[str, Tensor]:
    """By the names that start otherwise, with queries, keys and values apart."""
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if re.match(left_out, name):
            continue
        start = next((old for old in starts if name.startswith(old)), "")
        new = (starts.get(start, "") + name.removeprefix(start)).replace(".attn.", ".attention.")
        if ".qkv." in new and len(value) % 3 == 0:
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            renamed |= {new.replace(".qkv.", f".{part}."): piece for part, piece in parts}
        else:
            renamed[new] = value
    return renamed
