"""Tubelets: which pixels of a video become one token, and the fixed positions of several kernels' tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Box = tuple[int, int, int]  # frames, height, width


@dataclass(frozen=True)
class Tube:
    """A convolution kernel over frames, rows and columns: boxes of `kernel`, every `stride`, from `offset` on."""

    kernel: Box
    stride: Box
    offset: Box = (0, 0, 0)

    @property
    def least(self) -> Box:
        """The smallest video (frames, height, width) that holds one box."""
        t, h, w = (kernel + offset for kernel, offset in zip(self.kernel, self.offset, strict=True))
        return t, h, w

    @property
    def values(self) -> int:
        """Numbers in one box, three channels."""
        return 3 * math.prod(self.kernel)

    def cut(self, video: Tensor) -> Tensor:
        """Cut a video (B, T, 3, H, W) into boxes (B, T', H', W', 3 t h w)."""
        t, h, w = self.offset
        boxes = video[:, t:, :, h:, w:]
        for axis, kernel, stride in zip((1, 3, 4), self.kernel, self.stride, strict=True):
            boxes = boxes.unfold(axis, kernel, stride)
        return boxes.permute(0, 1, 3, 4, 2, 5, 6, 7).flatten(4)

    def waves(self, grid: Sequence[int], dim: int, like: Tensor) -> Tensor:
        """Fixed positions (T', H', W', D) for a grid of boxes: sines and cosines of each box's center.

        TubeViT's (https://arxiv.org/abs/2212.03229): a third of the width each for frame, row and column,
        counted in frames and pixels, with wavelengths from 2 pi to 10000 x 2 pi. Where the width is not a multiple of
        six, the last values are zero.
        """
        rates = 10000.0 ** -(torch.arange(dim // 6, device=like.device) / (dim // 6))
        axes = []
        for i, (n, kernel, stride, offset) in enumerate(zip(grid, self.kernel, self.stride, self.offset, strict=True)):
            angles = (torch.arange(n, device=like.device) * stride + offset + kernel / 2)[:, None] * rates
            shape = [n if axis == i else 1 for axis in range(3)]
            axes.append(torch.cat([angles.sin(), angles.cos()], -1).reshape(*shape, -1).expand(*grid, -1))
        return F.pad(torch.cat(axes, -1), (0, dim % 6)).to(like.dtype)
