"""V-JEPA 2's classifier, and V-JEPA 1's, as modules whose parameters have the names of the authors' files."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentiveClassifier(nn.Module):
    """Class scores (B, C) from tokens (B, N, D); its parameters have the names that they have in the authors' files.

    Args:
        dim: D.
        classes: C.
        heads: attention heads, a divisor of dim.
        blocks: in all; the last is the query's.
        query_first: the query's is the first, as in V-JEPA 1, and the others see its output alone.
    """

    def __init__(self, dim: int, classes: int, heads: int, blocks: int, query_first: bool = False) -> None:
        super().__init__()
        self.pooler = _Pooler(dim, heads, blocks, query_first)
        self.linear = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(self.pooler(tokens))  # type: ignore[no-any-return]


class _Pooler(nn.Module):
    """One vector (B, D) from tokens (B, N, D)."""

    def __init__(self, dim: int, heads: int, blocks: int, query_first: bool) -> None:
        super().__init__()
        self.query_first = query_first
        self.query_tokens = nn.Parameter(torch.empty(1, 1, dim))
        self.cross_attention_block = _Query(dim, heads)
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(blocks - 1))
        for name, value in self.named_parameters():
            if value.ndim > 1:
                nn.init.trunc_normal_(value, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(value)
        # What is added to the residual is smaller the deeper it is; the query's counts as the block before it.
        for i, block in enumerate([*self.blocks, self.cross_attention_block], 1):
            for name, value in block.named_parameters():
                if name in ("attn.proj.weight", "mlp.fc2.weight"):
                    value.data /= math.sqrt(2 * max(1, min(i, blocks - 1)))

    def forward(self, tokens: Tensor) -> Tensor:
        queries = self.query_tokens.expand(len(tokens), -1, -1)
        if self.query_first:
            tokens = self.cross_attention_block(queries, tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return (tokens if self.query_first else self.cross_attention_block(queries, tokens))[:, 0]


class _Block(nn.Module):
    """Tokens (B, N, D) after they have looked at one another."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), _mlp(dim)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})

    def forward(self, tokens: Tensor) -> Tensor:
        queries, keys, values = self.attn["qkv"](self.norm1(tokens)).chunk(3, -1)
        tokens = tokens + self.attn["proj"](_attend(queries, keys, values, self.heads))
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class _Query(nn.Module):
    """A query (B, 1, D) after it has looked at tokens (B, N, D); the attention has no map of its output."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), _mlp(dim)
        self.xattn = nn.ModuleDict({"q": nn.Linear(dim, dim), "kv": nn.Linear(dim, 2 * dim)})

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        keys, values = self.xattn["kv"](self.norm1(tokens)).chunk(2, -1)
        query = query + _attend(self.xattn["q"](query), keys, values, self.heads)
        return query + self.mlp(self.norm2(query))  # type: ignore[no-any-return]

    def weights(self, query: Tensor, tokens: Tensor) -> Tensor:
        """How much the query looks at each of the tokens (B, N): the mean over the heads."""
        keys = self.xattn["kv"](self.norm1(tokens)).chunk(2, -1)[0]
        q, k = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.xattn["q"](query), keys))
        return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1).mean((1, 2))  # type: ignore[no-any-return]


def _mlp(dim: int) -> nn.Sequential:
    layers = {"fc1": nn.Linear(dim, 4 * dim), "gelu": nn.GELU(), "fc2": nn.Linear(4 * dim, dim)}
    return nn.Sequential(OrderedDict(layers))


def _attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """What each of the queries (B, N, D) finds in the values."""
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
