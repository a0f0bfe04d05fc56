"""Masks over the tokens of a clip, for encoders that take `masked`: tubes and blocks."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

Grid = tuple[int, int, int]  # T', H', W': time steps, rows and columns of tokens

LEAST_AREA = 16 / 196  # of a block, as a share of the frame, as in BEiT
ASPECT = 0.3  # the smallest ratio of a block's height to its width; the largest is its inverse


def token_grid(video: Tensor, tubelet: tuple[int, int, int]) -> Grid:
    """The grid of tokens of a video (B, T, C, H, W), of which each is so many frames, rows and columns of pixels."""
    t, h, w = tubelet
    return -(-video.shape[1] // t), video.shape[3] // h, video.shape[4] // w


def tube(grid: Grid, ratio: float, rng: np.random.Generator) -> Tensor:
    """Mask (T', H' W') of one clip, true where a token is left out: the same places in all time steps.

    Args:
        grid: of the tokens.
        ratio: share of the places that is masked, 0..1, to the nearest place; one is always left.
        rng: what draws the places.
    """
    steps, places = grid[0], grid[1] * grid[2]
    masked = np.zeros(places, dtype=bool)
    masked[rng.permutation(places)[: _count(places, ratio)]] = True
    return torch.from_numpy(masked).expand(steps, -1)


def block(grid: Grid, ratio: float, rng: np.random.Generator) -> Tensor:
    """Mask (T', H' W') of one clip, true where a token is left out: blocks that last several time steps.

    A block is a rectangle of tokens in the same place of consecutive steps, the rectangle drawn as in BEiT
    (https://arxiv.org/abs/2106.08254) and the number of steps and the first one at random, as in BEVT
    (https://arxiv.org/abs/2112.01529). Blocks are added until the share is reached. Of the last one, the last steps and
    rows are left as they were, so that clips of one grid have equally many tokens masked.

    Args:
        grid: of the tokens.
        ratio: share of the tokens that is masked, 0..1, to the nearest token; one is always left.
        rng: what draws the blocks.
    """
    steps, rows, columns = grid
    masked = np.zeros(grid, dtype=bool)
    missing = _count(masked.size, ratio)
    while missing:
        area = rows * columns * rng.uniform(LEAST_AREA, max(LEAST_AREA, ratio))
        aspect = math.exp(rng.uniform(math.log(ASPECT), -math.log(ASPECT)))
        lengths = int(rng.integers(1, steps + 1)), round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        within = []
        for size, length in zip(grid, lengths, strict=True):
            length = min(max(1, length), size)
            first = int(rng.integers(0, size - length + 1))
            within.append(slice(first, first + length))
        added = np.zeros_like(masked)
        added[tuple(within)] = True
        places = np.flatnonzero(added & ~masked)[:missing]
        masked.reshape(-1)[places] = True
        missing -= len(places)
    return torch.from_numpy(masked.reshape(steps, rows * columns))


def _count(size: int, ratio: float) -> int:
    """How many of so many are masked."""
    return min(round(size * ratio), size - 1)
