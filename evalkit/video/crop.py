"""Spatial crops: frames -> square uint8 views of a task, or of an augmented view."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evalkit.api import Augment
from evalkit.video.augment import crop_box


def cut_crops(frame: Tensor, size: int, resize: Literal["crop", "squash"], crops: int, share: float = 1.0) -> Tensor:
    """Square crops (crops, 3, size, size) of one frame (H, W, 3), both uint8; share as in `evalkit.api.Views`."""
    height, width = frame.shape[:2]
    if resize == "squash":
        shape = (size, size)
    else:
        short, wanted = min(height, width), int(size / share)
        shape = (max(wanted, height * wanted // short), max(wanted, width * wanted // short))
    scaled = frame.permute(2, 0, 1)[None]
    if shape != (height, width):
        scaled = interpolate(scaled, shape, mode="bilinear", antialias=True)
    down, right = shape[0] - size, shape[1] - size
    parts = [0.5] if crops == 1 else [0.0, 0.5, 1.0]
    corners = [(round(down * part), round(right * part)) for part in parts]
    return torch.cat([scaled[..., top : top + size, left : left + size] for top, left in corners])


def augmented_crop(
    frame: Tensor,
    size: int,
    resize: Literal["crop", "squash"],
    share: float,
    augment: Augment,
    stream: Callable[[Literal["crop", "flip"]], random.Random],
) -> Tensor:
    """Random crop (1, 3, size, size) of one frame (H, W, 3), both uint8, the same for all frames of a view.

    Args:
        augment: how views differ.
        stream: makes the random numbers of one part of the view, the same at each call.
    """
    if augment.area != (1, 1):
        height, width, _ = frame.shape
        top, left, height, width = crop_box(height, width, augment, stream("crop"))
        frame, resize = frame[top : top + height, left : left + width], "squash"
    crop = cut_crops(frame, size, resize, 1, share)
    mirrored = augment.flip and stream("flip").random() < 0.5
    return crop.flip(-1) if mirrored else crop
