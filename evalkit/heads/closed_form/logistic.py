"""Logistic regression along a path of penalties, by L-BFGS."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.heads.closed_form.inputs import as_columns, blocks, check_binary, check_features, check_grid
from evalkit.heads.closed_form.ridge import LinearClassifier, reduced

_C_BOUNDS = (1e-12, 1e12)  # float32 weights and gradients stay finite within
_MAX_ITERATIONS = 1000  # of L-BFGS at one C
_HISTORY = 10  # pairs of changes that L-BFGS keeps
_FLOOR = -40.0  # log-odds are clamped here: two such factors, e^-80, are far from denormal numbers, which are slow
_MASKED = -1e30  # a logit whose softmax is 0


def logistic(
    x: Tensor, y: Tensor, cs: Sequence[float], classes: int | None = None, tolerance: float = 1e-2
) -> LinearClassifier:
    """Logistic regression at every C: the least C * (sum of the losses) + ||W||^2 / 2, the bias free.

    The objective is that of scikit-learn's LogisticRegression: multinomial for more than two classes, binomial for two
    (half its weight stands in either column here), and one binomial per column for (N, T) targets.

    It is solved from the smallest C to the largest by one L-BFGS run: each C starts at the last solution and keeps the
    curvature pairs found so far, because when W changes by s and the gradient of the losses by u, the
    whole gradient changes by C u + s, for any C. Features are turned into their principal axes, where the Hessian
    is nearly diagonal, and that diagonal (variance of the axis x mean p (1 - p) of the class) preconditions. The slope
    along a step needs no product with the features, so that an iteration costs two, however many steps are tried. The
    first step at each C goes on as from the last C but one to the last, which costs one product. That leaves two or
    three iterations per C; side by side, all from zero, it would be tens.

    Stops at ||gradient|| <= tolerance * max(||W||, spread / 10). The penalty bends every direction of W by at least 1,
    so the first bounds what is left: W is within tolerance of the solution, relatively, and the objective within
    tolerance^2 of the penalty (the bias at its optimum); usually both are far closer. The spread, C times the root of
    the summed squares of the N terms of the gradient, is how much the gradient would change with other examples: it
    decides where examples are many and the penalty is weak, where W is known only to that, and float32 sees no more.

    Args:
        x: (N, D) features; computed in float64 where they are, else in float32.
        y: (N,) class indices or (N, T) of 0 and 1.
        cs: the grid, each from 1e-12 to 1e12, in any order.
        classes: how many there are, for class indices.
        tolerance: relative; what it bounds is said above. Below 1e-3, give float64 features.

    Returns:
        Weights (G, D, T) and biases (G, T), in the order of `cs`.

    Raises:
        UserError: features are not finite, targets do not fit, or a C is out of bounds.
    """
    check_features(x, "training")
    check_grid(cs, "C", *_C_BOUNDS)
    columns = as_columns(y, len(x), classes).to(x.device)
    check_binary(columns)
    count = columns.sum(0)
    seen = count > 0
    if y.ndim == 2:
        seen &= count < len(x)  # all ones: its bias has no bound either
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    losses = _Binomial(columns[:, seen]) if y.ndim == 2 else _Multinomial(columns[:, seen].argmax(1))
    # Two columns w and -w are penalized half as much as the one column 2w of a binomial model.
    share = 0.5 if y.ndim == 1 and int(seen.sum()) == 2 else 1.0

    mean = x.mean(0, dtype=torch.float64)
    _, s, vt = torch.linalg.svd(reduced(x, mean), full_matrices=False)
    axes = vt[s > s.max() * max(x.shape) * torch.finfo(torch.float64).eps].T
    z = x.new_ones(len(x), axes.shape[1] + 1, dtype=dtype)  # the last column carries the bias
    for start, rows in blocks(x, 8192):
        z[start : start + len(rows), :-1] = ((rows - mean) @ axes).to(dtype)

    weight = x.new_zeros(len(cs), x.shape[1], len(seen), dtype=dtype)
    bias = torch.where(seen | (count == 0), -math.inf, math.inf).to(dtype).repeat(len(cs), 1)
    order = sorted(range(len(cs)), key=lambda i: cs[i])
    path = _path(z, losses, int(seen.sum()), [share * cs[i] for i in order], tolerance)
    for i, solution in zip(order, path, strict=True):
        turned = axes @ solution[:-1].double()
        # The loss does not see a number added to all biases of a multinomial model: their mean is set to 0.
        free = solution[-1].double() - (solution[-1].double().mean() if y.ndim == 1 else 0)
        weight[i, :, seen] = turned.to(dtype)
        bias[i, seen] = (free - mean @ turned).to(dtype)
    return LinearClassifier(weight, bias)


class _Losses(NamedTuple):
    """Sum of the losses, and their derivatives in the logits (N, T).

    |derivative| (1 - |derivative|) is p (1 - p): exact to the last bit also where p is all but 1.
    """

    total: float
    slope: Tensor


class _Multinomial:
    """Cross-entropy of the softmax against class indices (N,)."""

    def __init__(self, label: Tensor) -> None:
        self.label = label[:, None]

    def __call__(self, logits: Tensor) -> _Losses:
        others = logits.scatter(1, self.label, _MASKED)
        best = others.logsumexp(1, keepdim=True)
        margin = best - logits.gather(1, self.label)  # log-odds against the right class: no cancellation near p = 1
        wrong = margin.clamp(min=_FLOOR).sigmoid_()
        slope = others.sub_(best).clamp_(min=_FLOOR).exp_().mul_(wrong).scatter_(1, self.label, -wrong)
        return _Losses(F.softplus(margin).sum(dtype=torch.float64).item(), slope)


class _Binomial:
    """Cross-entropy of the sigmoid against columns (N, T) of 0 and 1, each by itself."""

    def __init__(self, columns: Tensor) -> None:
        self.sign = (1 - 2 * columns).float()

    def __call__(self, logits: Tensor) -> _Losses:
        against = logits * self.sign
        loss = F.softplus(against).sum(dtype=torch.float64).item()
        return _Losses(loss, against.clamp_(min=_FLOOR).sigmoid_() * self.sign)


class _State(NamedTuple):
    """Iterate of L-BFGS: weights, their logits, the losses, and the losses' gradient in the weights."""

    weight: Tensor
    logits: Tensor
    losses: _Losses
    gradient: Tensor


