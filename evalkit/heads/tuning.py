"""Parameter-efficient tuning of any encoder family: bottleneck adapters (AdaptFormer) and low-rank terms (LoRA).

The encoder's weights and their names stay as they are: hooks add the outputs of the new layers, which are zero until
these are trained.
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
    """Bottleneck adapter over tokens (..., D): down, ReLU, up, times a learned scale."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        self.scale = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x).relu()) * self.scale  # type: ignore[no-any-return]


def tuned_layers(encoder: Any) -> frozenset[str]:
    """Names of the parameters that the encoder's tokens depend on: not those of a text tower or of a pooling head.

    Found by a backward pass on the meta device, which computes nothing; on the encoder's own device where its code
    needs values.
    """
    try:
        return _reached(encoder, torch.device("meta"))
    except UserError:
        raise
    except Exception:  # whatever its code raises
        return _reached(encoder, next(encoder.parameters()).device)


def put_bottlenecks(encoder: Any, reached: Collection[str], width: int) -> nn.ModuleList:
    """Add a bottleneck parallel to each MLP on the way to the tokens, and return the bottlenecks.

    AdaptFormer's place (https://arxiv.org/abs/2205.13535). An MLP is a linear map that widens the tokens and the
    next one back to their width.

    Args:
        encoder: changed in place.
        reached: names of parameters, from `tuned_layers`.
        width: hidden width of a bottleneck.

    Raises:
        UserError: no MLP is found.
    """
    linears = [layer for _, layer in _linears(encoder, reached)]
    bottlenecks = nn.ModuleList()
    start = 0
    for i, last in enumerate(linears):
        dim, hidden = encoder.dim, last.in_features
        if last.out_features == dim < hidden:
            # A gated MLP (SwiGLU) has two widening maps of the same input, or both in one map of twice the width.
            widening = [
                layer
                for layer in linears[start:i]
                if layer.in_features == dim and layer.out_features in (hidden, 2 * hidden)
            ]
            if widening:
                bottlenecks.append(_add_parallel(widening[-1], last, Bottleneck(dim, width)))
                start = i + 1
    if not bottlenecks:
        raise UserError(
            f"adapter.tune=adapters: no MLP of torch.nn.Linear from {encoder.dim} values to more and back is in this "
            "encoder; use tune=all or lora"
        )
    return bottlenecks


def put_low_rank(encoder: Any, reached: Collection[str], rank: int) -> nn.ModuleList:
    """Add a low-rank term to each linear map of the blocks on the way to the tokens, and return the terms.

    LoRA on attention and MLP; see `add_low_rank`.

    Args:
        encoder: changed in place.
        reached: names of parameters, from `tuned_layers`.
        rank: of each term.

    Raises:
        UserError: there is no such map.
    """
    terms = nn.ModuleList(
        add_low_rank(layer, rank)
        for name, layer in _linears(encoder, reached)
        if re.search(r"\.\d+\.", name)  # of a block: one of many
    )
    if not terms:
        raise UserError("adapter.tune=lora: no torch.nn.Linear is in blocks of this encoder; use tune=all")
    return terms


def add_low_rank(layer: nn.Linear, rank: int) -> nn.Sequential:
    """Add up(down(x)) to a linear map's output, and return (down, up), which the layer's state_dict does not hold.

    LoRA (https://arxiv.org/abs/2106.09685) with alpha = rank; `up` starts at zero.
    """
    down, up = nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=False)
    nn.init.zeros_(up.weight)
    term = nn.Sequential(down, up)
    _add_parallel(layer, layer, term)
    return term


def _linears(encoder: nn.Module, reached: Collection[str]) -> list[tuple[str, nn.Linear]]:
    # No subclasses: torch's MultiheadAttention reads the weight of its output map and never calls it.
    return [
        (name, layer)
        for name, layer in encoder.named_modules()
        if type(layer) is nn.Linear and f"{name}.weight" in reached
    ]


class _Parallel:
    """Two hooks that share an input: an object, not closures, so that copy.deepcopy gives a copy its own branch."""

    def __init__(self, branch: nn.Module) -> None:
        self.branch, self.inputs = branch, list[Tensor]()

    def store_input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.inputs.append(inputs[0])

    def add_output(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + self.branch(self.inputs.pop())  # type: ignore[no-any-return]


def _add_parallel(first: nn.Module, last: nn.Module, branch: nn.Module) -> nn.Module:
    """Add to the output of `last` the branch's output for the input of `first`; returns the branch."""
    hooks = _Parallel(branch)
    first.register_forward_pre_hook(hooks.store_input)
    last.register_forward_hook(hooks.add_output)
    return branch


def _reached(encoder: Any, device: torch.device) -> frozenset[str]:
    clip = encoder.clip
    values = moved(encoder, device)
    video = torch.zeros(1, clip.frames, 3, clip.size, clip.size, device=device)
    with torch.enable_grad(), eagerly():
        leaves = {name: values[name].requires_grad_() for name, _ in encoder.named_parameters()}
        tokens = functional_call(encoder, values, (video,)).tokens
        grads = torch.autograd.grad(tokens.sum(), list(leaves.values()), allow_unused=True)
    return frozenset(name for name, grad in zip(leaves, grads, strict=True) if grad is not None)
