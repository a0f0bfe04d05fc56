"""What video models of transformers share: tubelets that cover a video, and the states of their last blocks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor


def last_states(blocks: Any, x: Tensor, layers: int, *more: Any) -> list[Tensor]:
    """What the last `layers` blocks give, oldest first; `more` is what each of them takes beside x.

    Raises:
        ValueError: there are not so many blocks.
    """
    if not 1 <= layers <= len(blocks):
        raise ValueError(f"layers={layers}: this encoder has {len(blocks)}")
    return states_of(blocks, x, range(len(blocks) - layers, len(blocks)), *more)[0]


def states_of(blocks: Any, x: Tensor, numbers: Collection[int], *more: Any) -> tuple[list[Tensor], Tensor]:
    """What the blocks of these numbers give, counted from 0, in their order; and what the last block gives.

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
    """The video (B, T, 3, H, W) with its last frame held until tubelets fill it, and how many fit in each direction.

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
