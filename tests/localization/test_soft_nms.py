"""Soft-NMS and voting against plain loops over pairs of segments."""

import math

import pytest
import torch
from torch import Tensor

from evalkit.localization.soft_nms import Candidates, soft_nms, soft_nms_by_class, vote


def segments(n: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    start = torch.rand(n, generator=draw, dtype=torch.float64) * 50
    length = torch.rand(n, generator=draw, dtype=torch.float64) * 20 + 0.1
    return torch.stack([start, start + length], 1), torch.rand(n, generator=draw, dtype=torch.float64)


def iou(a: list[float], b: list[float]) -> float:
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (a[1] - a[0] + b[1] - b[0] - shared)


def by_loops(
    bounds: list[list[float]], scores: list[float], sigma: float, keep: int, least: float
) -> list[tuple[int, float]]:
    left = dict(enumerate(scores))
    kept: list[tuple[int, float]] = []
    while left and len(kept) < keep:
        best = max(left, key=lambda i: left[i])
        score = left.pop(best)
        if score < least:
            break
        kept.append((best, score))
        for i in left:
            left[i] *= math.exp(-(iou(bounds[best], bounds[i]) ** 2) / sigma)
    return kept


@pytest.mark.parametrize(
    ("sigma", "keep", "least"),
    [(0.5, 200, 0.001), (0.75, 100, 0.001), (0.8, 100, 0.0), (0.1, 200, 0.2)],
    ids=["ActionFormer on THUMOS14", "ActionFormer on ActivityNet", "G-TAD", "few are left"],
)
def test_soft_nms_is_that_of_a_loop(sigma: float, keep: int, least: float) -> None:
    for seed in range(3):
        bounds, scores = segments(150, seed)
        index, reduced = soft_nms(bounds, scores, sigma, keep, least)
        expected = by_loops(bounds.tolist(), scores.tolist(), sigma, keep, least)
        assert index.tolist() == [i for i, _ in expected]
        assert reduced.tolist() == pytest.approx([score for _, score in expected], rel=1e-9)
        assert scores.equal(segments(150, seed)[1])  # the argument stays as it was


def test_classes_do_not_suppress_each_other() -> None:
    bounds, _ = segments(60, 0)
    scores = torch.stack([segments(60, seed)[1] for seed in (1, 2)], 1)
    scores[::3, 0] = 0
    kept, reduced, classes = soft_nms_by_class(Candidates(bounds, scores), 0.5, keep=40, min_score=0.01)
    rows = [
        (score, c, bounds[i].tolist())
        for c in range(2)
        for i, score in by_loops(bounds.tolist(), scores[:, c].tolist(), 0.5, 40, 0.01)
    ]
    expected = sorted(rows, reverse=True)[:40]
    assert reduced.tolist() == pytest.approx([score for score, _, _ in expected], rel=1e-9)
    assert classes.tolist() == [c for _, c, _ in expected]
    assert kept.tolist() == [segment for _, _, segment in expected]


def test_segments_move_to_the_mean_of_their_voters() -> None:
    bounds, scores = segments(80, 0)
    kept = bounds[:10]
    moved = vote(kept, Candidates(bounds, scores), 0.3)
    for segment, mean in zip(kept.tolist(), moved.tolist(), strict=True):
        votes = []
        for other, score in zip(bounds.tolist(), scores.tolist(), strict=True):
            if iou(segment, other) >= 0.3:
                votes.append((iou(segment, other) * score, other))
        total = sum(weight for weight, _ in votes)
        assert mean == pytest.approx([sum(weight * other[side] for weight, other in votes) / total for side in (0, 1)])
    assert not torch.allclose(moved, kept)


def test_no_candidates_are_no_segments() -> None:
    none = Candidates(torch.zeros(0, 2), torch.zeros(0, 3))
    assert [len(part) for part in soft_nms_by_class(none, 0.5, 100)] == [0, 0, 0]
    assert [len(part) for part in soft_nms(none.bounds, none.scores[:, 0], 0.5, 100)] == [0, 0]
    index, _ = soft_nms(torch.tensor([[3.0, 3.0], [3.0, 3.0]]), torch.tensor([0.2, 0.0]), 0.5, 100)
    assert index.tolist() == [0]  # no length is no overlap, and no score is no candidate
