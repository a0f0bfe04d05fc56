"""RandAugment of clips: two random operations in sequence, of about one magnitude, the same on all frames.

The operations and their strengths are those of https://arxiv.org/abs/1909.13719 as VideoGLUE's released code has them
(https://github.com/tensorflow/models, official/vision/ops/augment.py): each of sixteen, or none, is equally likely;
statistics of pixels, such as a histogram, are those of the whole clip; pixels from outside the frame are gray; a cutout
is a box in time as well.

"(9, 0.5)" in VideoGLUE's table 10 is `magnitude=9, magnitude_std=0.5` in its configurations, and is implemented as
stated: each operation has its own magnitude, from a normal distribution of that mean and standard deviation, clamped to
0..10. The released code differs: its pipeline drops the deviation, and the function that takes one adds a number of
deviation 1. Where its contrast and its shears differ from Pillow's, which they name, Pillow's are implemented.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

OPERATIONS_EACH = 2
GRAY = 128


def rand_augment(clip: Tensor, magnitude: float, deviation: float, stream: random.Random) -> Tensor:
    """Apply random operations to a clip, uint8 (T, 3, H, W), and return a new one.

    Args:
        clip: uint8 RGB (T, 3, H, W); not changed.
        magnitude: mean magnitude of an operation, 0 to 10.
        deviation: standard deviation of the magnitudes.
        stream: source of randomness; only `random()` is called.
    """
    operations = list(OPERATIONS.values())
    for _ in range(OPERATIONS_EACH):
        operation = operations[int(stream.random() * len(operations))]
        level = magnitude + deviation * _normal(stream)
        clip = operation(clip, min(max(level, 0.0), 10.0) / 10, stream)
    return clip


def _normal(stream: random.Random) -> float:
    """A standard normal number, by the Box-Muller transform."""
    return math.sqrt(-2 * math.log(1 - stream.random())) * math.cos(2 * math.pi * stream.random())


def _signed(strength: float, stream: random.Random) -> float:
    return strength if stream.random() < 0.5 else -strength


def autocontrast(clip: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a channel of one value only is unchanged."""
    values, tables = torch.arange(256, dtype=torch.float64), []
    for channel in clip.unbind(1):
        low, high = int(channel.min()), int(channel.max())
        low, scale = (low, 255 / (high - low)) if high > low else (0, 1.0)
        tables.append(values * scale - low * scale)
    return _apply_tables(clip, torch.stack(tables))


