"""Shared by video models of transformers: padding to whole tubelets, and the outputs of their last blocks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor


def last_states(blocks: Any, x: Tensor, layers: int, *more: Any) -> list[Tensor]:
    """Outputs of the last `layers` blocks, oldest first; `more` are the blocks' arguments after x.

    Raises:
        ValueError: there are not so many blocks.
    """
    if not 1 <= layers <= len(blocks):
        raise ValueError(f"layers={layers}: this encoder has {len(blocks)}")
    return states_of(blocks, x, range(len(blocks) - layers, len(blocks)), *more)[0]


def states_of(blocks: Any, x: Tensor, numbers: Collection[int], *more: Any) -> tuple[list[Tensor], Tensor]:
    """Outputs of the blocks of these numbers, counted from 0, in their order; and the last block's output.

    Raises:
        ValueError: there is no such block.
    """
    if absent := {*numbers} - {*range(len(blocks))}:
        raise ValueError(f"layers: there is no {min(absent)} in this encoder's {len(blocks)}, counted from 0")
    states: list[Tensor] = []
    for number, block in enumerate(blocks):
        x = block(x, *more)
        x = x[0] if isinstance(x, tuple) else x
        if number in numbers:
            states.append(x)
    return states, x


def cover(video: Tensor, tubelet: tuple[int, int, int]) -> tuple[Tensor, tuple[int, int, int]]:
    """Pad a video (B, T, 3, H, W) with its last frame to whole tubelets; returns it and the grid of tubelets.

    Raises:
        ValueError: it is of another shape, or patches do not cover H and W.
    """
    depth, height, width = tubelet
    if video.ndim == 5 and video.shape[2] == 3 and video.shape[1]:
        held = -video.shape[1] % depth
        if held:
            video = torch.cat([video, video[:, -1:].expand(-1, held, -1, -1, -1)], 1)
        grid = video.shape[1] // depth, video.shape[3] // height, video.shape[4] // width
        if all(grid) and not video.shape[3] % height and not video.shape[4] % width:
            return video, grid
    raise ValueError(
        f"video of shape {tuple(video.shape)}: wanted (B, T, 3, H, W) with H a multiple of {height} and W of {width}; "
        "clip.size= sets both"
    )
