"""Bootstrap: 95 % intervals of scores, resampled by video, not by example.

Examples of one video are not independent, so videos are drawn, with replacement, and all examples of a drawn
video come with it (Efron and Tibshirani 1993, chapters 8 and 13).

The interval of a mean is the percentile one. A draw holds some videos twice, which moves scores that are no means: two
copies of a video lie side by side in every ranking, and raise an average precision. That shift says nothing of the
score, which is what one split of this size gives; so the draws are moved back until their median is the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]
Table = npt.NDArray[np.float64]
Draws = npt.NDArray[np.float32]  # how often each example counts, in each of R draws: (N, R)

LEVEL = 0.95
ALIKE = 1e-7  # by how much draws differ that are equal but for rounding; results have six decimals
PERCENT = (0.0, 100.0)  # the limits of most scores
RESAMPLES = 10_000
DRAWS_PER_CHUNK = 1_000_000  # numbers drawn at a time: flat memory, whatever the sizes are
MAX_CACHED_BYTES = 32_000_000  # of draws that are kept for the next metric
_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


class Clusters(NamedTuple):
    """The cluster of each example.

    Attributes:
        member: (N,), the index of each example's cluster.
        n: number of clusters.
    """

    member: Indices
    n: int


class _CorpusScore(float):
    """A score over a whole split.

    Attributes:
        limits: the least and the largest that it can be, of any examples; None if unknown.
    """

    limits: tuple[float, float] | None = None

    def reach(self, unseen: float) -> tuple[float, float] | None:
        """The least and the largest score if a share of all videos, none of which was drawn, is all wrong or right.

        Args:
            unseen: the share, in 0..1.
        """
        if self.limits is None:
            return None
        low, high = self.limits
        return self - (self - low) * unseen, self + (high - self) * unseen


class AdditiveScore(_CorpusScore):
    """A corpus score, in percent, that is a function of sums over examples, so bootstrap resamples need no re-scoring.

    An example's summands are fixed by the whole split (as document frequencies are), so an interval, or the score of a
    subset, is of the same metric.

    Attributes:
        parts: (N, S), the summands of each example.
        of: sums over examples (..., S) -> scores (...).
    """

    parts: Table
    of: Callable[[Table], Table]
    resamples = RESAMPLES

    def __new__(
        cls, parts: npt.ArrayLike, of: Callable[[Table], Table], limits: tuple[float, float] | None = None
    ) -> AdditiveScore:
        parts = np.asarray(parts, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):  # the sums may be 0
            score = super().__new__(cls, of(parts.sum(0)))
        score.parts, score.of, score.limits = parts, of, limits
        return score

    def subset(self, indices: Indices) -> AdditiveScore:
        """The score of these examples."""
        return AdditiveScore(self.parts[indices], self.of, self.limits)

    def by_cluster(self, member: Indices, n: int) -> Table:
        """(n, S), the summands of each cluster."""
        return np.stack([np.bincount(member, weights=column, minlength=n) for column in self.parts.T], 1)

    def resample(self, member: Indices, n: int, seed: int, resamples: int) -> Table:
        """Bootstrap scores (resamples,), drawing n clusters with replacement; example i is in cluster `member[i]`."""
        return bootstrap_sums(self.by_cluster(member, n), self.of, seed, resamples)


class ReweightedScore(_CorpusScore):
    """A corpus score that is not a function of sums, but of integer example weights, as a bootstrap draws them.

    Attributes:
        examples: N.
        of: weights of the examples in each of R draws, float32 (N, R) -> scores (R,).
        resamples: affordable number of draws.
    """

    examples: int
    of: Callable[[npt.NDArray[np.float32]], Table]
    resamples: int

    def __new__(
        cls,
        examples: int,
        of: Callable[[npt.NDArray[np.float32]], Table],
        resamples: int = RESAMPLES,
        value: float | None = None,
        limits: tuple[float, float] | None = None,
    ) -> Self:
        score = super().__new__(cls, of(np.ones((examples, 1), np.float32))[0] if value is None else value)
        score.examples, score.of, score.resamples, score.limits = examples, of, resamples, limits
        return score

    def subset(self, indices: Indices) -> ReweightedScore:
        """The score of these examples."""

        def of(times: npt.NDArray[np.float32]) -> Table:
            weights = np.zeros((self.examples, times.shape[1]), np.float32)
            weights[indices] = times
            return self.of(weights)

        return ReweightedScore(len(indices), of, self.resamples, limits=self.limits)

    def resample(self, member: Indices, n: int, seed: int, resamples: int) -> Table:
        """Bootstrap scores (resamples,), drawing n clusters with replacement; example i is in cluster `member[i]`."""
        draws = cluster_draws(n, seed, resamples, len(member))
        return np.concatenate([self.of(times.T.astype(np.float32)[member]) for times in draws])


def mean(values: npt.ArrayLike, limits: tuple[float, float] | None = None) -> AdditiveScore:
    """The mean over examples, in percent, of values (N,), which may be above 1, as CIDEr is, within `limits`."""
    values = np.asarray(values, np.float64)
    return AdditiveScore(np.stack([values, np.ones_like(values)], 1), _mean, limits)


def percentage(parts: npt.ArrayLike, wholes: npt.ArrayLike) -> AdditiveScore:
    """In percent, the sum of the parts (N,), each at most its whole, of the sum of the wholes (N,)."""
    return AdditiveScore(np.stack([parts, wholes], 1), _mean, PERCENT)


def _mean(sums: Table) -> Table:
    return np.asarray(100 * sums[..., 0] / sums[..., 1])


def difference(
    a: AdditiveScore | ReweightedScore, b: AdditiveScore | ReweightedScore
) -> AdditiveScore | ReweightedScore:
    """The score b - a, of the same examples in the same order; bootstrap draws are shared."""
    if isinstance(a, AdditiveScore) and isinstance(b, AdditiveScore):
        width = a.parts.shape[1]
        parts = np.concatenate([a.parts, b.parts], 1)
        return AdditiveScore(parts, lambda sums: b.of(sums[..., width:]) - a.of(sums[..., :width]))
    if isinstance(a, ReweightedScore) and isinstance(b, ReweightedScore):
        fewest = min(a.resamples, b.resamples)
        return ReweightedScore(a.examples, lambda times: b.of(times) - a.of(times), fewest, float(b) - float(a))
    raise TypeError("an AdditiveScore and a ReweightedScore are not of one metric")


def average(scores: Sequence[AdditiveScore]) -> AdditiveScore:
    """The mean of several scores of the same examples in the same order; bootstrap draws are shared."""
    ends = np.cumsum([score.parts.shape[1] for score in scores])[:-1]

    def of(sums: Table) -> Table:
        each = zip(scores, np.split(sums, ends, -1), strict=True)
        return np.asarray(sum(score.of(score_sums) for score, score_sums in each) / len(scores))

    limits = scores[0].limits if all(score.limits == scores[0].limits for score in scores) else None
    return AdditiveScore(np.concatenate([score.parts for score in scores], 1), of, limits)


def interval(
    values: npt.ArrayLike, clusters: Sequence[Hashable] | Clusters, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The clustered 95 % bootstrap interval (low, high) of the mean of `values`.

    A bootstrap knows only the sample: if every example is right, or all belong to one video, its interval has no
    width. But n videos may all have missed any group of videos that makes up less than 1 - 0.025^(1/n) of the world
    (with a chance above 2.5 %), and that group may be all wrong or all right. The interval therefore always reaches
    from mean x 0.025^(1/n) to 1 - (1 - mean) x 0.025^(1/n). For all right and all wrong samples this is exactly the
    interval of Clopper and Pearson (1934); one video, all right, gives 0.025 to 1; with many videos and a middling
    score the bootstrap is wider and decides alone.

    Args:
        values: (N,), each in 0..1, N >= 1.
        clusters: (N,), the video of each example; or `number_clusters` of them.
        seed: of the draws; the same seed gives the same interval.
        resamples: draws.

    Returns:
        low and high in 0..1, low <= mean <= high.
    """
    member, n = number_clusters(clusters)
    values = np.asarray(values, np.float64)
    low, high = np.quantile(mean(values).resample(member, n, seed, resamples), _TAILS) / 100
    middle = values.mean()
    seen = _TAILS[0] ** (1 / n)
    return float(min(low, middle * seen)), float(max(high, 1 - (1 - middle) * seen))


