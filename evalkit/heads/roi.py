"""The box head of VideoGLUE's code, after Video Action Transformer, of one probe and of many at once.

https://github.com/tensorflow/models/tree/master/official/projects/videoglue (modeling/heads/action_transformer.py): 16
learned numbers of a token's place, 8 of time and 8 of space, stand beside it. The query is what RoIAlign gives of the
tokens' mean over time, at 7 x 7 points in the box, and of these the largest number in each place. Each of six heads has
a query, key and value of its own, each as wide as the tokens, and then LayerNorm(query + what is attended to) and two
linear layers with a GELU between. The classifier reads all heads side by side: 6 x 768 = 4,608 numbers of a ViT-B.

Its RoIAlign takes the centers of tokens to lie at whole numbers, so that all points are half a token off; here they lie
in the middle of their fields (`boxes.roi_align`). Its weights begin as Keras' do, here as torch's.

RoIAlign is a weighted mean and the maximum is taken of each number by itself, so that what does not depend on learned
weights, the content of the box, is computed once for all probes. As in `bank`, no keys or values are made: the query
is taken through the key's weights to the tokens, and the mean of the tokens through the value's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from evalkit.heads import boxes
from evalkit.heads.kernels import chunk_rows

HEADS = 6
EPS = 1e-6  # of its LayerNorm
PLACE = 8  # numbers of a token's place in time, and as many of that in space
_PARTS = ("time.0", "time.2", "space.0", "space.2", "query", "key", "value", "norm", "up", "down")
# A bank's own names of the parameters, and those that `Head` gives them.
NAMES = {
    f"roi_{part.replace('.', '_')}_{kind}": f"pool.{part}.{kind}" for part in _PARTS for kind in ("weight", "bias")
}
KEY_BIAS = "roi_key_bias"


class RoiAttention(nn.Module):
    """What the heads say, side by side, of tokens (B, T', S, D) and boxes (B, 4): (B, heads x D)."""

    def __init__(self, dim: int, heads: int = HEADS) -> None:
        super().__init__()
        self.heads, wide = heads, heads * dim
        self.time = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, PLACE))
        self.space = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, PLACE))
        self.query, self.key, self.value = (nn.Linear(dim + 2 * PLACE, wide) for _ in range(3))
        self.norm = nn.GroupNorm(heads, wide, eps=EPS)  # a LayerNorm of each head
        self.up, self.down = (nn.Conv1d(wide, wide, 1, groups=heads) for _ in range(2))  # a linear layer of each head

    def forward(self, tokens: Tensor, within: Tensor) -> Tensor:
        b, steps, count, dim = tokens.shape
        times, places = positions(steps, count, tokens)
        time, space = self.time(times)[:, None].expand(-1, count, -1), self.space(places).expand(steps, -1, -1)
        placed = torch.cat([tokens, torch.cat([time, space], -1).expand(b, -1, -1, -1)], -1)
        points = boxes.roi_align(within.to(placed), count) @ placed.mean(1)
        split = (b, -1, self.heads, dim)
        query = self.query(points.amax(1)).view(split).transpose(1, 2)
        key, value = (part(placed.flatten(1, 2)).view(split).transpose(1, 2) for part in (self.key, self.value))
        attended = F.scaled_dot_product_attention(query, key, value)
        hidden = self.norm((query + attended).flatten(1))[..., None]
        return self.down(F.gelu(self.up(hidden)))[..., 0]  # type: ignore[no-any-return]


def positions(steps: int, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where tokens lie, in tokens from the middle: in time (T', 1), and down and across the frame (S, 2)."""
    side = boxes.square_side(count)
    time, line = (torch.arange(n, device=like.device, dtype=like.dtype) - (n - 1) / 2 for n in (steps, side))
    return time[:, None], torch.cartesian_prod(line, line)


def attend(p: Mapping[str, Tensor], heads: int, tokens: Tensor, within: Tensor) -> Tensor:
    """`RoiAttention` of K probes, (K, B, heads x D); see the top of this file.

    Args:
        p: parameters by the names of `NAMES`, each with K as its first dimension.
        heads: of each probe.
        tokens: (B, T', S, D), of any float dtype.
        within: boxes (B, 4).
    """
    weight, bias = ({part: p[f"roi_{part.replace('.', '_')}_{kind}"] for part in _PARTS} for kind in ("weight", "bias"))
    k = len(bias["up"])

    def place(name: str, at: Tensor) -> Tensor:  # (N, 1 or 2) -> (K, N, 8)
        first, second = f"{name}.0", f"{name}.2"
        hidden = torch.baddbmm(bias[first][:, None], at.expand(k, -1, -1), weight[first].mT)
        return torch.baddbmm(bias[second][:, None], hidden.relu(), weight[second].mT)

    b, steps, count, dim = tokens.shape
    still = boxes.mean_over_time(tokens).to(bias["up"])
    times, places = positions(steps, count, still)
    time, space = place("time", times), place("space", places)
    points = boxes.roi_align(within.to(still), count)
    content = (points @ still).amax(1).expand(k, -1, -1)
    box_time, box_space = time.mean(1, keepdim=True).expand(-1, b, -1), (points @ space[:, None]).amax(2)
    query = torch.cat([content, box_time, box_space], -1)
    query = torch.baddbmm(bias["query"][:, None], query, weight["query"].mT).view(k, b, heads, dim)
    split = (k, heads, dim, dim + 2 * PLACE)
    rows = torch.einsum("kbhw,khwd->bkhd", query, weight["key"].view(split)) / math.sqrt(dim)
    placed = torch.cat(
        [time[:, :, None].expand(-1, -1, count, -1), space[:, None].expand(-1, steps, -1, -1)], -1
    ).flatten(1, 2)  # (K, N, 16)
    size = chunk_rows(tokens)
    # Anew in the backward pass: a float copy of all tokens would fill the memory.
    means = [
        checkpoint(_mean, *part, placed, use_reentrant=False)
        for part in zip(torch.split(tokens.flatten(1, 2), size), torch.split(rows, size), strict=True)
    ]
    value = torch.einsum("bkhd,khwd->kbhw", torch.cat(means), weight["value"].view(split))
    hidden = query + value + bias["value"].view(k, 1, heads, dim)
    norm, offset = (part["norm"].view(k, 1, heads, dim) for part in (weight, bias))
    hidden = torch.addcmul(offset, F.layer_norm(hidden, (dim,), eps=EPS), norm)
    for layer in ("up", "down"):
        hidden = torch.einsum("kbhi,khoi->kbho", hidden, weight[layer].view(k, heads, dim, dim))
        hidden = hidden + bias[layer].view(k, 1, heads, dim)
        hidden = F.gelu(hidden) if layer == "up" else hidden
    return hidden.flatten(2)


def _mean(tokens: Tensor, rows: Tensor, placed: Tensor) -> Tensor:
    """Means (B, K, h, D + 16) of tokens (B, N, D) with places (K, N, 16) beside them, as rows (B, K, h, D + 16) ask."""
    tokens, dim = tokens.to(rows), tokens.shape[-1]
    asked, asked_place = rows[..., :dim].flatten(1, 2), rows[..., dim:]
    logits = (asked @ tokens.mT).view(*rows.shape[:3], -1) + asked_place @ placed.mT
    weights = logits.softmax(-1)
    return torch.cat([(weights.flatten(1, 2) @ tokens).view(*rows.shape[:3], dim), weights @ placed], -1)
