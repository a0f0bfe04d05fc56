"""How much of an encoder training has touched, read off its weights alone."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import torch
from torch import nn

from evalkit.canary.finding import Finding


class WeightStats(NamedTuple):
    """How much of an encoder training has touched.

    Attributes:
        raw: names of the matrices with no direction stronger than independent random numbers have.
        strong: how many have one 1.4 times as strong.
        mixed: share of the kinds of matrices, of which a model has three or more (one a layer), where one is raw and
            another strong.
        matrices: how many were looked at.
        raw_share: of the values of all matrices.
        start_share: of the gains of normalization layers that are exactly one; nan where there are none.
        torn: share of those layers with both, many gains of exactly one and many others.
        noisy: share of those layers whose gains are as often below as above zero.
    """

    raw: list[str]
    strong: int
    mixed: float
    matrices: int
    raw_share: float
    start_share: float
    torn: float
    noisy: float

    @property
    def trained(self) -> bool:
        """Whether more than a tenth is; no where there is nothing to tell it by."""
        return self.matrices > 0 and self.raw_share < 0.9

    def finding(self) -> Finding:
        """What that means.

        Early in training, too, some matrices have strong directions and others none. But then whole kinds of them have
        in every layer, fewer than a quarter of all (measured), and no gain is exactly one any more.
        """
        raw, count = len(self.raw), self.matrices
        if not count:
            return Finding("weights", "unknown", "too small to tell whether they are trained")
        told = f"{raw} of {count} matrices ({self.raw_share:.0%} of the weights) look random"
        if not math.isnan(self.start_share):
            told += f", {self.start_share:.0%} of the gains are exactly one"
        if self.raw:
            told += f", {self.raw[0]} first"
        if not self.trained:
            return Finding("weights", "warning", f"the encoder is untrained: {told}")
        parted = (
            count >= 16 and raw >= 0.15 * count and self.strong >= 0.35 * count and raw + self.strong >= 0.85 * count
        )
        # All of them are noisy where a model adds one to its gains.
        parted = parted or self.mixed >= 0.5 or self.start_share >= 0.2 or 0.2 <= self.noisy <= 0.8
        if (self.raw_share >= 0.1 and parted) or self.torn >= 0.3:
            return Finding("weights", "failed", f"a part of the weights is random: {told}. Load the whole checkpoint")
        if self.raw_share >= 0.1 or 0.2 <= self.start_share <= 0.8:  # all of them: folded into the next matrix
            return Finding("weights", "warning", f"a part of the weights is hardly trained: {told}")
        return Finding("weights", "ok", f"they look trained: {told}")


def weight_statistics(module: nn.Module) -> WeightStats:
    """Looks for traces of training in an encoder's weights.

    A matrix of independent random numbers with standard deviation s has no singular value beyond about
    s (sqrt(rows) + sqrt(columns)) (Marchenko and Pastur); training adds directions that reach far beyond. Fresh
    normalization layers have gains of exactly one, trained ones hardly ever.
    """
    raw, sizes = [], []
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
        if not torch.isfinite(matrix).all():  # told by what the encoder then gives
            continue
        scale = float(matrix.square().mean().sqrt()) * (math.sqrt(rows) + math.sqrt(columns))
        strongest = float(torch.svd_lowrank(matrix, q=6, niter=2)[1][0]) / scale if scale else 0.0
        sizes.append(matrix.numel())
        excess = strongest / (1.03 + min(rows, columns) ** (-2 / 3))  # small ones scatter more
        kinds.setdefault(re.sub(r"\d+", "", name), []).append(excess)
        if excess < 1:
            raw.append((name, matrix.numel()))
    repeated = [strengths for strengths in kinds.values() if len(strengths) > 2]
    mixed = [strengths for strengths in repeated if min(strengths) < 1 and max(strengths) > 1.4]
    strong = sum(excess > 1.4 for strengths in kinds.values() for excess in strengths)
    ones = [float((values == 1).float().mean()) for values in gains]
    layers = max(1, len(gains))
    return WeightStats(
        [name for name, _ in raw],
        strong,
        len(mixed) / max(1, len(repeated)),
        len(sizes),
        sum(size for _, size in raw) / max(1, sum(sizes)),
        float((torch.cat(gains) == 1).float().mean()) if gains else math.nan,
        sum(0.2 <= share <= 0.8 for share in ones) / layers,
        sum(bool(values.mean().abs() < values.std() / 2) for values in gains) / layers,
    )
