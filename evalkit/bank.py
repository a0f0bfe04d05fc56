"""Many probes for the price of one: K heads trained together over the same frozen features.

Linear and attentive heads whose points differ in learning rate, weight decay, dropout, label smoothing and seed share
one forward and backward pass; nothing of one head reaches another, so each ends as it would alone. A single probe is a
bank of one.

The attentive head is VideoGLUE's (https://arxiv.org/abs/2307.03166): LayerNorm, one cross-attention with one learned
query, dropout, a linear classifier. Since its query does not depend on the video, its keys and values are never made.
With n the tokens normalised without gain g and offset b, head h of the attention gives token i the logit

    q_h . (W_k,h (g n_i + b) + b_k,h) / sqrt(d)  =  n_i . (g W_k,h^T q_h) / sqrt(d)  +  what the softmax cancels,

and, as its weights a_i sum to one, the value

    sum_i a_i (W_v,h (g n_i + b) + b_v,h)  =  W_v,h (g sum_i a_i n_i + b) + b_v,h.

So all that touches the tokens is one product that scores them for all attention heads of all probes, and one that
averages them.

Learned positions in time are added to the tokens before all that, so that each head has tokens of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from evalkit.api import UserError
from evalkit.optim import cosine

EPS = 1e-5  # torch.nn.LayerNorm's
# Numbers of a batch of tokens worked on at a time: the float copy of them stays in the cache, and in memory that the
# allocator hands out again instead of mapping new pages.
CHUNK = 3 << 20
FEW = 1 << 18  # numbers of a bank's linear weights worked on at a time
_SPLIT = ("query", "key", "value")  # what torch.nn.MultiheadAttention keeps in one matrix, in this order
_LINEAR = {
    "gain": "pool.weight",
    "offset": "pool.bias",
    "weight": "classify.1.weight",
    "bias": "classify.1.bias",
}
_ATTENTIVE = {
    "query": "pool.query",
    "gain": "pool.norm.weight",
    "offset": "pool.norm.bias",
    **{f"{part}_{kind}": f"pool.attention.in_proj_{kind}" for part in _SPLIT for kind in ("weight", "bias")},
    "out_weight": "pool.attention.out_proj.weight",
    "out_bias": "pool.attention.out_proj.bias",
    "weight": "classify.1.weight",
    "bias": "classify.1.bias",
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
    in float32 whatever the features' dtype, also under autocast.

    Args:
        points: one per head.
        dim: D, width of the features.
        classes: C.
        heads: attention heads of the attentive probes, a divisor of dim; 0 makes linear probes: LayerNorm, dropout, a
            linear classifier.
        steps: time steps of which each attentive probe learns positions, zero at first, that are added to the tokens;
            0 for none.

    Raises:
        UserError: a dropout is not in 0..1, or 1.
    """

    dropout: Tensor
    label_smoothing: Tensor

    def __init__(self, points: Sequence[Point], dim: int, classes: int, heads: int = 0, steps: int = 0) -> None:
        super().__init__()
        for point in points:
            if not 0 <= point.dropout < 1:
                raise UserError(f"adapter.dropout={point.dropout:g}: wanted a share from 0 up to, but not, 1")
        self.points, self.dim, self.classes, self.heads, self.steps = tuple(points), dim, classes, heads, steps
        self.register_buffer("dropout", torch.tensor([p.dropout for p in points])[:, None, None], persistent=False)
        self.register_buffer("label_smoothing", torch.tensor([p.label_smoothing for p in points]), persistent=False)
        self.draws = 0  # training passes so far: what is dropped depends on it
        self.names = (_ATTENTIVE if heads else _LINEAR) | ({"positions": "positions"} if steps else {})
        positions = {"positions": torch.zeros(steps, 1, dim)}
        fresh = {p.seed: self._split(_fresh(p.seed, dim, classes, heads) | positions) for p in points}
        self.stacked = nn.ParameterDict({n: torch.stack([fresh[p.seed][n] for p in points]) for n in self.names})
        if heads:
            self.stacked["key_bias"].requires_grad = False  # cancels in the softmax; only kept

    def forward(self, features: Tensor) -> Tensor:
        """Logits (K, B, C), float32, from vectors (B, D), for attentive heads from tokens (B, N, D) or (B, T', S, D).

        Learned positions need T'; where it is not their number, they are interpolated linearly.

        Raises:
            ValueError: the features want a gradient, which this does not give.
        """
        if features.requires_grad:
            raise ValueError("a bank of probes gives its features no gradient: they are those of a frozen encoder")
        with torch.autocast(features.device.type, enabled=False):
            dropping = self.training and any(point.dropout for point in self.points)
            p = self.stacked
            if self.heads:
                vectors = self._attend(features)
            else:
                normed = F.layer_norm(features.float(), (self.dim,), eps=EPS)
                if not dropping:
                    args = (normed, p["weight"], p["bias"], p["gain"], p["offset"])
                    return _ScaledLinear.apply(*args)  # type: ignore[no-untyped-call,no-any-return]
                vectors = torch.addcmul(p["offset"][:, None], normed, p["gain"][:, None])
            if dropping:
                vectors = vectors * self._kept(len(features))
            return torch.baddbmm(p["bias"][:, None], vectors, p["weight"].mT)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Each head's mean cross-entropy (K,), with its label smoothing; its sum is what is differentiated.

        Args:
            logits: (K, B, C).
            target: class indices (B,).
        """
        likely = logits.log_softmax(-1)
        right = likely.gather(-1, target.expand(len(logits), -1)[..., None])[..., 0]
        losses = -right.mean(1)
        if any(point.label_smoothing for point in self.points):
            losses = losses + self.label_smoothing * (right - likely.mean(-1)).mean(1)
        return losses

    def state(self, k: int) -> dict[str, Tensor]:
        """The k-th head's parameters in the names and shapes of torch's own modules, as a plain probe's file has them.

        `pool` is a LayerNorm, or has `query` (1, 1, D), `norm` and `attention`, a torch.nn.MultiheadAttention;
        `classify.1` is a Linear. Learned positions are `positions` (steps, 1, D).
        """
        parts: dict[str, list[Tensor]] = {}
        for own, name in self.names.items():
            parts.setdefault(name, []).append(self.stacked[own].detach()[k])
        return {name: torch.cat(values) if len(values) > 1 else values[0] for name, values in parts.items()}

    @torch.no_grad()
    def load(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Puts parameters as `state` gives them, of any float dtype, into the k-th head."""
        for own, value in self._split(state).items():
            self.stacked[own][k] = value

    def alone(self, k: int) -> Bank:
        """A bank of the k-th head only, on the same device."""
        bank = Bank(self.points[k : k + 1], self.dim, self.classes, self.heads, self.steps)
        bank.load(0, self.state(k))
        return bank.to(self.dropout.device).train(self.training)

    def _split(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        third = {f"{part}_{kind}": i for i, part in enumerate(_SPLIT) for kind in ("weight", "bias")}
        return {
            own: state[name].chunk(3)[third[own]] if own in third else state[name] for own, name in self.names.items()
        }

    def _attend(self, tokens: Tensor) -> Tensor:
        """What the attention gives the classifier, (K, B, D)."""
        p, k, b, h, d = self.stacked, len(self.points), len(tokens), self.heads, self.dim
        query = torch.baddbmm(p["query_bias"][..., None], p["query_weight"], p["query"].view(k, d, 1))
        asked = torch.bmm(query.view(k * h, 1, -1), p["key_weight"].view(k * h, -1, d)).view(k, h, d)
        asked = asked * (p["gain"][:, None] / math.sqrt(d / h))
        if self.steps:
            times = F.interpolate(p["positions"][:, :, 0].mT, tokens.shape[1], mode="linear").mT
            # Anew in the backward pass: a float copy of the tokens for each head would fill the memory.
            means = [
                checkpoint(_placed_mean, tokens, *own, use_reentrant=False) for own in zip(times, asked, strict=True)
            ]
            mean = torch.cat(means, 1)
        else:
            mean = _AttentionMean.apply(tokens.flatten(1, -2), asked.flatten(0, 1))  # type: ignore[no-untyped-call]
        mean = mean.view(b, k, h, d).permute(1, 2, 0, 3)
        mean = torch.addcmul(p["offset"][:, None, None], mean, p["gain"][:, None, None])
        value_weight = p["value_weight"].view(k * h, -1, d)
        value = torch.baddbmm(p["value_bias"].view(k * h, 1, -1), mean.reshape(k * h, b, d), value_weight.mT)
        value = value.view(k, h, b, -1).transpose(1, 2).reshape(k, b, d)
        return torch.baddbmm(p["out_bias"][:, None], value, p["out_weight"].mT)

    def _kept(self, rows: int) -> Tensor:
        """What dropout multiplies with, (K, rows, D): 0, or 1 / (1 - dropout).

        A function of a head's own seed and of the step; the rows of all processes are drawn, and each takes those that
        torch's DistributedSampler gives it, so that any number of processes drops the same.
        """
        spread = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if spread else (0, 1)
        seeds = list(dict.fromkeys(point.seed for point in self.points))
        draws = []
        for seed in seeds:
            stream = np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, self.draws], np.uint64)))
            draws.append(stream.random((rows * world, self.dim), dtype=np.float32)[rank::world])
        self.draws += 1
        drawn = torch.from_numpy(np.stack(draws)).to(self.dropout.device)
        if len(seeds) > 1:
            drawn = drawn[[seeds.index(point.seed) for point in self.points]]
        return (drawn >= self.dropout) / (1 - self.dropout)


