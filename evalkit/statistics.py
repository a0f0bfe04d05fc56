"""How far a score may be off: 95 % bootstrap intervals that draw whole videos, not single examples.

Examples of one video are not independent, so the videos are what is drawn, with replacement, and all examples of a
drawn video come with it (percentile method; Efron and Tibshirani 1993, chapters 8 and 13).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]

LEVEL = 0.95
_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def interval(
    values: npt.ArrayLike, clusters: Sequence[Hashable], seed: int, resamples: int = 10_000
) -> tuple[float, float]:
    """The 95 % interval (low, high) of the mean of `values`, clustered.

    A bootstrap knows only what it saw: where every example is right, or all belong to one video, its interval has no
    width. But n videos may all have missed any group of videos that makes up less than 1 - 0.025^(1/n) of the world
    (with a chance above 2.5 %), and that group may be all wrong or all right. The interval therefore always reaches
    from mean x 0.025^(1/n) to 1 - (1 - mean) x 0.025^(1/n). For all right and all wrong samples this is exactly the
    interval of Clopper and Pearson (1934); one video, all right, gives 0.025 to 1; with many videos and a middling
    score the bootstrap is wider and decides alone.

    Args:
        values: (N,), each in 0..1, N >= 1.
        clusters: (N,), the video of each example.
        seed: of the draws; the same seed gives the same interval.
        resamples: draws.

    Returns:
        low and high in 0..1, low <= mean <= high.
    """
    per_example = np.asarray(values, dtype=np.float64)
    member, n = _numbered(clusters)
    total = np.bincount(member, weights=per_example, minlength=n)
    size = np.bincount(member, minlength=n).astype(np.float64)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, 1_000_000 // n)  # 1e6 draws at a time: flat memory, whatever n and resamples are
    for start in range(0, resamples, step):
        drawn = generator.integers(n, size=(min(step, resamples - start), n), dtype=np.int32)
        sums = total[drawn].sum(axis=1)
        means[start : start + step] = sums / (size[drawn].sum(axis=1) if size.max() > 1 else n)
    low, high = np.quantile(means, _TAILS)
    mean = per_example.mean()
    seen = _TAILS[0] ** (1 / n)
    return float(min(low, mean * seen)), float(max(high, 1 - (1 - mean) * seen))


def interval_of(
    statistic: Callable[[Indices], npt.ArrayLike], clusters: Sequence[Hashable], seed: int, resamples: int = 1_000
) -> tuple[Any, Any]:
    """The 95 % interval (low, high) of a statistic of the whole split, such as a median rank or an average precision.

    Nothing is known about the range of such a statistic, so where the bootstrap has no width (one video, or every draw
    gives the same) the interval is unknown rather than a claim of certainty; the same where a draw gives NaN.

    Args:
        statistic: example indices (M,), with repeats -> a float, or several (S,), each of which gets its interval from
            the same draws.
        clusters: (N,), the video of each example, N >= 1.
        seed: of the draws.
        resamples: draws; each costs one call of `statistic`.

    Returns:
        low and high, a float or (S,) as `statistic` gives; NaN where unknown.
    """
    member, n = _numbered(clusters)
    by_cluster = np.split(np.argsort(member, kind="stable"), np.cumsum(np.bincount(member, minlength=n))[:-1])
    generator = np.random.default_rng(seed)
    drawn = np.stack(
        [
            np.asarray(statistic(np.concatenate([by_cluster[c] for c in generator.integers(n, size=n)])), np.float64)
            for _ in range(resamples)
        ]
    )
    low, high = np.where((drawn == drawn[0]).all(axis=0), np.nan, np.quantile(drawn, _TAILS, axis=0))
    return low[()], high[()]


def _numbered(clusters: Sequence[Hashable]) -> tuple[Indices, int]:
    """Each example's cluster as a number from 0, and how many clusters there are."""
    number = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    return np.array([number[cluster] for cluster in clusters], dtype=np.intp), len(number)
