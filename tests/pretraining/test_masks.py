"""Masks over the tokens of a clip: how many, where, and by the seed alone."""

import numpy as np
import pytest
import torch

from evalkit.pretraining.masks import Grid, block, token_grid, tube

GRIDS: list[Grid] = [(8, 16, 16), (16, 4, 4), (1, 7, 7), (5, 3, 2), (2, 1, 1), (1, 1, 1)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.65, 0.99])
def test_a_block_mask_leaves_out_the_share_to_the_nearest_token(grid: Grid, ratio: float) -> None:
    steps, places = grid[0], grid[1] * grid[2]
    for seed in range(5):
        masked = block(grid, ratio, np.random.default_rng(seed))
        assert masked.shape == (steps, places) and masked.dtype == torch.bool
        assert int(masked.sum()) == min(round(ratio * steps * places), steps * places - 1)


def test_masks_depend_on_the_seed_alone() -> None:
    for mask in (block, tube):
        one, two, other = (mask((8, 6, 6), 0.65, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, two) and not torch.equal(one, other)


def test_blocks_hang_together_in_space_and_last_in_time() -> None:
    """Neighbors are masked alike far more often than in a mask whose tokens are drawn one by one."""
    grid = (8, 14, 14)
    blocks = torch.stack([block(grid, 0.65, np.random.default_rng(seed)) for seed in range(20)]).view(-1, *grid)
    single = torch.rand(blocks.shape, generator=torch.Generator().manual_seed(0)) < 0.65
    for axis in (1, 2, 3):
        alike = [float((m.narrow(axis, 1, m.shape[axis] - 1) == m.narrow(axis, 0, m.shape[axis] - 1)).float().mean())
                 for m in (blocks, single)]  # fmt: skip
        assert alike[0] > 0.8 > 0.6 > alike[1]


def test_a_tube_is_the_same_places_in_all_steps() -> None:
    masked = tube((6, 4, 4), 0.5, np.random.default_rng(0))
    assert masked.shape == (6, 16) and masked.sum(1).tolist() == [8] * 6
    assert bool((masked == masked[0]).all())
    assert int(tube((6, 1, 1), 0.9, np.random.default_rng(0)).sum()) == 0  # one place is always left


def test_the_grid_counts_a_step_that_frames_do_not_fill() -> None:
    assert token_grid(torch.empty(2, 5, 3, 32, 48), (2, 16, 8)) == (3, 2, 6)
