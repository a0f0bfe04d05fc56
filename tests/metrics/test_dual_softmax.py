"""The dual softmax weighs a similarity by its softmax over all queries, whatever the blocks are."""

import math

import pytest
import torch
import torch.nn.functional as F

from evalkit.metrics import dual_softmax
from evalkit.metrics.dual_softmax import dual_softmax_ranks
from evalkit.metrics.ranks import ranks


def vectors(n: int, m: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    text, video = (F.normalize(torch.randn(k, 6, generator=draw), dim=1) for k in (n, m))
    return text, video, torch.arange(n) % m


@pytest.mark.parametrize("temperature", [0.01, 0.05, 1.0])
def test_ranks_are_those_of_the_weighed_similarities(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual_softmax, "BLOCK_ROWS", 7)
    text, video, of = vectors(20, 10)
    similarity = text.double() @ video.double().T  # (texts, videos), as published: s times its softmax over the queries
    to_video = similarity * (similarity / temperature).softmax(0)
    to_text = similarity.T * (similarity.T / temperature).softmax(0)
    found = dual_softmax_ranks(text, video, of, temperature)
    for i in range(20):
        assert found.t2v[i] == 1 + (to_video[i] > to_video[i, of[i]]).sum()
    for j in range(10):
        best = to_text[j, of == j].max()
        assert found.v2t[j] == 1 + (to_text[j, of != j] > best).sum()


def test_a_video_that_is_near_every_text_gives_way() -> None:
    text, video = torch.eye(2), torch.tensor([[0.9, 0.85], [0.5, 0.8]])  # the first is nearest to both texts
    assert ranks(text, video, torch.arange(2)).t2v.tolist() == [1, 2]
    assert dual_softmax_ranks(text, video, torch.arange(2), 0.01).t2v.tolist() == [1, 1]


def test_equal_videos_tie_and_vectors_that_are_not_finite_are_no_rivals() -> None:
    text, video, of = vectors(4, 4)
    video[1] = video[0]
    found = dual_softmax_ranks(text, video, of, 0.05)
    assert found.t2v[0] % 1 == 0.5
    text[2], video[3] = math.nan, math.inf
    broken = dual_softmax_ranks(text, video, of, 0.05)
    assert broken.t2v.isnan().tolist() == [False, False, True, True]
    assert broken.v2t.isnan().tolist() == [False, False, True, True]
    assert (broken.t2v[:2] <= 3).all()
