"""Traces of training in an encoder's weights."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import torch
from torch import nn

from evalkit.canary.finding import Finding


class WeightStats(NamedTuple):
    """Statistics that distinguish trained weights from random ones.

    Attributes:
        random_like: names of the matrices whose largest singular value is no larger than that of random numbers.
        strong: number of matrices whose largest singular value is at least 1.4 times as large.
        mixed: share of the kinds of matrices, of which a model has three or more (one a layer), that have both a
            random-like and a strong one.
        matrices: number of matrices that were measured.
        random_share: share of the values of all matrices that lie in random-like ones.
        initial_gains: share of the gains of normalization layers that are exactly one; nan if there are none.
        partly_initial_gains: share of those layers of whose gains 20 to 80 % are exactly one.
        zero_centered_gains: share of those layers whose gains are as often below as above zero.
    """

    random_like: list[str]
    strong: int
    mixed: float
    matrices: int
    random_share: float
    initial_gains: float
    partly_initial_gains: float
    zero_centered_gains: float

    @property
    def trained(self) -> bool:
        """Whether more than a tenth of the weights is; False if there is no matrix to measure."""
        return self.matrices > 0 and self.random_share < 0.9

    def finding(self) -> Finding:
        """The canary's finding.

        Early in training, too, some matrices are strong and others random-like. But then whole kinds are strong, in
        every layer and fewer than a quarter of all matrices (measured), and no gain is exactly one any more.
        """
        random, count = len(self.random_like), self.matrices
        if not count:
            return Finding("weights", "unknown", "too small to tell whether they are trained")
        detail = f"{random} of {count} weight matrices look untrained ({self.random_share:.0%} of the weights)"
        if self.random_like:
            detail += f", first: {self.random_like[0]}"
        if self.initial_gains > 0:
            detail += f"; {self.initial_gains:.0%} of the normalization gains have their initial value of 1"
        if not self.trained:
            return Finding("weights", "warning", f"the encoder looks untrained: {detail}")
        two_groups = (
            count >= 16
            and random >= 0.15 * count
            and self.strong >= 0.35 * count
            and random + self.strong >= 0.85 * count
        )
        # In a model that adds one to its gains, all of them are zero-centered.
        partial = two_groups or self.mixed >= 0.5 or self.initial_gains >= 0.2 or 0.2 <= self.zero_centered_gains <= 0.8
        if (self.random_share >= 0.1 and partial) or self.partly_initial_gains >= 0.3:
            return Finding("weights", "failed", f"{detail}. Load the whole checkpoint")
        if self.random_share >= 0.1 or 0.2 <= self.initial_gains <= 0.8:  # all of them: folded into the next matrix
            return Finding("weights", "warning", detail)
        return Finding("weights", "ok", f"trained: {detail}")


def weight_statistics(module: nn.Module) -> WeightStats:
    """Measure traces of training in an encoder's weights.

    A matrix of independent random numbers with standard deviation s has no singular value beyond about
    s (sqrt(rows) + sqrt(columns)) (Marchenko and Pastur); training adds directions that reach far beyond. Fresh
    normalization layers have gains of exactly one, trained ones hardly ever.
    """
    random_like, sizes = [], []
    kinds: dict[str, list[float]] = {}
    gains = [
        parameter.detach().float().flatten()
        for layer in module.modules()
        if "Norm" in type(layer).__name__
        for name, parameter in layer.named_parameters(recurse=False)
        if name == "weight" and parameter.numel() > 1
    ]
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2 or not parameter.is_floating_point():
            continue
        matrix = parameter.detach().float().flatten(1)
        rows, columns = matrix.shape
        if min(rows, columns) < 24:  # too few for the law of large numbers
            continue
        if not torch.isfinite(matrix).all():  # the encoder's output will show it
            continue
        scale = float(matrix.square().mean().sqrt()) * (math.sqrt(rows) + math.sqrt(columns))
        strongest = float(torch.svd_lowrank(matrix, q=6, niter=2)[1][0]) / scale if scale else 0.0
        sizes.append(matrix.numel())
        excess = strongest / (1.03 + min(rows, columns) ** (-2 / 3))  # small ones scatter more
        kinds.setdefault(re.sub(r"\d+", "", name), []).append(excess)
        if excess < 1:
            random_like.append((name, matrix.numel()))
    repeated = [strengths for strengths in kinds.values() if len(strengths) > 2]
    mixed = [strengths for strengths in repeated if min(strengths) < 1 and max(strengths) > 1.4]
    strong = sum(excess > 1.4 for strengths in kinds.values() for excess in strengths)
    ones = [float((values == 1).float().mean()) for values in gains]
    layers = max(1, len(gains))
    return WeightStats(
        random_like=[name for name, _ in random_like],
        strong=strong,
        mixed=len(mixed) / max(1, len(repeated)),
        matrices=len(sizes),
        random_share=sum(size for _, size in random_like) / max(1, sum(sizes)),
        initial_gains=float((torch.cat(gains) == 1).float().mean()) if gains else math.nan,
        partly_initial_gains=sum(0.2 <= share <= 0.8 for share in ones) / layers,
        zero_centered_gains=sum(bool(values.mean().abs() < values.std() / 2) for values in gains) / layers,
    )
