"""A bank of probes: K heads trained together on the same frozen features, at about the cost of one.

Linear and attentive heads whose points differ in learning rate, weight decay, dropout, label smoothing and seed share
one forward and backward pass; nothing of one head reaches another, so each ends as it would alone. A single probe is a
bank of one.

The attentive head is VideoGLUE's (https://arxiv.org/abs/2307.03166): LayerNorm, one cross-attention with one learned
query, dropout, a linear classifier. Since its query does not depend on the video, its keys and values are never made.
With n the tokens normalized without gain g and offset b, head h of the attention gives token i the logit

    q_h . (W_k,h (g n_i + b) + b_k,h) / sqrt(d)  =  n_i . (g W_k,h^T q_h) / sqrt(d)  +  what the softmax cancels,

and, as its weights a_i sum to one, the value

    sum_i a_i (W_v,h (g n_i + b) + b_v,h)  =  W_v,h (g sum_i a_i n_i + b) + b_v,h.

So all that touches the tokens is one product that scores them for all attention heads of all probes, and one that
averages them.

Learned positions in time are added to the tokens before all that, so that each head has tokens of its own.

With layers, the head is VideoGLUE's MLAP: the query passes through the features F_i of the encoder's last k layers,
tau_i = MLP(MHCA(tau_{i-1}, F_i)), each layer with its own LayerNorm of the features, attention and MLP, and tau_k goes
to the classifier; k = 1 is the paper's head for the last layer alone. From the second layer on, the query depends on
the video, and so do the h vectors that score its tokens; there are still no keys and values. The code of this head is
not released, and the paper does not say what the MLP is: here it is a transformer's, x + W_2 gelu(W_1 LayerNorm(x)),
4 D wide, as in the attention pooling of big_vision (https://github.com/google-research/big_vision), where the attention
has no residual either. Such a layer has 12 D^2 weights, an attentive head 4 D^2.

With boxes, the query of an attentive head is no learned one: it is the mean of the tokens over time and over the
sample's box, after the same LayerNorm, and what the attention finds is added to it. VideoGLUE's code has another head
for boxes, which evalkit/heads/roi.py folds in the same way.

With boxes and layers, MLAP asks with the box. The papers print its scores for AVA and not how the box and the layers go
together. Here the query is the content of the box in the last layer, after the LayerNorm that this layer's features
have, as it is without layers; it passes through the layers from the oldest to the last, and each adds to it:
x_i = tau_{i-1} + MHCA(tau_{i-1}, F_i), tau_i = x_i + W_2 gelu(W_1 LayerNorm(x_i)). A learned query is the same for all
boxes and is replaced by what it finds; the content of the box would be lost so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from evalkit.errors import UserError
from evalkit.heads import boxes, roi
from evalkit.heads.head import HeadShape
from evalkit.heads.kernels import EPS, AttentionMean, ScaledLinear, placed_mean

_SPLIT = ("query", "key", "value")  # what torch.nn.MultiheadAttention keeps in one matrix, in this order
_THIRD = {f"{part}_{kind}": i for i, part in enumerate(_SPLIT) for kind in ("weight", "bias")}
_CLASSIFY = {"weight": "classify.1.weight", "bias": "classify.1.bias"}
_NORM = {"gain": "pool.weight", "offset": "pool.bias"}
_ATTENTION = {
    "gain": "norm.weight",
    "offset": "norm.bias",
    **{f"{part}_{kind}": f"attention.in_proj_{kind}" for part in _SPLIT for kind in ("weight", "bias")},
    "out_weight": "attention.out_proj.weight",
    "out_bias": "attention.out_proj.bias",
}
_MLP = {
    "mlp_gain": "mlp.0.weight",
    "mlp_offset": "mlp.0.bias",
    "up_weight": "mlp.1.weight",
    "up_bias": "mlp.1.bias",
    "down_weight": "mlp.3.weight",
    "down_bias": "mlp.3.bias",
}


@dataclass(frozen=True)
class Point:
    """One head's settings.

    Attributes:
        lr: peak learning rate.
        weight_decay: of the matrices.
        dropout: share of the classifier's inputs that is dropped, 0 up to but not 1.
        label_smoothing: of the cross-entropy, 0..1.
        seed: of the first weights and of what is dropped.
    """

    lr: float = 1e-3
    weight_decay: float = 1e-2
    dropout: float = 0.0
    label_smoothing: float = 0.0
    seed: int = 0


class Bank(nn.Module):
    """Class scores of K probes, one per point, from the same frozen features.

    Every parameter has the K heads as its first dimension; `state` gives one head's in a plain probe's names. Computes
    in the parameters' dtype, float32 at first, whatever the features', also under autocast.

    Args:
        points: one per head.
        shape: of every head.
        eql_drop_rate: for each class the share of its negatives, drawn anew in each step, that are left out of the
            softmax while training, as in the equalization loss (https://arxiv.org/abs/2003.05176); none where empty.

    Raises:
        UserError: a dropout is not in 0..1, or 1; labels are smoothed although negatives are left out.
    """

    dropout: Tensor
    label_smoothing: Tensor

    def __init__(self, points: Sequence[Point], shape: HeadShape, eql_drop_rate: Sequence[float] = ()) -> None:
        super().__init__()
        for point in points:
            if not 0 <= point.dropout < 1:
                raise UserError(f"adapter.dropout={point.dropout:g}: wanted a share from 0 up to, but not, 1")
            if point.label_smoothing and any(eql_drop_rate):
                raise UserError(
                    f"adapter.label_smoothing={point.label_smoothing:g}: with the equalization loss set it to 0"
                )
        self.points, self.shape, self.eql_drop_rate = tuple(points), shape, tuple(eql_drop_rate)
        self.register_buffer("dropout", torch.tensor([p.dropout for p in points])[:, None, None], persistent=False)
        self.register_buffer("label_smoothing", torch.tensor([p.label_smoothing for p in points]), persistent=False)
        self.draws = [0, 0]  # what was dropped and left out so far: what will be depends on it
        self.share = (0, 1)  # which of how many processes this is, where these share a batch
        self.names = _names(shape)
        positions = {"positions": torch.zeros(shape.steps, 1, shape.dim)}
        fresh = {p.seed: self._split(_fresh(p.seed, shape) | positions) for p in points}
        self.stacked = nn.ParameterDict({n: torch.stack([fresh[p.seed][n] for p in points]) for n in self.names})
        for name in self.names:
            if name.startswith(("key_bias", roi.KEY_BIAS)):
                self.stacked[name].requires_grad = False  # cancels in the softmax; only kept

    def forward(self, features: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Logits (K, B, C) from vectors (B, D), for attentive heads from tokens (B, N, D) or (B, T', S, D).

        More than one layer's tokens are (B, layers, ...), the encoder's last layer last. Learned positions need T';
        where it is not their number, they are interpolated linearly. Probes that are boxed need boxes (B, 4), and T'.

        Raises:
            ValueError: the features want a gradient, which this does not give.
        """
        if features.requires_grad:
            raise ValueError("a bank of probes gives its features no gradient: they are those of a frozen encoder")
        with torch.autocast(features.device.type, enabled=False):
            dropping = self.training and any(point.dropout for point in self.points)
            p = self.stacked
            if self.shape.heads:
                vectors = self._pool(features, boxes)
            else:
                normed = F.layer_norm(features.to(p["weight"].dtype), (self.shape.dim,), eps=EPS)
                if not dropping:
                    args = (normed, p["weight"], p["bias"], p["gain"], p["offset"])
                    return ScaledLinear.apply(*args)  # type: ignore[no-untyped-call,no-any-return]
                vectors = torch.addcmul(p["offset"][:, None], normed, p["gain"][:, None])
            if dropping:
                drawn = self._drawn(0, len(features), self.shape.width)
                vectors = vectors * ((drawn >= self.dropout) / (1 - self.dropout))
            return torch.baddbmm(p["bias"][:, None], vectors, p["weight"].mT)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Each head's mean loss (K,); backpropagate their sum.

        Args:
            logits: (K, B, C).
            target: class indices (B,) for the cross-entropy of the softmax, with each head's label smoothing; or
                zeros and ones (B, C), where several classes can be right, for that of each class's sigmoid.
        """
        if target.ndim == 2:
            each = target.to(logits.dtype).expand_as(logits)
            return F.binary_cross_entropy_with_logits(logits, each, reduction="none").mean((1, 2))
        if self.training and any(self.eql_drop_rate):
            drawn = self._drawn(1, len(target), self.shape.classes)
            left_out = (drawn < torch.tensor(self.eql_drop_rate).to(drawn)).scatter_(
                -1, target[None, :, None].expand(len(drawn), -1, 1), False
            )
            logits = logits.masked_fill(left_out, -math.inf)
        rows = logits.transpose(0, 1)
        first = rows.is_contiguous()  # linear probes' logits are (B, K, C) in memory: no copy
        likely = (rows if first else logits).log_softmax(-1)
        index = target[:, None, None] if first else target[None, :, None]
        right = likely.gather(-1, index.expand(*likely.shape[:2], 1))[..., 0]
        over = 0 if first else 1
        losses = -right.mean(over)
        if any(point.label_smoothing for point in self.points):
            losses = losses + self.label_smoothing * (right - likely.mean(-1)).mean(over)
        return losses

    def state(self, k: int) -> dict[str, Tensor]:
        """The k-th head's parameters in the names and shapes of torch's own modules, as a plain probe's file has them.

        `pool` is a LayerNorm, or has `query` (1, 1, D), `norm` and `attention`, a torch.nn.MultiheadAttention, or
        `query` and `layers`, each with `norm`, `attention` and `mlp`: LayerNorm, Linear, GELU, Linear. A boxed head
        has no `query`. `classify.1` is a Linear. Learned positions are `positions` (steps, 1, D).
        """
        parts: dict[str, list[Tensor]] = {}
        for parameter, name in self.names.items():
            parts.setdefault(name, []).append(self.stacked[parameter].detach()[k])
        return {name: torch.cat(values) if len(values) > 1 else values[0] for name, values in parts.items()}

    @torch.no_grad()
    def load(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Loads parameters as `state` returns them, of any float dtype, into the k-th head."""
        for parameter, value in self._split(state).items():
            self.stacked[parameter][k] = value

    def alone(self, k: int) -> Bank:
        """A bank of the k-th head only, on the same device."""
        bank = Bank(self.points[k : k + 1], self.shape, self.eql_drop_rate)
        bank.load(0, self.state(k))
        return bank.to(self.dropout.device).train(self.training)

    def _split(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        parameters = {}
        for parameter, name in self.names.items():
            third = _THIRD.get(parameter.rstrip("0123456789"))
            parameters[parameter] = state[name] if third is None else state[name].chunk(3)[third]
        return parameters

    def _pool(self, features: Tensor, within: Tensor | None) -> Tensor:
        """The input of the classifier, (K, B, D)."""
        layers = features.unbind(1) if self.shape.layers > 1 else (features,)
        if self.shape.boxed:
            assert within is not None
            if self.shape.roi:
                return roi.attend(dict(self.stacked.items()), self.shape.heads, features, within)
            p = {part: self.stacked[f"{part}{len(layers) - 1}"][:, None] for part in ("gain", "offset")}
            normed = F.layer_norm(boxes.mean_in(within, layers[-1]).to(p["gain"]), (self.shape.dim,), eps=EPS)
            queries = torch.addcmul(p["offset"], normed, p["gain"])
        else:
            queries = self.stacked["query"].flatten(1, 2)
        for i, tokens in enumerate(layers):
            attended = self._attend(i, queries, tokens)
            queries = queries + attended if self.shape.boxed else attended
            if self.shape.layers:
                queries = self._mlp(i, queries)
        return queries

    def _attend(self, i: int, queries: Tensor, tokens: Tensor) -> Tensor:
        """Output of the i-th attention (K, B, D) for queries (K, B, D), or (K, 1, D) shared by the whole batch."""
        p = {part: self.stacked[f"{part}{i}"] for part in _ATTENTION}
        k, b, h, d = len(self.points), len(tokens), self.shape.heads, self.shape.dim
        query = torch.baddbmm(p["query_bias"][:, None], queries, p["query_weight"].mT)
        query = query.view(k, -1, h, d // h).transpose(1, 2).reshape(k * h, -1, d // h)
        keyed = torch.bmm(query, p["key_weight"].view(k * h, -1, d)).view(k, h, -1, d)
        rows = (keyed * (p["gain"][:, None, None] / math.sqrt(d / h))).permute(2, 0, 1, 3)  # (B or 1, K, h, D)
        rows = rows[0] if len(rows) == 1 else rows
        if self.shape.steps:
            times = F.interpolate(self.stacked["positions"][:, :, 0].mT, tokens.shape[1], mode="linear").mT
            # Anew in the backward pass: a float copy of the tokens for each head would fill the memory.
            means = [
                checkpoint(placed_mean, tokens, *head, use_reentrant=False)
                for head in zip(times, rows.unbind(-3), strict=True)
            ]
            mean = torch.cat(means, 1)
        else:
            mean = AttentionMean.apply(tokens.flatten(1, -2), rows.flatten(-3, -2))  # type: ignore[no-untyped-call]
        mean = mean.view(b, k, h, d).permute(1, 2, 0, 3)
        mean = torch.addcmul(p["offset"][:, None, None], mean, p["gain"][:, None, None])
        value_weight = p["value_weight"].view(k * h, -1, d)
        value = torch.baddbmm(p["value_bias"].view(k * h, 1, -1), mean.reshape(k * h, b, d), value_weight.mT)
        value = value.view(k, h, b, -1).transpose(1, 2).reshape(k, b, d)
        return torch.baddbmm(p["out_bias"][:, None], value, p["out_weight"].mT)

    def _mlp(self, i: int, x: Tensor) -> Tensor:
        p = {part: self.stacked[f"{part}{i}"][:, None] for part in _MLP}
        normed = torch.addcmul(p["mlp_offset"], F.layer_norm(x, (self.shape.dim,), eps=EPS), p["mlp_gain"])
        hidden = F.gelu(torch.baddbmm(p["up_bias"], normed, p["up_weight"][:, 0].mT))
        return x + torch.baddbmm(p["down_bias"], hidden, p["down_weight"][:, 0].mT)

    def _drawn(self, stream: int, rows: int, width: int) -> Tensor:
        """Even random numbers in 0..1, (K or 1, rows, width), the next of one of two streams.

        A function of a head's own seed and of the step; the rows of all processes are drawn, and each takes those that
        torch's DistributedSampler gives it, so that any number of processes draws the same.
        """
        rank, world = self.share
        seeds = list(dict.fromkeys(point.seed for point in self.points))
        draws = []
        for seed in seeds:
            key = np.array([seed % 2**64, self.draws[stream]], np.uint64)
            numbers = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))
            draws.append(numbers.random((rows * world, width), dtype=np.float32)[rank::world])
        self.draws[stream] += 1
        drawn = torch.from_numpy(np.stack(draws)).to(self.dropout.device)
        return drawn if len(seeds) == 1 else drawn[[seeds.index(point.seed) for point in self.points]]


def _names(shape: HeadShape) -> dict[str, str]:
    """A bank's own names of its parameters, and those that `Bank.state` gives them."""
    if not shape.heads:
        return _NORM | _CLASSIFY
    if shape.roi:
        return roi.NAMES | _CLASSIFY
    names = {} if shape.boxed else {"query": "pool.query"}
    for i in range(max(1, shape.layers)):
        parts, at = (_ATTENTION | _MLP, f"pool.layers.{i}") if shape.layers else (_ATTENTION, "pool")
        names |= {f"{part}{i}": f"{at}.{name}" for part, name in parts.items()}
    return names | _CLASSIFY | ({"positions": "positions"} if shape.steps else {})


def _fresh(seed: int, shape: HeadShape) -> dict[str, Tensor]:
    """First weights of one probe, as torch's own modules have them, in the names of `Bank.state`."""
    dim, layers = shape.dim, shape.layers
    modules: dict[str, nn.Module] = {}
    state = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if shape.roi:
            modules["pool"] = roi.RoiAttention(dim, shape.heads)
        elif shape.heads:
            if not shape.boxed:
                state["pool.query"] = torch.randn(1, 1, dim) * 0.02
            for at in [f"pool.layers.{i}" for i in range(layers)] or ["pool"]:
                modules[f"{at}.norm"] = nn.LayerNorm(dim)
                modules[f"{at}.attention"] = nn.MultiheadAttention(dim, shape.heads)
                if layers:
                    modules[f"{at}.mlp.0"] = nn.LayerNorm(dim)
                    modules[f"{at}.mlp.1"] = nn.Linear(dim, 4 * dim)
                    modules[f"{at}.mlp.3"] = nn.Linear(4 * dim, dim)
        else:
            modules["pool"] = nn.LayerNorm(dim)
        modules["classify.1"] = nn.Linear(shape.width, shape.classes)
    return state | {f"{at}.{name}": p.detach() for at, m in modules.items() for name, p in m.named_parameters()}