def equalize(clip: Tensor) -> Tensor:
    """Equalize the histogram of each channel."""
    tables = []
    for channel in clip.unbind(1):
        counts = torch.bincount(channel.flatten().int(), minlength=256)
        step = (channel.numel() - int(counts[int(channel.max())])) // 255
        below = counts.cumsum(0) - counts
        tables.append((below + step // 2) // step if step else torch.arange(256))
    return _apply_tables(clip, torch.stack(tables))


def posterize(clip: Tensor, bits: int) -> Tensor:
    """Keep the highest bits of each value."""
    return clip & (256 - (1 << (8 - bits)))


def solarize(clip: Tensor, threshold: int) -> Tensor:
    """Invert values from a threshold on."""
    return torch.where(clip.int() < threshold, clip, 255 - clip)


def solarize_add(clip: Tensor, addition: int) -> Tensor:
    """Add to values below 128."""
    return torch.where(clip < 128, (clip.int() + addition).clamp(0, 255).to(torch.uint8), clip)


def color(clip: Tensor, factor: float) -> Tensor:
    """Blend with grayscale: 0 is gray, 1 the clip, more has stronger colors."""
    return _blend(_luma(clip), clip, factor)


def contrast(clip: Tensor, factor: float) -> Tensor:
    """Blend with the clip's mean gray: 0 is gray, 1 the clip, more has stronger contrast."""
    return _blend((_luma(clip).double().mean() + 0.5).int(), clip, factor)


def brightness(clip: Tensor, factor: float) -> Tensor:
    """Blend with black: 0 is black, 1 the clip, more is brighter."""
    return _blend(torch.zeros(()), clip, factor)


def sharpness(clip: Tensor, factor: float) -> Tensor:
    """Blend with a smoothed clip: 0 is smooth, 1 the clip, more is sharper; the outermost pixels are unchanged."""
    values = clip.int()
    rows = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    smooth = clip.clone()
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * values[..., 1:-1, 1:-1]
    smooth[..., 1:-1, 1:-1] = ((2 * around + 13) // 26).to(torch.uint8)  # a thirteenth of it, rounded
    return _blend(smooth, clip, factor)


def rotate(clip: Tensor, degrees: float) -> Tensor:
    """Rotate about the center, counter-clockwise."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = clip.shape[-1] / 2, clip.shape[-2] / 2
    return affine(clip, (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


def affine(clip: Tensor, x: tuple[float, float, float], y: tuple[float, float, float]) -> Tensor:
    """Resample by an affine map from output to input pixels, nearest neighbor: x is a, b, c of a x + b y + c."""
    height, width = clip.shape[-2:]
    down, right = (torch.arange(side, dtype=torch.float64) + 0.5 for side in (height, width))
    column, row = ((a * right + b * down[:, None] + c).floor().long() for a, b, c in (x, y))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    moved = torch.full_like(clip, GRAY)
    moved[..., inside] = clip[..., row[inside], column[inside]]
    return moved


def cutout(clip: Tensor, stream: random.Random) -> Tensor:
    """Gray a box around a uniform point: to each side of it a quarter to half the frame, up to a quarter in time."""
    (time, _, height, width), box = clip.shape, []
    for length, least, most in (
        (time, 1, time // 4),
        (height, height // 4, height // 2),
        (width, width // 4, width // 2),
    ):
        middle, least = int(stream.random() * length), max(1, least)
        half = least + int(stream.random() * (max(2, most) - least))
        box.append(slice(max(0, middle - half), middle + half))
    cut = clip.clone()
    cut[box[0], :, box[1], box[2]] = GRAY
    return cut


def _apply_tables(clip: Tensor, tables: Tensor) -> Tensor:
    """The clip mapped by tables (3, 256), a row per channel, clamped to 0..255 and rounded down."""
    tables = tables.clamp(0, 255).to(torch.uint8)
    return torch.stack([table[channel.int()] for table, channel in zip(tables, clip.unbind(1), strict=True)], 1)


def _luma(clip: Tensor) -> Tensor:
    """Luma (T, 1, H, W) by ITU-R 601, int32, rounded as Pillow does."""
    red, green, blue = clip.int().unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16)[:, None]


def _blend(without: Tensor, clip: Tensor, factor: float) -> Tensor:
    """Blend from `without` at 0 through the clip at 1 and beyond, rounded down."""
    plain = without.float()
    return (plain + factor * (clip.float() - plain)).clamp(0, 255).to(torch.uint8)


# Each takes a strength of 0 to 1. Their order decides which one a random number selects.
Operation = Callable[[Tensor, float, random.Random], Tensor]
OPERATIONS: dict[str, Operation] = {
    "auto_contrast": lambda clip, strength, stream: autocontrast(clip),
    "equalize": lambda clip, strength, stream: equalize(clip),
    "invert": lambda clip, strength, stream: 255 - clip,
    "rotate": lambda clip, strength, stream: rotate(clip, 30 * _signed(strength, stream)),
    "posterize": lambda clip, strength, stream: posterize(clip, int(4 * strength)),
    "solarize": lambda clip, strength, stream: solarize(clip, int(256 * strength)),
    "color": lambda clip, strength, stream: color(clip, 0.1 + 1.8 * strength),
    "contrast": lambda clip, strength, stream: contrast(clip, 0.1 + 1.8 * strength),
    "brightness": lambda clip, strength, stream: brightness(clip, 0.1 + 1.8 * strength),
    "sharpness": lambda clip, strength, stream: sharpness(clip, 0.1 + 1.8 * strength),
    "shear_x": lambda clip, strength, stream: affine(clip, (1, 0.3 * _signed(strength, stream), 0), (0, 1, 0)),
    "shear_y": lambda clip, strength, stream: affine(clip, (1, 0, 0), (0.3 * _signed(strength, stream), 1, 0)),
    "translate_x": lambda clip, strength, stream: affine(clip, (1, 0, 10 * _signed(strength, stream)), (0, 1, 0)),
    "translate_y": lambda clip, strength, stream: affine(clip, (1, 0, 0), (0, 1, 10 * _signed(strength, stream))),
    "cutout": lambda clip, strength, stream: cutout(clip, stream),
    "solarize_add": lambda clip, strength, stream: solarize_add(clip, int(110 * strength)),
    "none": lambda clip, strength, stream: clip,
}
