"""Transformer layers of LongViViT's encoders: spatial and gated temporal attention, MLP adapters, attention pooling."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layout(NamedTuple):
    """The positions in the video of the rows (B x T', kept, D) of a block's input.

    Attributes:
        steps: T'.
        places: tokens in one step where nothing is masked.
        kept: (B, T', kept), the place of each token in its step; None where all of them are there, in order.
    """

    steps: int
    places: int
    kept: Tensor | None


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, D); a mask (B, 1, N, N) is true where a query sees a key."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        # Each (B, heads, N, D/heads).
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class TemporalAttention(nn.Module):
    """Attention along time at each place by itself, added through a gate that starts shut.

    h + tanh(alpha) h_temporal with alpha = 0 (section 4): until the gate is trained, nothing changes. Norm and weights
    start as the spatial attention's of the same layer. Where tubelets are masked, a place sees its kept ones only.
    """

    def __init__(self, norm: nn.LayerNorm, spatial: Attention) -> None:
        super().__init__()
        self.norm, self.attention = copy.deepcopy(norm), copy.deepcopy(spatial)
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        h: Tensor = self.norm(x).unflatten(0, (-1, layout.steps))  # (B, T', kept, D)
        index, mask = None, None
        if layout.kept is not None:
            index = layout.kept[..., None].expand_as(h)
            present = torch.zeros(*h.shape[:2], layout.places, dtype=torch.bool, device=h.device)
            present = present.scatter(2, layout.kept, True).transpose(1, 2).flatten(0, 1)  # (B x places, T')
            # An empty step sees itself: a softmax over nothing is NaN in some kernels. It is dropped again below.
            mask = (present[:, None] | torch.eye(layout.steps, dtype=torch.bool, device=h.device))[:, None]
            h = h.new_zeros(*h.shape[:2], layout.places, h.shape[-1]).scatter(2, index, h)
        h = self.attention(h.transpose(1, 2).flatten(0, 1), mask).unflatten(0, (-1, layout.places)).transpose(1, 2)
        if index is not None:
            h = h.gather(2, index)
        return x + self.alpha.tanh() * h.flatten(0, 1)


class Block(nn.Module):
    """One pre-norm transformer layer over rows of tokens (B x T', N, D).

    The temporal attention stands between spatial attention and MLP, as in ViViT's factorized self-attention
    (https://arxiv.org/abs/2103.15691, model 3). The adapter is Houlsby's (https://arxiv.org/abs/1902.00751): a
    bottleneck with its own residual on the MLP's output; its last map starts at zero, so that it changes nothing.
    """

    def __init__(self, dim: int, heads: int, hidden: int, temporal: bool, adapter: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.temporal = TemporalAttention(self.norm1, self.attention) if temporal else None
        self.adapter = None
        if adapter:
            up = nn.Linear(adapter, dim)
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)
            self.adapter = nn.Sequential(nn.Linear(dim, adapter), nn.GELU(), up)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        x = x + self.attention(self.norm1(x))
        if self.temporal is not None:
            x = self.temporal(x, layout)
        h: Tensor = self.mlp(self.norm2(x))
        if self.adapter is not None:
            h = h + self.adapter(h)
        return x + h


class AttentionPool(nn.Module):
    """Attention pooling by one learned query: tokens (B, N, D) -> (B, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        pooled, _ = self.attention(self.query.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False)
        return pooled[:, 0]  # type: ignore[no-any-return]
