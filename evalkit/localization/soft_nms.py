"""Candidate segments in time, and soft non-maximum suppression (https://arxiv.org/abs/1704.04503) of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Candidates(NamedTuple):
    """Segments that a head proposes for one example.

    Attributes:
        bounds: (P, 2), start and end in steps of the sequence; they may lie past its ends.
        scores: (P,) of a head without classes, (P, C) of one with classes; in 0..1, where 0 is no candidate.
    """

    bounds: Tensor
    scores: Tensor


def soft_nms(bounds: Tensor, scores: Tensor, sigma: float, keep: int, min_score: float = 0.0) -> tuple[Tensor, Tensor]:
    """Segments from the best to the worst, each score reduced by the overlap with better ones.

    A score is multiplied by exp(-IoU^2 / sigma) for every better segment: ActionFormer's Gaussian form, and G-TAD's,
    whose alpha is sigma and which has no least score.

    Args:
        bounds: (P, 2) start and end.
        scores: (P,) positive.
        sigma: the lower, the more an overlap costs.
        keep: segments at most.
        min_score: a segment whose reduced score is lower is left out, as are those with no score above 0.

    Returns:
        Indices (K,) into the P segments, and their reduced scores (K,), descending.
    """
    scores = scores.clone()
    kept: list[int] = []
    reduced: list[float] = []
    while len(kept) < min(keep, len(scores)):
        best = int(scores.argmax())
        score = float(scores[best])
        if score <= 0 or score < min_score:
            break
        kept.append(best)
        reduced.append(score)
        scores *= torch.exp(-(_iou(bounds[best : best + 1], bounds)[0] ** 2) / sigma)
        scores[best] = 0
    return torch.tensor(kept, dtype=torch.int64, device=scores.device), scores.new_tensor(reduced)


def soft_nms_by_class(
    candidates: Candidates, sigma: float, keep: int, min_score: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The best segments of all classes, where segments of different classes do not suppress each other.

    Args:
        candidates: with scores (P, C).
        sigma: as in `soft_nms`.
        keep: segments at most, over all classes.
        min_score: as in `soft_nms`.

    Returns:
        Bounds (K, 2), reduced scores (K,), descending, and classes (K,).
    """
    bounds, scores, classes = [candidates.bounds[:0]], [candidates.scores[:0, 0]], []
    for column, of_class in enumerate(candidates.scores.unbind(1)):
        proposed = of_class.nonzero()[:, 0]
        kept, reduced = soft_nms(candidates.bounds[proposed], of_class[proposed], sigma, keep, min_score)
        bounds.append(candidates.bounds[proposed[kept]])
        scores.append(reduced)
        classes += [column] * len(kept)
    best = torch.cat(scores).argsort(descending=True, stable=True)[:keep]
    return torch.cat(bounds)[best], torch.cat(scores)[best], torch.tensor(classes, device=best.device).long()[best]


def vote(bounds: Tensor, candidates: Candidates, threshold: float) -> Tensor:
    """Segments (K, 2) moved to the mean of the candidates that overlap them, weighted by score times IoU.

    Args:
        bounds: (K, 2), some of the candidates'.
        candidates: with scores (P,), as they were before `soft_nms`.
        threshold: least IoU of a candidate that is counted.
    """
    iou = _iou(bounds, candidates.bounds)
    weights = (iou >= threshold) * iou * candidates.scores
    return (weights / weights.sum(1, keepdim=True)) @ candidates.bounds


def _iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of each of K segments with each of P: (K, P), 0 where neither has a length."""
    shared = torch.minimum(first[:, None, 1], second[:, 1]) - torch.maximum(first[:, None, 0], second[:, 0])
    shared = shared.clamp_min(0)
    lengths = (first[:, 1] - first[:, 0])[:, None] + second[:, 1] - second[:, 0]
    return shared / (lengths - shared).clamp_min(1e-8)