def _path(
    z: Tensor, losses: _Multinomial | _Binomial, columns: int, cs: Sequence[float], tolerance: float
) -> Iterator[Tensor]:
    """Yield solutions (D + 1, T) for rising cs, the bias in the last row, from z (N, D + 1): principal axes and a 1."""
    penalized = z.new_ones(z.shape[1], 1)
    penalized[-1] = 0
    variance = (z * z).sum(0, dtype=torch.float64).to(z.dtype)[:, None]
    logits = z.new_zeros(len(z), columns)
    first = losses(logits)
    state = _State(z.new_zeros(z.shape[1], columns), logits, first, z.T @ first.slope)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=_HISTORY)  # changes of the weights and of the losses' gradient
    trend: tuple[Tensor, Tensor] | None = None  # weights and logits: from the last solution but one to the last
    for c in cs:
        before = state.weight, state.logits
        for _ in range(_MAX_ITERATIONS):
            gradient = c * state.gradient + penalized * state.weight
            # Each entry of the gradient sums N terms; this is the root of the sum of all their squares.
            spread = c * (variance.mean() * state.losses.slope.square().sum() * (len(variance) / len(z))).sqrt()
            if gradient.norm() <= tolerance * max((penalized * state.weight).norm(), spread / 10):
                break
            ahead, trend = trend, None  # tried once: its logits are known, where another direction costs a product
            if ahead and _dot(gradient, ahead[0]) < 0:
                direction, logits = ahead
            else:
                ahead = None
                size = state.losses.slope.abs()
                curvature = c * variance * (size - size * size).mean(0) + penalized
                direction = _direction(gradient, [(s, c * u + penalized * s) for s, u in pairs], curvature)
                logits = z @ direction
            after = _line_search(z, losses, c, penalized, state, gradient, direction, logits)
            if after is None and ahead is None:
                if not pairs:
                    break
                pairs.clear()  # curvature from far away may mislead: once more without it
            if after is None:
                continue
            pairs.append((after.weight - state.weight, after.gradient - state.gradient))
            state = after
        trend = state.weight - before[0], state.logits - before[1]
        yield state.weight


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]], curvature: Tensor) -> Tensor:
    """Minus the gradient times the inverse Hessian as L-BFGS knows it (Nocedal and Wright 2006, algorithm 7.4).

    Starts from the diagonal `curvature`, scaled so that it fits the last pair.
    """
    pairs = [(s, u) for s, u in pairs if _dot(s, u) > 0]
    q, parts = gradient.clone(), []
    for s, u in reversed(pairs):
        parts.append(_dot(s, q) / _dot(s, u))
        q -= parts[-1] * u
    q /= curvature
    if pairs:
        s, u = pairs[-1]
        q *= _dot(s, u) / _dot(u, u / curvature)
    for (s, u), part in zip(pairs, reversed(parts), strict=True):
        q += (part - _dot(u, q) / _dot(s, u)) * s
    return -q


def _line_search(
    z: Tensor,
    losses: _Multinomial | _Binomial,
    c: float,
    penalized: Tensor,
    state: _State,
    gradient: Tensor,
    direction: Tensor,
    logits: Tensor,
) -> _State | None:
    """Line search: the state after a step along `direction` that halves the slope, None where no step descends.

    `logits` are z times the direction. The objective is convex along the step, so its slope only rises: the root is
    bracketed, then found by secants.
    """
    weight = penalized * state.weight
    along, square = _dot(weight, direction), _dot(penalized * direction, direction)
    start = _dot(gradient, direction)
    low, low_slope, high, high_slope = 0.0, start, math.inf, math.inf
    step = 1.0
    for _ in range(20):
        tried = state.logits + step * logits
        tried_losses = losses(tried)
        slope = c * _dot(tried_losses.slope, logits) + along + step * square
        rise = c * (tried_losses.total - state.losses.total) + step * along + step * step * square / 2
        # Float32 logits give the losses to about 1e-8 of their sum; a rise below that is none.
        if abs(slope) <= 0.5 * abs(start) and rise <= 1e-8 * c * state.losses.total:
            return _State(state.weight + step * direction, tried, tried_losses, z.T @ tried_losses.slope)
        if slope < 0:
            low, low_slope = step, slope
        else:
            high, high_slope = step, slope
        if math.isinf(high):
            # The straight line through the slopes at 0 and here, but at least half as far again and at most ten times.
            reach = step * start / (start - slope) if slope > start else math.inf
            step = min(max(reach, 1.5 * step), 10 * step)
        else:
            step = low + (high - low) * min(max(low_slope / (low_slope - high_slope), 0.1), 0.9)
    return None


def _dot(a: Tensor, b: Tensor) -> float:
    """Dot product, accumulated in float64."""
    return (a * b).sum(dtype=torch.float64).item()
