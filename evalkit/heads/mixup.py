"""MixUp and CutMix: training videos mixed of two, with soft targets."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor


def mix_batch(
    video: Tensor, target: Tensor, mixup: float, cutmix: float, draw: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each video (B, T, C, H, W), and its target (B, C), with the one at the mirrored place of the batch.

    MixUp (https://arxiv.org/abs/1710.09412) adds lambda of the one to 1 - lambda of the other; CutMix
    (https://arxiv.org/abs/1905.04899) puts a box of the other, 1 - lambda of the frame, into all frames of the one, and
    targets go by the share that lies within the frame. Lambda is drawn once per batch from Beta(alpha, alpha), and
    where both are on, one of them with even odds. VideoGLUE's code draws lambda for each example, evenly whatever alpha
    is, and does not count what a box loses at the edges.

    Args:
        video: of any float dtype.
        target: of any float dtype; probabilities of classes, or multi-hot.
        mixup: alpha; 0 for none.
        cutmix: alpha; 0 for none.
        draw: advanced by four numbers at most.
    """
    cut = bool(cutmix) and (not mixup or draw.random() < 0.5)
    if not (mixup or cutmix):
        return video, target
    alpha = cutmix if cut else mixup
    share = float(draw.beta(alpha, alpha))
    other = video.flip(0)
    if cut:
        top, bottom, left, right = _box(video.shape[-2], video.shape[-1], 1 - share, draw)
        video = video.clone()
        video[..., top:bottom, left:right] = other[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (video.shape[-2] * video.shape[-1])
    else:
        video = share * video + (1 - share) * other
    return video, share * target + (1 - share) * target.flip(0)


def _box(height: int, width: int, area: float, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a box of the frame's shape around a uniform point: top, bottom, left, right, clipped to the frame."""
    tall, wide = int(height * math.sqrt(area)), int(width * math.sqrt(area))
    y, x = int(draw.integers(height)), int(draw.integers(width))
    return (
        max(0, y - tall // 2),
        min(height, y + tall // 2),
        max(0, x - wide // 2),
        min(width, x + wide // 2),
    )
