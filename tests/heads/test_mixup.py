"""Mixed videos are what the papers' formulas say, counted pixel by pixel, and their targets weigh what is seen."""

import numpy as np
import pytest
import torch
from torch import Tensor

from evalkit.heads.mixup import mix_batch


def batch() -> tuple[Tensor, Tensor]:
    """Four videos whose every value is their number, and a class each."""
    return torch.arange(1.0, 5.0).view(4, 1, 1, 1, 1).expand(4, 3, 2, 10, 20).clone(), torch.eye(4)


def mixed(mixup: float, cutmix: float, seed: int) -> tuple[Tensor, Tensor]:
    return mix_batch(*batch(), mixup, cutmix, np.random.default_rng(seed))


def test_without_alphas_nothing_is_mixed() -> None:
    video, target = mixed(0, 0, 0)
    assert torch.equal(video, batch()[0]) and torch.equal(target, batch()[1])


@pytest.mark.parametrize("seed", range(20))
def test_mixup_adds_the_mirrored_batch_by_one_lambda_from_a_beta_distribution(seed: int) -> None:
    share = float(np.random.default_rng(seed).beta(0.8, 0.8))
    video, target = mixed(0.8, 0, seed)
    for own in range(4):
        other = 3 - own
        assert torch.allclose(video[own], torch.tensor(share * (own + 1) + (1 - share) * (other + 1)), atol=1e-6)
        wanted = torch.zeros(4)
        wanted[own], wanted[other] = share, 1 - share
        assert torch.allclose(target[own], wanted, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_puts_one_box_into_every_frame_and_weighs_targets_by_what_is_seen(seed: int) -> None:
    plain = batch()[0]
    video, target = mixed(0, 1.0, seed)
    places = video != plain
    assert torch.equal(places[0, 0, 0], places[3, 2, 1])  # the same box in every video, frame and channel
    rows, columns = places[0, 0, 0].any(1).nonzero(), places[0, 0, 0].any(0).nonzero()
    if len(rows):
        box = places[0, 0, 0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.all() and box.sum() == places[0, 0, 0].sum()
        assert set(video[0][places[0]].tolist()) == {4.0}
    assert torch.allclose(target.sum(1), torch.ones(4))
    assert target[0, 3].item() == pytest.approx(places[0, 0, 0].double().mean().item(), abs=1e-6)


def test_boxes_are_as_large_as_an_even_lambda_and_the_edges_make_them() -> None:
    seen = torch.tensor([mixed(0, 1.0, seed)[1][0, 3].item() for seed in range(400)])
    # A box around an even point keeps 1 - sqrt(a) / 4 of each side: of a = 1 - lambda, even in 0..1, that leaves
    # the mean of a (1 - sqrt(a) / 4)^2, which is 1/2 - 1/5 + 1/48.
    assert seen.mean().item() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.05)


def test_with_both_each_batch_is_mixed_by_one_with_even_odds() -> None:
    blended = sum(len(set(mixed(0.8, 1.0, seed)[0][0].flatten().tolist())) == 1 for seed in range(200))
    assert 70 < blended < 140  # an empty or a whole box looks blended too


def test_the_same_seed_mixes_alike_and_the_given_video_stays() -> None:
    first, again = mixed(0.8, 1.0, 5), mixed(0.8, 1.0, 5)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    video, target = batch()
    mix_batch(video, target, 0, 1.0, np.random.default_rng(3))
    assert torch.equal(video, batch()[0]) and torch.equal(target, batch()[1])
