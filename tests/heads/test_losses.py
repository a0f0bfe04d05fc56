"""The symmetric contrastive loss against its formula, written out pair by pair."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.heads.losses import clip_loss


def vectors(n: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def reference(video: Tensor, text: Tensor, scale: float, same: Tensor) -> float:
    """-log of the share of each right pair among the pairs it competes with, averaged over both directions."""
    weight = (video @ text.T * scale).exp()
    total = 0.0
    for i in range(len(video)):
        texts = [j for j in range(len(text)) if j == i or not same[i, j]]
        videos = [k for k in range(len(video)) if k == i or not same[k, i]]
        total -= math.log(weight[i, i] / weight[i, texts].sum()) + math.log(weight[i, i] / weight[videos, i].sum())
    return total / (2 * len(video))


@pytest.mark.parametrize("negatives", [0, 3])
def test_the_loss_is_that_of_clip_without_the_pairs_that_are_no_negatives(negatives: int) -> None:
    video, text = vectors(5, 0), vectors(5 + negatives, 1)
    same = torch.eye(5, 5 + negatives, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    if negatives:
        same[1, 6] = True
    loss = clip_loss(video, text, torch.tensor(math.log(1 / 0.07)), same)
    assert loss.item() == pytest.approx(reference(video, text, 1 / 0.07, same), rel=1e-6)
    assert same[0, 0]  # the argument stays as it was


def test_the_scale_is_bounded() -> None:
    video, text, same = vectors(4, 0), vectors(4, 1), torch.eye(4, dtype=torch.bool)
    high, bound = (clip_loss(video, text, torch.tensor(math.log(scale)), same) for scale in (1e4, 100.0))
    torch.testing.assert_close(high, bound)


def test_the_loss_has_a_gradient_in_all_that_is_trained() -> None:
    video, text, scale = vectors(3, 0).requires_grad_(), vectors(4, 1).requires_grad_(), torch.zeros(())
    scale.requires_grad_()
    clip_loss(video, text, scale, torch.zeros(3, 4, dtype=torch.bool)).backward()  # type: ignore[no-untyped-call]
    for leaf in (video, text, scale):
        assert leaf.grad is not None and leaf.grad.abs().sum() > 0
