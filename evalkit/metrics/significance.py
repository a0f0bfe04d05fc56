"""Paired tests of two runs on the same examples: bootstrap, permutation, Holm, intervals of ranks."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from evalkit.metrics.bootstrap import (
    ALIKE,
    DRAWS_PER_CHUNK,
    LEVEL,
    RESAMPLES,
    AdditiveScore,
    ReweightedScore,
    Table,
    bootstrap_sums,
    centered,
    difference,
    mean,
    number_clusters,
    unique_rows,
)

# With fewer clusters no test can reach 5 %: chance alone makes all five agree in 2 x 0.5^5 of all cases.
MIN_CLUSTERS = 6


def paired_bootstrap(
    a: AdditiveScore | ReweightedScore,
    b: AdditiveScore | ReweightedScore,
    clusters: Sequence[Hashable],
    seed: int,
    resamples: int | None = None,
) -> tuple[float, float, float]:
    """Paired bootstrap: the 95 % interval (low, high) of b - a and its two-sided p-value; NaN if unknown.

    Args:
        a: of N examples.
        b: of the same.
        clusters: (N,), the video of each.
        seed: of the draws.
        resamples: draws; None for the scores' own number.
    """
    better = difference(a, b)
    member, n = number_clusters(clusters)
    drawn = better.resample(member, n, seed, resamples or better.resamples)
    low, high = centered(drawn, better)
    if n < MIN_CLUSTERS or math.isnan(low):
        return low, high, 1.0 if (np.abs(drawn) < ALIKE).all() else math.nan
    return low, high, _mid_p(drawn - np.median(drawn), better)


def exchange_test(
    a: AdditiveScore, b: AdditiveScore, clusters: Sequence[Hashable], seed: int, resamples: int = RESAMPLES
) -> float:
    """The two-sided p-value of a permutation test that exchanges the two runs' answers per video.

    Args:
        a: of N examples.
        b: of the same.
        clusters: (N,), the video of each, whose answers are exchanged together.
        seed: of the draws.
        resamples: draws; p is at least 1 / (2 resamples + 2).

    Returns:
        p; NaN with fewer than six videos.
    """
    member, n = number_clusters(clusters)
    if n < MIN_CLUSTERS:
        return math.nan
    sums_a, sums_b = a.by_cluster(member, n), b.by_cluster(member, n)
    apart, counts = unique_rows(sums_b - sums_a)
    generator, both = np.random.default_rng(seed), (sums_a + sums_b).sum(0)
    step = max(1, DRAWS_PER_CHUNK // len(counts))
    sizes = [(min(step, resamples - start), len(counts)) for start in range(0, resamples, step)]
    moved = np.concatenate([(2 * generator.binomial(counts, 0.5, size) - counts) @ apart for size in sizes])
    with np.errstate(divide="ignore", invalid="ignore"):
        return _mid_p(b.of((both + moved) / 2) - a.of((both - moved) / 2), b - a)


def _mid_p(drawn: Table, observed: float) -> float:
    """The share of draws further from 0 than the observed value; it is one of them, and ties count half.

    This is the mid-p value (Fagerland, Lydersen and Laake 2013, https://doi.org/10.1186/1471-2288-13-91): counted in
    full, ties make a test of right and wrong find less than it may.
    """
    if abs(observed) <= 1e-9:
        return 1.0
    beyond = np.abs(drawn) - abs(observed)
    return float((0.5 + (beyond > 1e-9).sum() + 0.5 * (np.abs(beyond) <= 1e-9).sum()) / (1 + len(drawn)))


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for multiple comparisons (Holm 1979); NaN stays NaN and is not counted."""
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    corrected, largest = list(p), 0.0
    for k, (value, i) in enumerate(known):
        largest = corrected[i] = max(largest, min(1.0, value * (len(known) - k)))
    return corrected


def rank_intervals(
    values: Sequence[npt.ArrayLike | AdditiveScore], clusters: Sequence[Hashable], seed: int, resamples: int = 2_000
) -> list[tuple[int, int]]:
    """95 % intervals (best, worst) of the rank, from 1, of each run of a board.

    A run is beaten by those that are better beyond the error of the difference. That error is the largest over all
    other runs at once, in units of each one's own, by a paired bootstrap of the clusters (Mogstad, Romano, Shaikh and
    Wilhelm 2024, https://doi.org/10.1093/restud/rdad006): the more runs, the wider.

    Args:
        values: of each run, the examples' scores (N,) or its `AdditiveScore`; higher is better.
        clusters: (N,), the video of each example, the same for all runs.
        seed: of the draws.
        resamples: draws.
    """
    member, n = number_clusters(clusters)
    if n < MIN_CLUSTERS:
        return [(1, len(values))] * len(values)
    scores = [value if isinstance(value, AdditiveScore) else mean(value) for value in values]
    ends = np.cumsum([score.parts.shape[1] for score in scores])[:-1]

    def of(sums: Table) -> Table:
        each = zip(scores, np.split(sums, ends, -1), strict=True)
        return np.stack([score.of(score_sums) for score, score_sums in each], -1)

    drawn = bootstrap_sums(np.concatenate([score.by_cluster(member, n) for score in scores], 1), of, seed, resamples)
    intervals = []
    for i, score in enumerate(scores):
        ahead = np.array(scores) - score
        moved = drawn - drawn[:, i : i + 1]
        moved -= moved.mean(0)
        error = np.maximum(moved.std(0), 1e-9)  # of the run against itself, and against its equal, there is none
        sure = error * np.quantile(np.abs(moved / error).max(1), LEVEL)
        intervals.append((1 + int((ahead > sure).sum()), len(scores) - int((-ahead > sure).sum())))
    return intervals


def students_t(degrees: int, share: float = 0.95) -> float:
    """The number that the absolute value of Student's t stays below in this share of all cases.

    By bisection of the distribution's finite series (Abramowitz and Stegun, 26.7.3 and 26.7.4).

    Args:
        degrees: of freedom, 1 or more.
        share: 0 < share < 1.
    """
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(degrees)
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _below_angle(degrees, middle) < share else (low, middle)
    return math.tan(middle) * math.sqrt(degrees)


def _below_angle(degrees: int, angle: float) -> float:
    """The share of all cases whose |t| is below tan(angle) sqrt(degrees)."""
    odd = degrees % 2
    sine, cosine = math.sin(angle), math.cos(angle)
    total, term = 0.0, cosine if odd else 1.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * cosine * cosine
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
