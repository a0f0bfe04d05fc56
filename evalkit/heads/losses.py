"""Losses that several adapters train with."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_SCALE = 100.0  # CLIP's bound on the learned inverse temperature


def clip_loss(video: Tensor, text: Tensor, log_scale: Tensor, same: Tensor) -> Tensor:
    """Symmetric cross-entropy of CLIP (https://arxiv.org/abs/2103.00020) over a batch of videos and their texts.

    Args:
        video: (B, D), of length 1.
        text: (N, D), of length 1; the first B are the videos' own, the others further negatives of the videos.
        log_scale: scalar, log of the inverse temperature, which is bounded by 100.
        same: (B, N) bool, true where a text is right for a video, or equal to its own text; off the diagonal such
            pairs are left out, since they are no negatives.

    Returns:
        The mean of both directions' losses, a scalar.
    """
    logits = video @ text.T * log_scale.exp().clamp(max=MAX_SCALE)
    diagonal = torch.eye(*same.shape, dtype=torch.bool, device=same.device)
    logits = logits.masked_fill((same & ~diagonal).to(logits.device), -math.inf)
    target = torch.arange(len(video), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, : len(video)].T, target)) / 2
