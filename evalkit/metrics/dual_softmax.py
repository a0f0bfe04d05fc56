"""Retrieval ranks by the dual softmax, which weighs each similarity by a softmax over all queries of the test."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evalkit.metrics.ranks import Ranks

BLOCK_ROWS = 512  # texts compared with all videos at a time, in float64


@torch.no_grad()
def dual_softmax_ranks(text: Tensor, video: Tensor, of: Tensor, temperature: float) -> Ranks:
    """Rank each query's target by the similarity times the share of that query among all queries of that candidate.

    A text's similarity s to a video is multiplied by the softmax of s / temperature over all texts, and a video's to a
    text by that over all videos (CAMoE, https://arxiv.org/abs/2109.04290; InternVideo2's code): what one query finds
    depends on the other queries of the test. Ties, several texts of a video and vectors that are not finite are as in
    `evalkit.metrics.ranks.ranks`.

    Args:
        text: (n, d) float, one row per caption.
        video: (m, d) float.
        of: (n,) int64, the row of each caption's video.
        temperature: of the softmax, above 0.
    """
    text, video, of = text.detach().cpu().double(), video.detach().cpu().double(), of.cpu()
    known_text, known_video = text.isfinite().all(1), video.isfinite().all(1)
    video = video.where(known_video[:, None], 0)
    per_video = torch.full((len(video),), -math.inf, dtype=torch.float64)  # log of the sum over texts
    per_text = torch.full((len(text),), -math.inf, dtype=torch.float64)
    parts = [slice(start, start + BLOCK_ROWS) for start in range(0, len(text), BLOCK_ROWS)]

    def similarities(rows: slice) -> Tensor:
        block = text[rows].where(known_text[rows, None], 0) @ video.T
        return block.masked_fill(~(known_text[rows, None] & known_video), math.nan)

    for rows in parts:
        scaled = (similarities(rows) / temperature).nan_to_num(nan=-math.inf)
        per_text[rows] = scaled.logsumexp(1)
        per_video = torch.logaddexp(per_video, scaled.logsumexp(0))

    def weighed(rows: slice) -> tuple[Tensor, Tensor]:
        block = similarities(rows)
        return (
            block * (block / temperature - per_video).exp(),
            block * (block / temperature - per_text[rows, None]).exp(),
        )

    target = torch.full((len(text),), math.nan, dtype=torch.float64)
    best = torch.full((len(video),), -math.inf, dtype=torch.float64)
    for rows in parts:
        to_video, to_text = weighed(rows)
        own = of[rows, None]
        target[rows] = to_video.gather(1, own)[:, 0]
        found = to_text.gather(1, own)[:, 0].nan_to_num(nan=-math.inf)
        best.scatter_reduce_(0, of[rows], found, "amax")
    t2v, v2t = torch.zeros_like(target), torch.zeros_like(best)
    for rows in parts:
        to_video, to_text = weighed(rows)
        rival = torch.arange(len(video)) != of[rows, None]
        t2v[rows] = _above(to_video, target[rows, None], rival).sum(1)
        v2t += _above(to_text, best, rival).sum(0)
    return Ranks(
        (1 + t2v).where(target.isfinite(), math.nan),
        (1 + v2t).where(best.isfinite(), math.nan),
    )


def _above(scores: Tensor, target: Tensor, rival: Tensor) -> Tensor:
    """1 where a rival's score is above the target's, 0.5 where they are equal, else 0; NaN is neither."""
    close = torch.isclose(scores, target, rtol=1e-12, atol=0)
    return rival * ((scores > target) & ~close) + 0.5 * (rival & close)
