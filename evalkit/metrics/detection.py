"""Average precision of detected regions, segments in time or boxes in a frame, for any weighting of the examples.

A detection is right where it is matched to an annotated region of its label. Regions are matched within one example, so
that what a bootstrap draws, examples that count several times, changes no match: an average precision of a draw is that
of the same ranked list with weights. Copies of one example lie side by side in the list, and as the precision at a
recall is the highest at that recall or at a higher one, all of them have the precision at the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evalkit.errors import UserError
from evalkit.metrics.bootstrap import PERCENT, RESAMPLES, Draws, Indices, ReweightedScore, Table, cluster_draws
from evalkit.metrics.classification import is_failed

Flags = npt.NDArray[np.bool_]

MAX_PAIRS = 1_000_000  # of a detection and an annotated region, that are compared at a time
_MAX_WEIGHTS = 4_000_000  # numbers held at a time
_MAX_OPERATIONS = 1_000_000_000  # bound on visited numbers of all bootstrap draws: some seconds
_NUMBERS = frozenset({int, float})
_LABELS = frozenset({int, str})


class Regions(NamedTuple):
    """The regions of all examples, one after another.

    Attributes:
        example: (n,), index of the example of each.
        bounds: (n, D), start and end; or left, top, right and bottom.
        label: (n,), index of its label.
        score: (n,), higher is likelier; infinite for a target in place of a prediction.
    """

    example: Indices
    bounds: Table
    label: Indices
    score: Table

    def take(self, chosen: Any) -> Regions:
        """The chosen regions, by index or by flag."""
        return Regions(*(column[chosen] for column in self))

    def group(self, labels: int) -> Indices:
        """(n,), equal for regions of one example and label."""
        return self.example * labels + self.label


class Read(NamedTuple):
    """What a score function was given: detections, annotated regions, and the labels by index.

    The first `annotated` labels are those of annotated regions; detections alone have the others.
    """

    detections: Regions
    truth: Regions
    labels: list[Any]
    annotated: int


def read_regions(
    metric: str, form: Sequence[str], predictions: Sequence[Any], targets: Sequence[Any], ordered: bool = True
) -> Read:
    """The regions of all predictions and targets.

    Args:
        metric: named in errors.
        form: what a region holds before its label, such as start and end.
        predictions: of each example a list of [*form, label, score]; None or NaN for a failed one, which has none; or
            its target, whose regions then have an infinite score.
        targets: of each a list of [*form, label].
        ordered: refuse a detection that ends before it starts, and not an annotated region alone.

    Raises:
        UserError: a region is not so, or its end is before its start.
    """
    given: list[Sequence[Any]] = []
    for i, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        if is_failed(prediction):
            given.append(())
        elif not isinstance(prediction, list | tuple):
            raise _unlike(metric, "prediction", i, prediction, form, True, ordered)
        elif _width(prediction) == len(form) + 1 and [*map(list, prediction)] == [*map(list, target)]:
            given.append([(*region, math.inf) for region in target])
        else:
            given.append(prediction)
    for i, target in enumerate(targets):
        if not isinstance(target, list | tuple):
            raise _unlike(metric, "target", i, target, form, False, True)
    index: dict[Any, int] = {}
    truth = _regions(metric, "target", targets, form, False, True, index)
    annotated = len(index)
    return Read(_regions(metric, "prediction", given, form, True, ordered, index), truth, list(index), annotated)


def _width(prediction: Sequence[Any]) -> int:
    first = prediction[0] if prediction else ()
    return len(first) if isinstance(first, list | tuple) else 0


def _regions(
    metric: str,
    role: str,
    values: Sequence[Sequence[Any]],
    form: Sequence[str],
    scored: bool,
    ordered: bool,
    index: dict[Any, int],
) -> Regions:
    """All regions; labels that are new are added to the index."""
    size = len(form)
    try:
        flat = [region for regions in values for region in regions]
        if {*map(len, flat)} - {size + 1 + scored}:
            raise ValueError
        columns = [[region[n] for region in flat] for n in range(size + 1 + scored)]
        numbers = [_column(column) for n, column in enumerate(columns) if n != size]
        labels = columns[size]
        if {*map(type, labels)} - _LABELS:
            raise ValueError
    except (TypeError, ValueError):
        raise _first_unlike(metric, role, values, form, scored, ordered) from None
    for label in dict.fromkeys(labels):
        index.setdefault(label, len(index))
    bounds = np.stack(numbers[:size], 1)
    disordered = ordered and (bounds[:, : size // 2] > bounds[:, size // 2 :]).any()
    if disordered or not np.isfinite(bounds).all():
        raise _first_unlike(metric, role, values, form, scored, ordered)
    return Regions(
        np.repeat(np.arange(len(values)), [len(regions) for regions in values]),
        bounds,
        np.fromiter(map(index.__getitem__, labels), np.intp, len(labels)),
        numbers[size] if scored else np.full(len(labels), math.inf),
    )


def _column(values: Sequence[Any]) -> Table:
    if {*map(type, values)} - _NUMBERS:
        values = [_number(value) for value in values]
    column = np.array(values, np.float64)
    if np.isnan(column).any():
        raise ValueError
    return column


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError
    return float(value)


def _first_unlike(
    metric: str, role: str, values: Sequence[Sequence[Any]], form: Sequence[str], scored: bool, ordered: bool
) -> UserError:
    """The error that names the first region that is not as it should be."""
    for i, regions in enumerate(values):
        for region in regions:
            try:
                *bounds, label = region[: len(form) + 1]
                numbers = [_number(value) for value in (*bounds, *region[len(form) + 1 :])]
                half = len(form) // 2
                in_order = all(low <= high for low, high in zip(numbers[:half], numbers[half : 2 * half], strict=True))
                if (
                    len(region) == len(form) + 1 + scored
                    and type(label) in _LABELS
                    and (in_order or not ordered)
                    and all(map(math.isfinite, numbers[: len(form)]))
                    and not any(map(math.isnan, numbers))
                ):
                    continue
            except (TypeError, ValueError):
                pass
            return _unlike(metric, role, i, region, form, scored, ordered)
    raise AssertionError("every region is as it should be")


def _unlike(metric: str, role: str, i: int, value: Any, form: Sequence[str], scored: bool, ordered: bool) -> UserError:
    wanted = ", ".join([*form, "label", *(["score"] if scored else [])])
    half = len(form) // 2
    order = " and ".join(f"{low} <= {high}" for low, high in zip(form[:half], form[half:], strict=True))
    return UserError(
        f"{metric}: {role} of example {i} holds {repr(value)[:120]}; wanted a list of [{wanted}]: finite numbers"
        f"{f', {order}' if ordered else ''}, and a label that is a name or a whole number"
    )


def pairs(left: Indices, right: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Yields the index pairs of equal groups, those of one left index together, in ascending order of both.

    Args:
        left: (n,), the group of each left item.
        right: (m,), the group of each right item.
    """
    order = np.argsort(right, kind="stable")
    grouped = right[order]
    first = np.searchsorted(grouped, left)
    count = np.searchsorted(grouped, left, "right") - first
    with_pairs = np.flatnonzero(count)
    chunk = (np.cumsum(count[with_pairs]) - 1) // MAX_PAIRS
    for members in np.split(with_pairs, np.flatnonzero(np.diff(chunk)) + 1):
        counts = count[members]
        starts = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(starts, counts)
        yield np.repeat(members, counts), order[np.repeat(first[members], counts) + within]


