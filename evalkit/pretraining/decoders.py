"""Decoders over an encoder's visible tokens: one predicts a vector per token of the clip, one a vector per clip."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evalkit.pretraining.masks import Grid


class LocalDecoder(nn.Module):
    """Visible tokens (B, kept, D) -> a prediction for every token of the clip (B, N, out).

    Visible tokens stand where they belong and copies of one learned mask token everywhere else; then positions are
    added. With an order, the tokens are shuffled before positions are added, as in VideoPrism
    (https://arxiv.org/abs/2402.13217, section 3.3): the prediction is still that of the position, so that a visible
    token, which is elsewhere now, cannot be copied.

    Args:
        dim: D.
        out: width of a prediction.
        width: of the decoder.
        depth: of the decoder, in layers.
    """

    def __init__(self, dim: int, out: int, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.layers = _layers(width, depth)
        self.norm, self.predict = nn.LayerNorm(width), nn.Linear(width, out)

    def forward(self, visible: Tensor, masked: Tensor, grid: Grid, order: Tensor | None = None) -> Tensor:
        """Predictions (B, N, out), one per position.

        Args:
            visible: (B, kept, D), in the order of their positions.
            masked: (B, N) bool, true where a token is not visible.
            grid: of the N positions.
            order: (B, N) int64, the token that is put in each position; None where each is in its own.
        """
        x = self.embed(visible)
        places = masked.int().argsort(dim=1, stable=True)[:, : x.shape[1], None].expand_as(x)
        filled = self.mask_token.to(x.dtype).expand(*masked.shape, -1).scatter(1, places, x)
        if order is not None:
            filled = filled.gather(1, order[..., None].expand_as(filled))
        filled = filled + sinusoids(grid, filled.shape[-1]).to(filled)
        for layer in self.layers:
            filled = layer(filled)
        return self.predict(self.norm(filled))  # type: ignore[no-any-return]


class GlobalDecoder(nn.Module):
    """Visible tokens (B, kept, D) -> a prediction for the clip (B, out): layers without positions, attention pooling.

    Args:
        dim: D.
        out: width of a prediction.
        width: of the decoder.
        depth: of the decoder, in layers.
    """

    def __init__(self, dim: int, out: int, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.layers = _layers(width, depth)
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pool = nn.MultiheadAttention(width, _heads(width), batch_first=True)
        self.norm, self.predict = nn.LayerNorm(width), nn.Linear(width, out)

    def forward(self, visible: Tensor) -> Tensor:
        x = self.embed(visible)
        for layer in self.layers:
            x = layer(x)
        pooled, _ = self.pool(self.query.expand(len(x), -1, -1).to(x), x, x, need_weights=False)
        return self.predict(self.norm(pooled[:, 0]))  # type: ignore[no-any-return]


def sinusoids(grid: Grid, width: int) -> Tensor:
    """Fixed positions (N, width) of a grid's tokens, row by row: sines and cosines of step, row and column.

    A third of the width each; where it is not a multiple of six, the last values are zero.
    """
    rates = 10000.0 ** -(torch.arange(width // 6) / max(1, width // 6))
    positions = torch.zeros(*grid, width)
    for axis, size in enumerate(grid):
        angles = torch.arange(size)[:, None] * rates
        waves = torch.cat([angles.sin(), angles.cos()], 1)
        shape = [size if i == axis else 1 for i in range(3)]
        positions[..., axis * waves.shape[1] : (axis + 1) * waves.shape[1]] = waves.view(*shape, -1)
    return positions.view(math.prod(grid), width)


def _layers(width: int, depth: int) -> nn.ModuleList:
    """Pre-norm transformer layers whose MLP is four times as wide."""
    return nn.ModuleList(
        nn.TransformerEncoderLayer(
            width, _heads(width), 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        for _ in range(depth)
    )


def _heads(width: int) -> int:
    """Attention heads: 64 values each, or a few more where 64 does not divide the width."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