def interval_of(
    score: AdditiveScore | ReweightedScore,
    clusters: Sequence[Hashable] | Clusters,
    seed: int,
    resamples: int | None = None,
) -> tuple[float, float]:
    """The clustered 95 % bootstrap interval (low, high) of a corpus score; it contains the score.

    If the bootstrap has no width (one video, or all draws are equal) the interval is that of `interval`, which asks
    what n videos may all have missed, within the limits of the score. Where these are unknown it is NaN rather than a
    claim of certainty; so it is if a draw gives NaN.

    Args:
        score: of N examples, N >= 1.
        clusters: (N,), the video of each example; or `number_clusters` of them.
        seed: of the draws; the same seed gives the same interval.
        resamples: draws; None for the score's own number.

    Returns:
        low and high, within the range of the draws; NaN if unknown.
    """
    member, n = number_clusters(clusters)
    drawn = score.resample(member, n, seed, resamples or score.resamples)
    if np.ptp(drawn) < ALIKE and (reached := score.reach(1 - _TAILS[0] ** (1 / n))):
        return reached
    return centered(drawn, float(score))


def centered(drawn: Table, score: float) -> tuple[float, float]:
    """The 95 % interval of a score from draws shifted so that their median is the score; see the top of this file."""
    if np.isnan(drawn).any() or np.ptp(drawn) < ALIKE:
        return math.nan, math.nan
    low, high = np.quantile(drawn, _TAILS) + score - np.median(drawn)
    return float(max(low, min(score, drawn.min()))), float(min(high, max(score, drawn.max())))


