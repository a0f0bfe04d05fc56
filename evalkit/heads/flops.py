"""Operations of one clip in the layers that hold trained weights, as the papers count the cost of training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from evalkit.heads.adapter import Adapter


def moved(module: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """A module's parameters and buffers on a device by name, to call it with; on `meta` they are shapes only."""
    values = (*module.named_parameters(), *module.named_buffers())
    return {name: value.detach().to(device) for name, value in values}


def trainable_flops(adapter: Adapter, encoder: nn.Module, frames: int, size: int) -> int | None:
    """`Adapter.flops` for one clip of a run; None where it counts nothing, or the encoder needs values for it."""
    meta = torch.device("meta")

    def encode(*args: Tensor, **more: Any) -> Any:
        return functional_call(encoder, moved(encoder, meta), args, more)

    try:
        with torch.no_grad(), eagerly():
            return adapter.flops(encode, torch.empty(1, frames, 3, size, size, device=meta))
    except Exception:  # whatever an encoder of the user's own raises that looks at values
        return None


def eagerly() -> Any:
    """A context in which compiled modules run as they were written, since what is called here is called once."""
    return torch.compiler.set_stance("force_eager")


def trained_flops(module: nn.Module, *inputs: Tensor) -> int:
    """Forward operations, two per multiply-add, in the layers of a module that hold parameters that are trained.

    A layer whose parameters are all trained counts with all that it computes, such as the products of an attention.
    Nothing is computed here: the inputs are on the device `meta`.
    """
    total = depth = before = 0

    def enter(*_: Any) -> None:
        nonlocal depth, before
        before = before if depth else counter.get_total_flops()
        depth += 1

    def leave(*_: Any) -> None:
        nonlocal depth, total
        depth -= 1
        total += 0 if depth else counter.get_total_flops() - before

    trained = [part for part in module.modules() if _trained(part)]
    hooks = [part.register_forward_pre_hook(enter, prepend=True) for part in trained]
    hooks += [part.register_forward_hook(leave) for part in trained]
    try:
        with torch.no_grad(), eagerly(), FlopCounterMode(display=False) as counter:
            functional_call(module, moved(module, torch.device("meta")), inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def _trained(part: nn.Module) -> bool:
    """Whether a layer trains a parameter of its own, or all that are in it."""
    if any(parameter.requires_grad for parameter in part.parameters(recurse=False)):
        return True
    within = [parameter.requires_grad for parameter in part.parameters()]
    return bool(within) and all(within)
