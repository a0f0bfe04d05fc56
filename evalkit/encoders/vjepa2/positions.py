"""Positions of V-JEPA: version 1's table of fixed sines and cosines of time, row and column; 2.1's rotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# Half of the width for time and a quarter each for row and column; or a third each, the authors' `uniform_power`, as in
# the configurations of their published models.
Kind = Literal["sincos", "sincos_uniform"]
KINDS: tuple[Kind, Kind] = ("sincos", "sincos_uniform")
TOLERANCE = 4e-3  # of a value between -1 and 1 that was rounded to bfloat16


def table(kind: Kind, dim: int, times: int, side: int) -> Tensor:
    """The table (T', S, S, D), float32, of T' times and S rows and columns.

    Raises:
        ValueError: it cannot be D wide.
    """
    shape = (times, side, side)
    parts = [
        _waves(count, width).view(*(-1 if place == axis else 1 for place in range(3)), width).expand(*shape, width)
        for axis, (count, width) in enumerate(zip(shape, _widths(kind, dim), strict=True))
    ]
    return torch.cat(parts, -1)[..., :dim].float()


def recognize(stored: Tensor) -> tuple[Kind, int, int] | None:
    """Kind, T' and S of a table as files hold it, (1, T' x S x S, D); None where it is none."""
    if stored.ndim != 3 or len(stored) != 1 or not stored.numel():
        return None
    rows, dim = stored[0].float(), stored.shape[2]
    for kind in KINDS:
        try:
            _widths(kind, dim)
        except ValueError:
            continue
        for side in range(1, math.isqrt(len(rows)) + 1):
            times, rest = divmod(len(rows), side**2)
            if not rest and torch.allclose(rows, table(kind, dim, times, side).view(-1, dim), rtol=0, atol=TOLERANCE):
                return kind, times, side
    return None


def resized(positions: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """A table (T', S, S, D) as positions (1, N, D) of another grid, interpolated as in the authors' code."""
    if tuple(positions.shape[:3]) != grid:
        positions = F.interpolate(positions.movedim(-1, 0)[None], size=grid, mode="trilinear")[0].movedim(0, -1)
    return positions.reshape(1, -1, positions.shape[-1])


def turned(side: int, qk: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Queries or keys (B, heads, N, D) after V-JEPA 2.1's rotations, as transformers' blocks of V-JEPA 2 ask for them.

    A third of the width each is turned by time, row and column, in pairs of neighbors that share an angle; rows and
    columns of any grid go from 0 to `side` - 1, those of the square that it was trained on first.

    Args:
        side: rows and columns of that square.
        qk: queries or keys.
        places: whole numbers from 0 of each token's time, row and column, (1, heads, N).
    """
    width = 2 * (qk.shape[-1] // 3 // 2)
    speeds = 10_000.0 ** -(torch.arange(width // 2, dtype=qk.dtype, device=qk.device) / (width / 2))
    parts = []
    for axis, numbers in enumerate(places):
        place = numbers.to(qk.dtype)
        if axis:
            place = place * (side - 1) / place.max().clamp(min=1)
        angles = (place[..., None] * speeds).repeat_interleave(2, -1)
        part = qk[..., axis * width : (axis + 1) * width]
        across = torch.stack([-part[..., 1::2], part[..., ::2]], -1).flatten(-2)
        parts.append(part * angles.cos() + across * angles.sin())
    return torch.cat([*parts, qk[..., 3 * width :]], -1)


def unturned(qk: Tensor, places: object) -> Tensor:
    """Unchanged queries or keys, replacing transformers' rotation."""
    return qk


def _widths(kind: Kind, dim: int) -> tuple[int, int, int]:
    """Of the part for time, row and column; what is more than D together is cut off."""
    if kind == "sincos_uniform":
        third = 2 * math.ceil(dim / 6)
        return third, third, third
    if dim % 8:
        raise ValueError(f"positions=sincos: wanted a width that is a multiple of 8, not {dim}")
    return dim // 2, dim // 4, dim // 4


def _waves(count: int, width: int) -> Tensor:
    """Sines, then cosines, (count, width) of the numbers from 0, float64."""
    speeds = 10_000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = torch.arange(count, dtype=torch.float64)[:, None] * speeds
    return torch.cat([angles.sin(), angles.cos()], 1)