def bootstrap_sums(parts: Table, of: Callable[[Table], Table], seed: int, resamples: int) -> Table:
    """Scores (resamples, ...) of the sums over n drawn clusters, of their summands (n, S)."""
    rows, counts = unique_rows(parts)
    with np.errstate(divide="ignore", invalid="ignore"):  # the sums of a draw may be 0
        return np.concatenate([of(times @ rows) for times in _draws(counts, seed, resamples)])


def unique_rows(rows: Table) -> tuple[Table, Indices]:
    """The distinct rows of (n, S) in ascending order, and their counts: np.unique in less time."""
    ranked = rows[np.lexsort(rows.T[::-1])]
    first = np.flatnonzero([True, *(ranked[1:] != ranked[:-1]).any(1)])
    return ranked[first], np.diff(first, append=len(ranked))


def number_clusters(clusters: Sequence[Hashable] | Clusters) -> Clusters:
    """The index of each example's cluster, in the order of first appearance."""
    if isinstance(clusters, Clusters):
        return clusters
    index = dict(zip(dict.fromkeys(clusters), count(), strict=False))
    return Clusters(np.fromiter(map(index.__getitem__, clusters), np.intp, len(clusters)), len(index))


def cluster_draws(n: int, seed: int, resamples: int, width: int) -> Iterator[Table]:
    """How often each of n clusters is drawn, (some, n) at a time; `width` numbers of a draw are held at once."""
    return _draws(np.ones(n, np.intp), seed, resamples, width)


def _draws(counts: Indices, seed: int, resamples: int, width: int = 1) -> Iterator[Table]:
    """How often each kind of equal clusters is drawn, (some, kinds) at a time; `counts` is the size of each kind.

    As many clusters are drawn as there are. If there are few kinds, their counts are drawn from a multinomial.
    """
    n = int(counts.sum())
    step = max(1, DRAWS_PER_CHUNK // max(n, width))
    if 8 * len(counts) < n:
        generator = np.random.default_rng(seed)
        for start in range(0, resamples, step):
            yield generator.multinomial(n, counts / n, size=min(step, resamples - start)).astype(np.float64)
        return
    if n * resamples > MAX_CACHED_BYTES:
        chunks = _single(n, seed, resamples, step)
    else:
        cached = _cached(n, seed, resamples)
        chunks = (cached[start : start + step] for start in range(0, resamples, step))
    first = np.cumsum(counts) - counts  # cluster of each kind
    for times in chunks:
        of_kind = times if len(counts) == n else np.add.reduceat(times, first, axis=1, dtype=np.intp)
        yield of_kind.astype(np.float64)


def _single(n: int, seed: int, resamples: int, step: int) -> Iterator[npt.NDArray[Any]]:
    """How often each of n clusters is drawn, (some, n) at a time."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        of_draw = generator.integers(n, size=(some, n)) + n * np.arange(some)[:, None]
        yield np.bincount(of_draw.ravel(), minlength=some * n).reshape(some, -1)


@lru_cache(maxsize=2)
def _cached(n: int, seed: int, resamples: int) -> npt.NDArray[np.uint8]:
    """All draws, as all metrics of a run use the same; uint8, as a cluster is drawn a dozen times at most."""
    return np.concatenate(
        [times.astype(np.uint8) for times in _single(n, seed, resamples, max(1, DRAWS_PER_CHUNK // n))]
    )
