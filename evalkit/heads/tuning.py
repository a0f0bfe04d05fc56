"""What is put beside the layers of an encoder to tune it: bottleneck adapters and low-rank terms, in any family.

Nothing becomes part of the encoder: its weights and their names stay as they are, and hooks add what the new layers
give. Both kinds give zero until they are trained.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from evalkit.errors import UserError
from evalkit.heads.flops import eagerly, moved


class Bottleneck(nn.Module):
    """Down, ReLU, Up and a learned scale over tokens (..., D)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        self.scale = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x).relu()) * self.scale  # type: ignore[no-any-return]


def tuned_layers(encoder: Any) -> frozenset[str]:
    """Names of the parameters that the tokens depend on: not those of a text tower or of a pooling head.

    Nothing is computed where the encoder can be called without values; one of the user's own may not.
    """
    try:
        return _reached(encoder, torch.device("meta"))
    except Exception:  # whatever its code raises
        return _reached(encoder, next(encoder.parameters()).device)


def put_bottlenecks(encoder: Any, reached: Collection[str], width: int) -> nn.ModuleList:
    """Adds to each MLP on the way to the tokens a bottleneck that reads what it reads, and gives these.

    AdaptFormer's place (https://arxiv.org/abs/2205.13535). An MLP is what widens the tokens and ends with their width.

    Args:
        encoder: changed in place.
        reached: as `reached` gives it.
        width: of the bottleneck.

    Raises:
        UserError: no MLP is found.
    """
    linears = [layer for _, layer in _linears(encoder, reached)]
    found = nn.ModuleList()
    start = 0
    for i, last in enumerate(linears):
        dim, hidden = encoder.dim, last.in_features
        if last.out_features == dim < hidden:
            # What a gate makes has the same input, and may be in one map with what it gates.
            wide = [
                one for one in linears[start:i] if one.in_features == dim and one.out_features in (hidden, 2 * hidden)
            ]
            if wide:
                found.append(_beside(wide[-1], last, Bottleneck(dim, width)))
                start = i + 1
    if not found:
        raise UserError(
            f"adapter.tune=adapters: no MLP of torch.nn.Linear from {encoder.dim} values to more and back is in this "
            "encoder; use tune=all or lora"
        )
    return found


def put_low_rank(encoder: Any, reached: Collection[str], rank: int) -> nn.ModuleList:
    """Adds to each linear map of the blocks on the way to the tokens a product of two of low rank, and gives these.

    LoRA (https://arxiv.org/abs/2106.09685) with alpha = rank, on attention and MLP.

    Args:
        encoder: changed in place.
        reached: as `reached` gives it.
        rank: of the product.

    Raises:
        UserError: there is no such map.
    """
    found = nn.ModuleList()
    for name, layer in _linears(encoder, reached):
        if re.search(r"\.\d+\.", name):  # of a block: one of many
            down, up = nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=False)
            nn.init.zeros_(up.weight)
            found.append(_beside(layer, layer, nn.Sequential(down, up)))
    if not found:
        raise UserError("adapter.tune=lora: no torch.nn.Linear is in blocks of this encoder; use tune=all")
    return found


def _linears(encoder: nn.Module, reached: Collection[str]) -> list[tuple[str, nn.Linear]]:
    # Not what only looks like one: torch's MultiheadAttention reads the weight of its last map and never calls it.
    return [
        (name, layer)
        for name, layer in encoder.named_modules()
        if type(layer) is nn.Linear and f"{name}.weight" in reached
    ]


def _beside(first: nn.Module, last: nn.Module, side: nn.Module) -> nn.Module:
    """Adds to what `last` gives what `side` makes of the input of `first`."""
    held: list[Tensor] = []
    first.register_forward_pre_hook(lambda _, inputs: held.append(inputs[0]))
    last.register_forward_hook(lambda _, inputs, output: output + side(held.pop()))
    return side


def _reached(encoder: Any, device: torch.device) -> frozenset[str]:
    clip = encoder.clip
    values = moved(encoder, device)
    video = torch.zeros(1, clip.frames, 3, clip.size, clip.size, device=device)
    with torch.enable_grad(), eagerly():
        leaves = {name: values[name].requires_grad_() for name, _ in encoder.named_parameters()}
        tokens = functional_call(encoder, values, (video,)).tokens
        grads = torch.autograd.grad(tokens.sum(), list(leaves.values()), allow_unused=True)
    return frozenset(name for name, grad in zip(leaves, grads, strict=True) if grad is not None)