class Ranking:
    """Detections of each label in descending order of score, and which of them are right.

    Args:
        detections: those of labels without an annotated region are left out.
        hits: (T, n), whether each detection is right, at each of T thresholds.
        truth: the annotated regions.
        labels: C, how many labels annotated regions have.
        examples: N.
    """

    def __init__(self, detections: Regions, hits: Flags, truth: Regions, labels: int, examples: int) -> None:
        self.labels, self.examples, self.thresholds = labels, examples, len(hits)
        order = rank(detections.label, detections.score)
        order = order[detections.label[order] < labels]
        label = detections.label[order]
        hits = hits[:, order]
        any_hit: Flags = np.logical_or.reduce(hits, 0)
        edges = np.searchsorted(label, np.arange(labels + 1))
        # What comes after the last right one of a label changes nothing.
        self._lists = []
        for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            rows = np.flatnonzero(any_hit[start:end])
            if len(rows):
                among = [np.flatnonzero(hits[t, start:end][rows]) for t in range(self.thresholds)]
                example = detections.example[order[start : start + rows[-1] + 1]]
                self._lists.append((example, rows, among))
            else:
                self._lists.append((np.empty(0, np.intp), rows, []))
        sort = np.argsort(truth.label, kind="stable")
        self._truth = np.split(truth.example[sort], np.searchsorted(truth.label[sort], np.arange(labels)))[1:]
        self.operations = len(truth.label) + sum(
            len(example) + 8 * sum(map(len, among)) for example, _, among in self._lists
        )

    def average_precisions(self, weights: Draws, group: Indices | None = None) -> Table:
        """(T, C, R), in 0..1; NaN for a label without an annotated region in a draw.

        Args:
            weights: (G, R), how often each group of examples counts in each of R draws.
            group: (N,), of each example; None where each is its own.
        """
        draws = weights.shape[1]
        precisions = np.empty((self.thresholds, self.labels, draws))
        for c, (list_, truth) in enumerate(zip(self._lists, self._truth, strict=True)):
            example, rows, among = list_
            if group is not None:
                example, truth = group[example], group[truth]
            step = max(1, _MAX_WEIGHTS // max(len(example), len(truth), 1))
            for start in range(0, draws, step):
                some = weights[:, start : start + step]
                positives = some[truth].sum(0, dtype=np.float64)
                precisions[:, c, start : start + step] = np.where(positives > 0, 0.0, math.nan)
                if not len(rows):
                    continue
                times = some[example]
                # All that is retrieved from one right detection to the next, and with it; exact in float32.
                between = np.add.reduceat(times, np.append(0, rows[:-1] + 1), 0)
                retrieved = between.cumsum(0, dtype=np.float64)
                times = times[rows].astype(np.float64)
                for t, right in enumerate(among):
                    if len(right):
                        drawn = times[right]
                        reached = drawn.cumsum(0) / np.maximum(retrieved[right], 1)
                        reached = np.maximum.accumulate(reached[::-1])[::-1]
                        area = (drawn * reached).sum(0)
                        precisions[t, c, start : start + step] = np.where(
                            positives > 0, area / np.maximum(positives, 1), math.nan
                        )
        return precisions


def rank(group: Indices, score: Table) -> Indices:
    """The order of detections (n,) by group, and then by descending score; of equal scores the later one first.

    That is the order in which the official scripts, which reverse an ascending one, have equal scores wherever their
    sort keeps it.
    """
    backward = np.arange(len(score))[::-1]
    return backward[np.lexsort((-score[backward], group[backward]))]


def scores_of(ranking: Ranking, names: Sequence[str], summary: Callable[[Table], Table]) -> dict[str, float]:
    """Scores of one ranking, whose bootstrap draws are computed together.

    Args:
        ranking: of the detections.
        names: of M scores.
        summary: average precisions (T, C, R) -> (M, R), in percent.
    """
    together = _Together(ranking, summary)
    resamples = min(RESAMPLES, max(1_000, _MAX_OPERATIONS // max(1, ranking.operations)))
    values = together.of(np.ones((ranking.examples, 1), np.float32))[:, 0].tolist()
    scores: dict[str, float] = {}
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        score = _Score(ranking.examples, partial(_one_of, together, place), resamples, value, PERCENT)
        score.together, score.place = together, place
        scores[name] = score
    return scores


def _one_of(together: _Together, place: int, weights: Draws) -> Table:
    return np.asarray(together.of(weights)[place])


class _Together:
    """The scores of one ranking, and the last bootstrap of all of them."""

    def __init__(self, ranking: Ranking, summary: Callable[[Table], Table]) -> None:
        self.ranking, self._summary = ranking, summary
        self._drawn: tuple[Any, Table] | None = None

    def of(self, weights: Draws, group: Indices | None = None) -> Table:
        """(M, R); arguments are those of `Ranking.average_precisions`."""
        return self._summary(self.ranking.average_precisions(weights, group))

    def resample(self, member: Indices, n: int, seed: int, resamples: int) -> Table:
        """(M, resamples), drawing n clusters with replacement; example i is in cluster `member[i]`."""
        key = (member.tobytes(), n, seed, resamples)
        if self._drawn is None or self._drawn[0] != key:
            draws = cluster_draws(n, seed, resamples, n)
            self._drawn = key, np.concatenate([self.of(times.T.astype(np.float32), member) for times in draws], 1)
        return self._drawn[1]


class _Score(ReweightedScore):
    """One of the scores of a ranking."""

    together: _Together
    place: int

    def resample(self, member: Indices, n: int, seed: int, resamples: int) -> Table:
        """Bootstrap scores (resamples,), moved until their median is the score, and kept within 0..100.

        Copies of a video raise an average precision of rare classes by more than the draws differ, so that the range of
        the draws themselves would cut the interval off beside the score.
        """
        drawn = self.together.resample(member, n, seed, resamples)[self.place]
        known = not (np.isnan(drawn).any() or (drawn == drawn[0]).all())
        return np.asarray((drawn + float(self) - np.median(drawn)).clip(0, 100) if known else drawn)
