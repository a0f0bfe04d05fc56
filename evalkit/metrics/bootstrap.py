"""How far a score may be off: 95 % bootstrap intervals that draw whole videos, not single examples.

Examples of one video are not independent, so the videos are what is drawn, with replacement, and all examples of a
drawn video come with it (Efron and Tibshirani 1993, chapters 8 and 13).

The interval of a mean is the percentile one. A draw holds some videos twice, which moves scores that are no means: two
copies of a video lie side by side in every ranking, and raise an average precision. That shift says nothing of the
score, which is what one split of this size gives; so the draws are moved back until their median is the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]
Table = npt.NDArray[np.float64]
Draws = npt.NDArray[np.float32]  # how often each example counts, in each of R draws: (N, R)

LEVEL = 0.95
RESAMPLES = 10_000
DRAWS_PER_CHUNK = 1_000_000  # numbers drawn at a time: flat memory, whatever the sizes are
KEPT_RESAMPLES = 32_000_000  # bytes of draws that are kept for the next metric
_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


class Clusters(NamedTuple):
    """Which cluster each example is in.

    Attributes:
        member: (N,), the number of each example's cluster, from 0.
        n: how many clusters there are.
    """

    member: Indices
    n: int


class AdditiveScore(float):
    """A score over the split, in percent, that knows what each example adds to it.

    What an example adds is fixed by the whole split (a document frequency is), so that an interval, or the score of one
    kind, needs no second call of the score function, and is of the same metric.

    Attributes:
        parts: (N, S), what each example adds.
        of: sums over examples (..., S) -> scores (...).
    """

    parts: Table
    of: Callable[[Table], Table]
    resamples = RESAMPLES

    def __new__(cls, parts: npt.ArrayLike, of: Callable[[Table], Table]) -> AdditiveScore:
        parts = np.asarray(parts, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):  # where nothing counts
            made = super().__new__(cls, of(parts.sum(0)))
        made.parts, made.of = parts, of
        return made

    def among(self, indices: Indices) -> AdditiveScore:
        """The score of some examples alone."""
        return AdditiveScore(self.parts[indices], self.of)

    def by_cluster(self, member: Indices, n: int) -> Table:
        """(n, S), what each cluster adds."""
        return np.stack([np.bincount(member, weights=column, minlength=n) for column in self.parts.T], 1)

    def drawn(self, member: Indices, n: int, seed: int, resamples: int) -> Table:
        """The scores (resamples,) of as many draws of n clusters, of which example i is in `member[i]`."""
        return sums_drawn(self.by_cluster(member, n), self.of, seed, resamples)


class ReweightedScore(float):
    """A score over the split that is not made of sums, but can be told for examples that count several times, or never.

    Attributes:
        examples: N.
        of: how often each example counts, in each of R draws, float32 (N, R) -> scores (R,).
        resamples: draws that are affordable.
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
    ) -> ReweightedScore:
        made = super().__new__(cls, of(np.ones((examples, 1), np.float32))[0] if value is None else value)
        made.examples, made.of, made.resamples = examples, of, resamples
        return made

    def among(self, indices: Indices) -> ReweightedScore:
        """The score of some examples alone."""

        def of(times: npt.NDArray[np.float32]) -> Table:
            every = np.zeros((self.examples, times.shape[1]), np.float32)
            every[indices] = times
            return self.of(every)

        return ReweightedScore(len(indices), of, self.resamples)

    def drawn(self, member: Indices, n: int, seed: int, resamples: int) -> Table:
        """The scores (resamples,) of as many draws of n clusters, of which example i is in `member[i]`."""
        draws = _draws(np.ones(n, np.intp), seed, resamples, len(member))
        return np.concatenate([self.of(times.T.astype(np.float32)[member]) for times in draws])


def mean(values: npt.ArrayLike) -> AdditiveScore:
    """The mean over examples, in percent, of values (N,) that may be above 1, as CIDEr's are."""
    values = np.asarray(values, np.float64)
    return AdditiveScore(np.stack([values, np.ones_like(values)], 1), _mean)


def _mean(sums: Table) -> Table:
    return np.asarray(100 * sums[..., 0] / sums[..., 1])


def difference(
    a: AdditiveScore | ReweightedScore, b: AdditiveScore | ReweightedScore
) -> AdditiveScore | ReweightedScore:
    """How far b is above a, of the same examples in the same order, whose interval draws both together."""
    if isinstance(a, AdditiveScore) and isinstance(b, AdditiveScore):
        width = a.parts.shape[1]
        parts = np.concatenate([a.parts, b.parts], 1)
        return AdditiveScore(parts, lambda sums: b.of(sums[..., width:]) - a.of(sums[..., :width]))
    if isinstance(a, ReweightedScore) and isinstance(b, ReweightedScore):
        fewest = min(a.resamples, b.resamples)
        return ReweightedScore(a.examples, lambda times: b.of(times) - a.of(times), fewest, float(b) - float(a))
    raise TypeError("a score that is made of sums, and one that is not, are not of one metric")


def average(scores: Sequence[AdditiveScore]) -> AdditiveScore:
    """The mean of several scores of the same examples in the same order, whose interval draws all together."""
    ends = np.cumsum([one.parts.shape[1] for one in scores])[:-1]

    def of(sums: Table) -> Table:
        return np.asarray(
            sum(one.of(own) for one, own in zip(scores, np.split(sums, ends, -1), strict=True)) / len(scores)
        )

    return AdditiveScore(np.concatenate([one.parts for one in scores], 1), of)


