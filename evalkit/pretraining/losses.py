"""Losses of masked video modeling: the cosine to a teacher's vectors, and the squared error of pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - cosine, a scalar in 0..2, over vectors (..., D)."""
    predicted, target = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (predicted, target))
    return (1 - F.cosine_similarity(predicted, target, dim=-1)).mean()


def patches(video: Tensor, tubelet: tuple[int, int, int]) -> Tensor:
    """Pixels (B, N, values) of each token of a video (B, T, C, H, W), in frames, rows, columns and channels.

    A video whose frames do not fill the last token holds its last frame.

    Args:
        video: of any dtype.
        tubelet: frames, height and width of a token in pixels.
    """
    t, h, w = tubelet
    if missing := -video.shape[1] % t:
        video = torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
    batch, frames, channels, height, width = video.shape
    boxes = video.reshape(batch, frames // t, t, channels, height // h, h, width // w, w)
    return boxes.permute(0, 1, 4, 6, 2, 5, 7, 3).flatten(4).flatten(1, 3)


def pixel_error(predicted: Tensor, pixels: Tensor, masked: Tensor) -> Tensor:
    """Mean squared error, a scalar, of the masked tokens' pixels, as in MAE (https://arxiv.org/abs/2111.06377).

    Args:
        predicted: (B, N, values).
        pixels: (B, N, values); those of each token are scaled to mean 0 and variance 1.
        masked: (B, N) bool; the same number in each clip.
    """
    wanted = F.layer_norm(pixels.to(predicted.dtype), pixels.shape[-1:], eps=1e-6)
    return (predicted - wanted).square().mean(-1)[masked].mean()
