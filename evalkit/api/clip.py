"""The input clip of an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Resize = Literal["crop", "squash", "squash_crop"]
Interpolation = Literal["bilinear", "bicubic"]
Center = Literal["nearest", "below"]


@dataclass(frozen=True)
class Clip:
    """The input that an encoder was trained on: frames, size, normalization and resizing.

    Attributes:
        frames: frames in one clip.
        size: height and width of the square input, in pixels.
        mean: subtracted from each RGB channel after scaling to `value_range`.
        std: divides each RGB channel after that.
        value_range: what pixel values 0 and 255 become before mean and std.
        resize: how frames were made square: `crop` scales the shorter side to `size` / `share` and cuts the center,
            `squash` scales both sides to `size`, `squash_crop` scales both to `size` / `share` and cuts the center.
        share: the square's side as a share of what is scaled, above 0 and up to 1: 0.875 where the shorter side is
            scaled to 256 pixels and 224 are cut.
        interpolation: of the scaling, which is antialiased.
        center: where an odd number of pixels is cut away, which of the two middles: `below` leaves fewer of them before
            the center, as transformers does; `nearest` rounds half to even, as torchvision does.
    """

    frames: int = 16
    size: int = 224
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    value_range: tuple[float, float] = (0.0, 1.0)
    resize: Resize = "crop"
    share: float = 1.0
    interpolation: Interpolation = "bilinear"
    center: Center = "nearest"

    def normalize(self, pixels: Tensor) -> Tensor:
        """Encoder input, float32 (..., C, H, W), from uint8 RGB pixels (..., C, H, W) in 0..255."""
        import torch

        low, high = self.value_range
        mean = torch.tensor(self.mean, dtype=torch.float64).view(3, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float64).view(3, 1, 1)
        scale, shift = (high - low) / 255 / std, (low - mean) / std
        video = torch.empty(pixels.shape, device=pixels.device).copy_(pixels)  # one contiguous copy, then in place
        return video.mul_(scale.to(video, non_blocking=True)).add_(shift.to(video, non_blocking=True))