def interval(
    values: npt.ArrayLike, clusters: Sequence[Hashable] | Clusters, seed: int, resamples: int = RESAMPLES
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
        clusters: (N,), the video of each example; or what `numbered` gives of them.
        seed: of the draws; the same seed gives the same interval.
        resamples: draws.

    Returns:
        low and high in 0..1, low <= mean <= high.
    """
    member, n = numbered(clusters)
    values = np.asarray(values, np.float64)
    low, high = np.quantile(mean(values).drawn(member, n, seed, resamples), _TAILS) / 100
    middle = values.mean()
    seen = _TAILS[0] ** (1 / n)
    return float(min(low, middle * seen)), float(max(high, 1 - (1 - middle) * seen))


def interval_of(
    score: AdditiveScore | ReweightedScore,
    clusters: Sequence[Hashable] | Clusters,
    seed: int,
    resamples: int | None = None,
) -> tuple[float, float]:
    """The 95 % interval (low, high) of a score over the split, clustered; it holds the score.

    Nothing is known about the range of such a score, so where the bootstrap has no width (one video, or every draw
    gives the same) the interval is unknown rather than a claim of certainty; the same where a draw gives NaN.

    Args:
        score: of N examples, N >= 1.
        clusters: (N,), the video of each example; or what `numbered` gives of them.
        seed: of the draws; the same seed gives the same interval.
        resamples: draws; None for as many as the score can afford.

    Returns:
        low and high, no further out than the draws went; NaN where unknown.
    """
    return centered(score.drawn(*numbered(clusters), seed, resamples or score.resamples), float(score))


def centered(drawn: Table, score: float) -> tuple[float, float]:
    """The 95 % interval of a score, from draws whose median is moved onto it; see the top of this file."""
    if np.isnan(drawn).any() or (drawn == drawn[0]).all():
        return math.nan, math.nan
    low, high = np.quantile(drawn, _TAILS) + score - np.median(drawn)
    return float(max(low, min(score, drawn.min()))), float(min(high, max(score, drawn.max())))


def sums_drawn(added: Table, of: Callable[[Table], Table], seed: int, resamples: int) -> Table:
    """What is made of the sums over n drawn clusters (resamples, ...), of what each cluster adds (n, S)."""
    added, alike = kinds(added)
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw may hold nothing that counts
        return np.concatenate([of(times @ added) for times in _draws(alike, seed, resamples)])


def kinds(rows: Table) -> tuple[Table, Indices]:
    """The different rows of (n, S) in rising order, and how many there are of each: np.unique's, in less time."""
    ranked = rows[np.lexsort(rows.T[::-1])]
    first = np.flatnonzero([True, *(ranked[1:] != ranked[:-1]).any(1)])
    return ranked[first], np.diff(first, append=len(ranked))


def numbered(clusters: Sequence[Hashable] | Clusters) -> Clusters:
    """Each example's cluster as a number from 0, in the order in which they first appear."""
    if isinstance(clusters, Clusters):
        return clusters
    number = dict(zip(dict.fromkeys(clusters), count(), strict=False))
    return Clusters(np.fromiter(map(number.__getitem__, clusters), np.intp, len(clusters)), len(number))


def _draws(alike: Indices, seed: int, resamples: int, width: int = 1) -> Iterator[Table]:
    """How often each kind of cluster is drawn, (some, kinds) at a time, where so many clusters are `alike` of each.

    As many clusters are drawn as there are. Where few kinds stand for many clusters, their numbers are drawn at once.
    """
    n = int(alike.sum())
    step = max(1, DRAWS_PER_CHUNK // max(n, width))
    if 8 * len(alike) < n:
        generator = np.random.default_rng(seed)
        for start in range(0, resamples, step):
            yield generator.multinomial(n, alike / n, size=min(step, resamples - start)).astype(np.float64)
        return
    if n * resamples > KEPT_RESAMPLES:
        every = _single(n, seed, resamples, step)
    else:
        kept = _kept(n, seed, resamples)
        every = (kept[start : start + step] for start in range(0, resamples, step))
    first = np.cumsum(alike) - alike  # of each kind's clusters
    for times in every:
        of_kind = times if len(alike) == n else np.add.reduceat(times, first, axis=1, dtype=np.intp)
        yield of_kind.astype(np.float64)


def _single(n: int, seed: int, resamples: int, step: int) -> Iterator[npt.NDArray[Any]]:
    """How often each of n clusters is drawn, (some, n) at a time."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        of_draw = generator.integers(n, size=(some, n)) + n * np.arange(some)[:, None]
        yield np.bincount(of_draw.ravel(), minlength=some * n).reshape(some, -1)


@lru_cache(maxsize=2)
def _kept(n: int, seed: int, resamples: int) -> npt.NDArray[np.uint8]:
    """All of them, since the metrics of a run draw the same; a cluster is drawn a dozen times at most."""
    return np.concatenate(
        [times.astype(np.uint8) for times in _single(n, seed, resamples, max(1, DRAWS_PER_CHUNK // n))]
    )
