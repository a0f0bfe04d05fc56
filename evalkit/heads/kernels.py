"""Autograd functions of a bank of probes that share their features without a copy for each probe."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-5  # torch.nn.LayerNorm's
# Numbers of a batch of tokens worked on at a time. On a CPU their float copy stays in a core's cache, and in memory
# that the allocator hands out again instead of mapping new pages; a GPU wants fewer, larger kernels.
CHUNK, GPU_CHUNK = 1 << 19, 1 << 24
WEIGHT_CHUNK = 1 << 18  # numbers of a bank's linear weights worked on at a time
ALIGNED = 16  # numbers in a cache line: rows that begin with one are read and written faster


class AttentionMean(torch.autograd.Function):
    """Means (B, R, D) of layer-normed tokens (B, N, D) under R softmaxes over the tokens.

    The logits are the products of the normed tokens with rows, (R, D) for all or (B, R, D). The tokens are normed in
    chunks, again in the backward pass; what is kept from one to the other is the attention (B, R, N), never a copy of
    the tokens.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, rows: Tensor) -> Tensor:
        shape = (len(tokens), rows.shape[-2])
        weights = rows.new_empty(*shape, tokens.shape[1])
        scales = rows.new_empty(len(tokens), 1, tokens.shape[1])
        means = rows.new_empty(*shape, tokens.shape[2])
        for chunk, query, weight, scale, mean in _chunks(tokens, rows, weights, scales, means):
            centered = _center(chunk, weight.dtype)
            variance = torch.linalg.vector_norm(centered, dim=-1).square_().div_(tokens.shape[2])
            torch.rsqrt(variance.add_(EPS), out=scale[:, 0])
            logits = torch.matmul(query, centered.mT).mul_(scale)
            torch.softmax(logits, -1, out=weight)
            weight.mul_(scale)  # the normed tokens are the centered ones times their scales
            torch.bmm(weight, centered, out=mean)
        ctx.save_for_backward(tokens, weights, scales, means)
        ctx.shared = rows.ndim == 2
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        tokens, weights, scales, means = ctx.saved_tensors
        average = (grad * means).sum(-1, keepdim=True)  # of the logits' gradient before the softmax, by its weights
        rows = torch.zeros_like(grad[0]) if ctx.shared else torch.empty_like(grad)
        for chunk, query, weight, scale, some_grad, mean in _chunks(tokens, rows, weights, scales, grad, average):
            centered = _center(chunk, weight.dtype)
            logits = torch.bmm(some_grad, centered.mT).mul_(scale).sub_(mean).mul_(weight)
            if ctx.shared:
                rows += torch.bmm(logits, centered).sum(0)
            else:
                torch.bmm(logits, centered, out=query)
        return None, rows


def placed_mean(tokens: Tensor, times: Tensor, rows: Tensor) -> Tensor:
    """`AttentionMean` of tokens (B, T', S, D) with positions (T', D) added, which get a gradient."""
    normed = F.layer_norm((tokens + times[:, None]).flatten(1, 2), tokens.shape[-1:], eps=EPS)
    return (rows @ normed.mT).softmax(-1) @ normed


class ScaledLinear(torch.autograd.Function):
    """Logits (K, B, C) of K linear layers, each after its own gain and offset of the same vectors (B, D).

    Gains go into the weights, and the constant that offsets and biases make is the weight of one more number, which is
    one in every vector. So a product of few heads' weights, while they are in the cache, is all that is large. In
    memory the logits are (B, K, C).
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, weight: Tensor, bias: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        (k, c, d), b = weight.shape, len(vectors)
        longer = F.pad(F.pad(vectors, (0, 1), value=1.0), (0, -(d + 1) % ALIGNED))
        logits = weight.new_empty(b, k * c)
        for group, columns, folded in _head_groups(weight, longer):
            torch.mul(weight[group], gain[group, None], out=folded[:, :, :d])
            torch.add(torch.linalg.vecdot(weight[group], offset[group, None]), bias[group], out=folded[:, :, d])
            torch.mm(longer, folded.flatten(0, 1).T, out=logits[:, columns])
        ctx.save_for_backward(longer, weight, gain, offset)
        return logits.view(b, k, c).transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, Tensor, Tensor]:
        longer, weight, gain, offset = ctx.saved_tensors
        k, c, d = weight.shape
        biases = weight.new_empty(k, c)
        weights, gains, offsets = torch.empty_like(weight), torch.empty_like(gain), torch.empty_like(offset)
        flat = grad.transpose(0, 1).flatten(1)
        for group, columns, folded in _head_groups(weight, longer):
            torch.mm(flat[:, columns].T, longer, out=folded.flatten(0, 1))
            product, total = folded[:, :, :d], folded[:, :, d]
            biases[group] = total
            torch.bmm(total[:, None], weight[group], out=offsets[group, None])
            torch.mul(total[..., None], offset[group, None], out=weights[group]).addcmul_(product, gain[group, None])
            torch.sum(product.mul_(weight[group]), 1, out=gains[group])
        return None, weights, biases, gains, offsets


def _head_groups(weight: Tensor, longer: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield groups of heads: their slice, their logits' columns, and a buffer for their weights."""
    k, c, d = weight.shape
    size = k
    if weight.device.type == "cpu":
        # Every product packs the vectors anew: where they are many, more heads at a time make up for that.
        even = ALIGNED // math.gcd(c, ALIGNED)
        size = even * math.ceil(max(WEIGHT_CHUNK // d, len(longer) // 2) / c / even)
    buffer = longer.new_zeros(min(size, k), c, longer.shape[1])
    for i in range(0, k, size):
        n = min(size, k - i)
        yield slice(i, i + n), slice(i * c, (i + n) * c), buffer[:n]


def chunk_rows(tokens: Tensor) -> int:
    """How many rows of a batch of tokens (B, ...) to work on at a time."""
    return max(1, (CHUNK if tokens.device.type == "cpu" else GPU_CHUNK) // tokens[0].numel())


def _chunks(tokens: Tensor, rows: Tensor, *others: Tensor) -> Any:
    """Yield chunks of the batch: tokens, their rows, and the same chunks of the others."""
    size = chunk_rows(tokens)
    parts = [torch.split(tensor, size) for tensor in (tokens, *others)]
    query = itertools.repeat(rows, len(parts[0])) if rows.ndim == 2 else torch.split(rows, size)
    return zip(parts[0], query, *parts[1:], strict=True)


def _center(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    tokens = tokens.to(dtype)
    return tokens - tokens.mean(-1, keepdim=True)
