"""Paired tests of two runs on the same examples: bootstrap, permutation, Holm, intervals of ranks."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from evalkit.metrics.bootstrap import (
    DRAWS_PER_CHUNK,
    LEVEL,
    RESAMPLES,
    AdditiveScore,
    ReweightedScore,
    Table,
    centered,
    difference,
    kinds,
    mean,
    numbered,
    sums_drawn,
)

# Below so many clusters nothing can be told: even if all agreed, chance would do so in 2 x 0.5^5 of all cases.
FEWEST = 6


def paired(
    a: AdditiveScore | ReweightedScore,
    b: AdditiveScore | ReweightedScore,
    clusters: Sequence[Hashable],
    seed: int,
    resamples: int | None = None,
) -> tuple[float, float, float]:
    """The 95 % interval (low, high) of b - a, and its p-value by the same paired bootstrap; NaN where unknown.

    Args:
        a: of N examples.
        b: of the same.
        clusters: (N,), the video of each.
        seed: of the draws.
        resamples: draws; None for as many as the scores can afford.
    """
    better = difference(a, b)
    member, n = numbered(clusters)
    drawn = better.drawn(member, n, seed, resamples or better.resamples)
    low, high = centered(drawn, better)
    if n < FEWEST or math.isnan(low):
        return low, high, 1.0 if not np.any(drawn) else math.nan
    return low, high, _share(drawn - np.median(drawn), better)


def exchanged(
    a: AdditiveScore, b: AdditiveScore, clusters: Sequence[Hashable], seed: int, resamples: int = RESAMPLES
) -> float:
    """The p-value, two-sided, of an exchange test between two scores of the same examples.

    Args:
        a: of N examples.
        b: of the same.
        clusters: (N,), the video of each, whose answers are exchanged together.
        seed: of the draws.
        resamples: draws; p is at least 1 / (2 resamples + 2).

    Returns:
        p; NaN where there are fewer than six videos.
    """
    member, n = numbered(clusters)
    if n < FEWEST:
        return math.nan
    one, other = a.by_cluster(member, n), b.by_cluster(member, n)
    apart, alike = kinds(other - one)
    generator, both = np.random.default_rng(seed), (one + other).sum(0)
    step = max(1, DRAWS_PER_CHUNK // len(alike))
    sizes = [(min(step, resamples - start), len(alike)) for start in range(0, resamples, step)]
    moved = np.concatenate([(2 * generator.binomial(alike, 0.5, size) - alike) @ apart for size in sizes])
    with np.errstate(divide="ignore", invalid="ignore"):
        return _share(b.of((both + moved) / 2) - a.of((both - moved) / 2), b - a)


def _share(drawn: Table, seen: float) -> float:
    """How many of these are further from 0 than what was seen, which is one of them; what is as far counts half.

    That is the mid-p value (Fagerland, Lydersen and Laake 2013, https://doi.org/10.1186/1471-2288-13-91): counted in
    full, ties make a test of right and wrong find less than it may.
    """
    if abs(seen) <= 1e-9:
        return 1.0
    beyond = np.abs(drawn) - abs(seen)
    return float((0.5 + (beyond > 1e-9).sum() + 0.5 * (np.abs(beyond) <= 1e-9).sum()) / (1 + len(drawn)))


def holm(p: Sequence[float]) -> list[float]:
    """P-values that hold for all comparisons together (Holm 1979); a NaN stays, and is not counted."""
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    found, largest = list(p), 0.0
    for k, (value, i) in enumerate(known):
        largest = found[i] = max(largest, min(1.0, value * (len(known) - k)))
    return found


def rank_intervals(
    values: Sequence[npt.ArrayLike | AdditiveScore], clusters: Sequence[Hashable], seed: int, resamples: int = 2_000
) -> list[tuple[int, int]]:
    """The best and the worst rank (from 1) that each run of a board may have, at 95 %; runs that tie share them.

    A run is beaten by those that are better beyond the error of the difference. That error is the largest over all
    other runs at once, in units of each one's own, by a paired bootstrap of the clusters (Mogstad, Romano, Shaikh and
    Wilhelm 2024, https://doi.org/10.1093/restud/rdad006): the more runs, the wider.

    Args:
        values: of each run, what each example scores (N,), or its score that is made of sums; higher is better.
        clusters: (N,), the video of each example, the same for all runs.
        seed: of the draws.
        resamples: draws.
    """
    member, n = numbered(clusters)
    if n < FEWEST:
        return [(1, len(values))] * len(values)
    scores = [one if isinstance(one, AdditiveScore) else mean(one) for one in values]
    ends = np.cumsum([one.parts.shape[1] for one in scores])[:-1]

    def of(sums: Table) -> Table:
        return np.stack([one.of(own) for one, own in zip(scores, np.split(sums, ends, -1), strict=True)], -1)

    drawn = sums_drawn(np.concatenate([one.by_cluster(member, n) for one in scores], 1), of, seed, resamples)
    found = []
    for i, score in enumerate(scores):
        ahead = np.array(scores) - score
        moved = drawn - drawn[:, i : i + 1]
        moved -= moved.mean(0)
        error = np.maximum(moved.std(0), 1e-9)  # of the run against itself, and against its equal, there is none
        sure = error * np.quantile(np.abs(moved / error).max(1), LEVEL)
        found.append((1 + int((ahead > sure).sum()), len(scores) - int((-ahead > sure).sum())))
    return found
