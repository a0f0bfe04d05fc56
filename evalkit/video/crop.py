"""Spatial crops: frames -> square uint8 views of a task, or of an augmented view."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evalkit.api import Augment, Center, Clip, Interpolation, Resize
from evalkit.video.augment import crop_box


def check_clip(clip: Clip) -> Clip:
    """The clip, once its numbers are ones that frames can be shown by.

    Raises:
        ValueError: one is out of its bounds, or mean, std or value_range have not as many numbers as they need.
    """
    if not (clip.frames > 0 and clip.size > 0):
        raise ValueError(f"frames={clip.frames}, size={clip.size}: wanted at least 1 of both")
    if not 0 < clip.share <= 1:
        raise ValueError(f"share={clip.share}: wanted above 0 and up to 1")
    for name, wanted in (("mean", 3), ("std", 3), ("value_range", 2)):
        numbers = getattr(clip, name)
        if len(numbers) != wanted or not all(map(math.isfinite, numbers)):
            raise ValueError(f"{name}={numbers}: wanted {wanted} numbers that are finite")
    if not all(value > 0 for value in clip.std):
        raise ValueError(f"std={clip.std} is not above 0")
    return clip


def cut_crops(
    frame: Tensor,
    size: int,
    resize: Resize,
    crops: int,
    share: float = 1.0,
    interpolation: Interpolation = "bilinear",
    center: Center = "nearest",
) -> Tensor:
    """Square crops (crops, 3, size, size) of one frame (H, W, 3), both uint8.

    The other arguments are as in `evalkit.api.Clip`; `squash` cuts nothing, whatever the share.
    """
    height, width = frame.shape[:2]
    wanted = size if resize == "squash" else int(size / share)
    if resize == "crop":
        short = min(height, width)
        shape = (max(wanted, height * wanted // short), max(wanted, width * wanted // short))
    else:
        shape = (wanted, wanted)
    scaled = frame.permute(2, 0, 1)[None]
    if shape != (height, width):
        scaled = interpolate(scaled, shape, mode=interpolation, antialias=True)
    down, right = shape[0] - size, shape[1] - size
    parts = [0.5] if crops == 1 else [0.0, 0.5, 1.0]
    whole = round if center == "nearest" else int
    corners = [(whole(down * part), whole(right * part)) for part in parts]
    return torch.cat([scaled[..., top : top + size, left : left + size] for top, left in corners])


def augmented_crop(
    frame: Tensor,
    size: int,
    resize: Resize,
    share: float,
    augment: Augment,
    stream: Callable[[Literal["crop", "flip"]], random.Random],
    interpolation: Interpolation = "bilinear",
    center: Center = "nearest",
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
    crop = cut_crops(frame, size, resize, 1, share, interpolation, center)
    mirrored = augment.flip and stream("flip").random() < 0.5
    return crop.flip(-1) if mirrored else crop