class StackedAdamW(Optimizer):
    """AdamW of a bank: each head has its own learning rate, weight decay, schedule and gradient norm.

    As `optim.adamw` with torch.nn.utils.clip_grad_norm_ does for one probe: a cosine to zero after a linear warm-up, no
    decay of biases and norms. Call `backward` on the sum of the losses before `step`.

    Args:
        bank: on its device.
        steps: in all; one number for every head, or one per head: a head that has done its steps rests.
        warmup: share of the steps.
        clip: largest norm of one head's gradient.

    Attributes:
        diverged: (K,) the first step, from 1, at which a head's gradient was not finite; 0 where there was none.
    """

    def __init__(self, bank: Bank, steps: int | Sequence[int], warmup: float = 0.05, clip: float = 1.0) -> None:
        trained = [p for p in bank.parameters() if p.requires_grad]
        decayed = [p for p in trained if p[0].ndim > 1]
        others = [p for p in trained if p[0].ndim <= 1]
        super().__init__([{"params": decayed, "decay": True}, {"params": others, "decay": False}], {})
        self.points, self.warmup, self.clip = bank.points, warmup, clip
        self.total = [steps] * len(bank.points) if isinstance(steps, int) else list(steps)
        self.done, self.count = 0, torch.zeros((), device=trained[0].device)  # steps; the kernel wants a tensor
        self.diverged = torch.zeros(len(bank.points), dtype=torch.int64, device=trained[0].device)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every head; what the closure returns where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        step = self.done
        self.done += 1
        self.count += 1
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms = torch.stack([torch.linalg.vector_norm(grad.flatten(1), dim=1) for grad in grads]).norm(dim=0)
        self.diverged.masked_fill_((self.diverged == 0) & ~norms.isfinite(), self.done)
        divisors = ((norms + 1e-6) / self.clip).clamp(min=1).unbind()
        for group in self.param_groups:
            # Head by head: the fused kernel takes one learning rate, but reads and writes memory once, where
            # element-wise operations over the stack do so nine times.
            gradients = zip(*(p.grad.unbind() for p in group["params"]), strict=True)
            heads = zip(self.points, self.total, divisors, self._of_heads(group), gradients, strict=True)
            for point, total, divisor, (weights, means, squares), gradient in heads:
                if factor := cosine(step, total, self.warmup):
                    torch._fused_adamw_(
                        weights,
                        gradient,
                        means,
                        squares,
                        [],
                        [self.count] * len(weights),
                        lr=point.lr * factor,
                        beta1=0.9,
                        beta2=0.999,
                        weight_decay=point.weight_decay if group["decay"] else 0.0,
                        eps=1e-8,
                        amsgrad=False,
                        maximize=False,
                        grad_scale=divisor,
                    )
        return loss

    def _of_heads(self, group: dict[str, Any]) -> list[Sequence[tuple[Tensor, ...]]]:
        """Views of each head's weights and of the running means of their gradients and squares, made once."""
        if "heads" not in group:
            stacks = [group["params"], *([torch.zeros_like(p) for p in group["params"]] for _ in range(2))]
            kinds = [list(zip(*(p.detach().unbind() for p in stack), strict=True)) for stack in stacks]
            group["heads"] = list(zip(*kinds, strict=True))
        return group["heads"]  # type: ignore[no-any-return]


