"""Features as bytes: dtypes as they are, or int8 with a scale per vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from evalkit.errors import UserError

# Their order is part of the format.
DTYPES = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
_PLAIN, _INT8 = 0, 1
# Rows whose largest magnitude is below INT8_LEAST become zeros; above INT8_MOST they are refused.
INT8_LEAST, INT8_MOST = 1e-30, 1e38

Layout = Literal["given", "int8"]


def as_stored(tensor: Tensor, layout: Layout) -> Tensor:
    """A tensor on the CPU as `Store.put` and `find` give it.

    Raises:
        UserError: the layout cannot hold the values.
    """
    return tensor if layout == "given" else unpack(*pack(tensor, layout), tensor.shape)


def pack(tensor: Tensor, layout: Layout) -> tuple[Tensor, torch.dtype, int]:
    """A tensor's bytes, uint8 (n,), with the dtype in which they are read and the layout's code.

    Args:
        tensor: contiguous, on the CPU, of at most six dimensions.
        layout: `given` or `int8`, as `Store.put` describes them.

    Raises:
        UserError: the layout cannot hold the values.
    """
    if tensor.ndim > 6:
        raise ValueError(f"a stored tensor has at most 6 dimensions, this one {tensor.ndim}")
    if layout == "given":
        return _as_bytes(tensor), tensor.dtype, _PLAIN
    rows = tensor.float().reshape(-1, _row_width(tensor.shape))
    largest = rows.abs().amax(1, keepdim=True)
    if not bool((largest <= INT8_MOST).all()):  # NaN compares as false
        raise UserError(f"layout int8 holds finite values up to {INT8_MOST:g}: use another layout for this encoder")
    scale = torch.where(largest >= INT8_LEAST, largest / 127, 0)
    whole = torch.where(scale > 0, rows / scale, 0).round_().clamp_(-127, 127).to(torch.int8)
    return torch.cat([_as_bytes(scale), _as_bytes(whole)]), torch.float32, _INT8


def unpack(payload: Tensor, dtype: torch.dtype, code: int, shape: Sequence[int]) -> Tensor:
    """The tensor of the bytes that `pack` gave; with layout `given` it shares their memory."""
    if code == _PLAIN:
        return payload.view(dtype).reshape(shape)
    width = _row_width(shape)
    rows = len(payload) // (4 + width)
    scale, whole = payload[: 4 * rows].view(torch.float32), payload[4 * rows :].view(torch.int8)
    return (whole.view(rows, width).float() * scale.view(rows, 1)).reshape(shape)


def _row_width(shape: Sequence[int]) -> int:
    """The length of one vector of a tensor of this shape: its last dimension, at least 1."""
    return max(1, shape[-1]) if shape else 1


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.flatten().view(torch.uint8)