class _AttentionMean(torch.autograd.Function):
    """Means (B, R, D) of layer-normed tokens (B, N, D) under R softmaxes over the tokens.

    The logits are the products of the normed tokens with rows (R, D). The tokens are normed in chunks, again in the
    backward pass; what is kept from one to the other is the attention (B, R, N), never a copy of the tokens.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, rows: Tensor) -> Tensor:
        shape = (len(tokens), len(rows))
        weights = rows.new_empty(*shape, tokens.shape[1])
        scales = rows.new_empty(len(tokens), 1, tokens.shape[1])
        means = rows.new_empty(*shape, tokens.shape[2])
        for some, weight, scale, mean in _chunks(tokens, weights, scales, means):
            centred = _centre(some)
            variance = torch.linalg.vector_norm(centred, dim=-1).square_().div_(tokens.shape[2])
            torch.rsqrt(variance.add_(EPS), out=scale[:, 0])
            logits = torch.matmul(rows, centred.mT).mul_(scale)
            torch.softmax(logits, -1, out=weight)
            weight.mul_(scale)  # the normed tokens are the centred ones times their scales
            torch.bmm(weight, centred, out=mean)
        ctx.save_for_backward(tokens, weights, scales, means)
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        tokens, weights, scales, means = ctx.saved_tensors
        average = (grad * means).sum(-1, keepdim=True)  # of the logits' gradient before the softmax, by its weights
        rows = torch.zeros_like(grad[0])
        for some, weight, scale, some_grad, mean in _chunks(tokens, weights, scales, grad, average):
            centred = _centre(some)
            logits = torch.bmm(some_grad, centred.mT).mul_(scale).sub_(mean).mul_(weight)
            rows += torch.bmm(logits, centred).sum(0)
        return None, rows


def _placed_mean(tokens: Tensor, times: Tensor, rows: Tensor) -> Tensor:
    """What `_AttentionMean` gives, of tokens (B, T', S, D) with positions (T', D) added, which have a gradient."""
    normed = F.layer_norm((tokens + times[:, None]).flatten(1, 2), tokens.shape[-1:], eps=EPS)
    return (rows @ normed.mT).softmax(-1) @ normed


class _ScaledLinear(torch.autograd.Function):
    """Logits (K, B, C) of K linear layers, each after its own gain and offset of the same vectors (B, D).

    Gains go into the weights, so that no head has vectors of its own; a few heads at a time, whose weights stay in the
    cache.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, weight: Tensor, bias: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        ctx.save_for_backward(vectors, weight, gain, offset)
        logits = weight.new_empty(len(weight), len(vectors), weight.shape[1])
        for w, c, g, o, out in _few(weight, bias, gain, offset, logits):
            constant = c + torch.bmm(o[:, None], w.mT)[:, 0]
            scaled = (w * g[:, None]).flatten(0, 1)
            out.copy_(torch.addmm(constant.flatten(), vectors, scaled.T).view(-1, *c.shape).transpose(0, 1))
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, Tensor, Tensor]:
        vectors, weight, gain, offset = ctx.saved_tensors
        weights, gains, offsets = (torch.empty_like(tensor) for tensor in (weight, gain, offset))
        total = grad.sum(1)
        parts = _few(weight, gain, offset, grad, total, weights, gains, offsets)
        for w, g, o, some, t, to_weight, to_gain, to_offset in parts:
            torch.mm(some.transpose(0, 1).flatten(1).T, vectors, out=to_weight.flatten(0, 1))
            torch.sum(to_weight * w, 1, out=to_gain)
            torch.bmm(t[:, None], w, out=to_offset[:, None])
            to_weight.mul_(g[:, None]).addcmul_(t[..., None], o[:, None])
        return None, weights, total, gains, offsets


def _few(weight: Tensor, *others: Tensor) -> Any:
    size = max(1, FEW // weight[0].numel())
    return zip(*(torch.split(tensor, size) for tensor in (weight, *others)), strict=True)


def _chunks(tokens: Tensor, *others: Tensor) -> Any:
    size = max(1, CHUNK // tokens[0].numel())
    return zip(*(torch.split(tensor, size) for tensor in (tokens, *others)), strict=True)


def _centre(tokens: Tensor) -> Tensor:
    tokens = tokens.float()
    return tokens - tokens.mean(-1, keepdim=True)


def _fresh(seed: int, dim: int, classes: int, heads: int) -> dict[str, Tensor]:
    """First weights of one probe, as torch's own modules have them, in the names of `Bank.state`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pool = nn.LayerNorm(dim)
        modules: dict[str, nn.Module] = {"pool": pool}
        state = {}
        if heads:
            state["pool.query"] = torch.randn(1, 1, dim) * 0.02
            modules = {"pool.norm": pool, "pool.attention": nn.MultiheadAttention(dim, heads)}
        modules["classify.1"] = nn.Linear(dim, classes)
    return state | {f"{at}.{name}": p.detach() for at, m in modules.items() for name, p in m.named_parameters()}
