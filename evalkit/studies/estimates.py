"""The numbers of a study's cells: means over seeds, with intervals, and their differences and ratios.

A cost has no interval. That of a score has two parts, of which the interval of one seed has only the first: the
bootstrap of the test's videos, paired where two cells are compared, which is averaged over the seeds; and Student's t
of the mean over the seeds, since training again would end elsewhere. They are independent: their widths add in squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evalkit.errors import UserError, suggest
from evalkit.metrics.bootstrap import AdditiveScore, interval_of, mean
from evalkit.metrics.significance import students_t
from evalkit.plugins import display_name
from evalkit.results import compare
from evalkit.results.validate import Checked


class Estimate(NamedTuple):
    """A number with its 95 % interval, which has no width where the number is a cost; NaN: unknown."""

    value: float
    low: float
    high: float


class Value(NamedTuple):
    """What a cell has of a metric.

    Attributes:
        estimate: the number and its interval.
        metric: of the run, as its record has it; empty where the number is no score.
        runs: the folders of the runs, one for each seed; none where the number is no score.
    """

    estimate: Estimate
    metric: str = ""
    runs: tuple[Path, ...] = ()


@dataclass
class Outcome:
    """What came of a cell with one seed.

    Attributes:
        records: of what was trained, the last first, then of its runs.
        runs: the folders of its runs; None of one that failed.
        failure: why something is missing.
    """

    adapted: list[Mapping[str, Any]] = field(default_factory=list)
    runs: list[tuple[Path, Mapping[str, Any]]] = field(default_factory=list)
    failure: str = ""


def value(outcomes: Sequence[Outcome], name: str) -> Value:
    """What a cell has of an entry of `x` or `y`: the mean over its outcomes, one for each seed.

    Raises:
        UserError: one of them has it not.
    """
    values = [_value(outcome, name) for outcome in outcomes]
    metric = values[0].metric
    if any(one.metric != metric for one in values):
        raise UserError(f"{name} is a score with some seeds and none with others")
    estimate = over_seeds([one.estimate for one in values], scores=bool(metric))
    return Value(estimate, metric, tuple(run for one in values for run in one.runs))


def over_seeds(estimates: Sequence[Estimate], scores: bool) -> Estimate:
    """The mean of what each seed gave; that of costs is as exact as they are."""
    if len(estimates) == 1:
        return estimates[0]
    numbers, lows, highs = np.array(estimates).T
    center = float(numbers.mean())
    if not scores:
        return Estimate(center, center, center)
    of_seeds = students_t(len(numbers) - 1) * numbers.std(ddof=1) / math.sqrt(len(numbers))
    below, above = (math.hypot(float(width.mean()), of_seeds) for width in (numbers - lows, highs - numbers))
    return Estimate(center, center - below, center + above)


def _value(outcome: Outcome, name: str) -> Value:
    """What a cell has with one seed.

    A dotted path is looked for in the record of what was trained last, then in those before, then in the runs'; a
    metric in the runs', in turn, or in those of one task as TASK:METRIC.

    Raises:
        UserError: nothing has it.
    """
    for record in (*outcome.adapted, *(record for _, record in outcome.runs)):
        number = _at(record, name)
        if number is not None:
            return Value(Estimate(number, number, number))
    task, colon, metric = name.rpartition(":")
    known = []
    for folder, record in outcome.runs:
        if colon and record["task"]["name"].removesuffix("@mini") != display_name(task):
            continue
        for score in record["scores"]:
            known.append(score["metric"])
            if score["metric"] == metric:
                low, high = (math.nan if end is None else end for end in score["ci95"])
                number = math.nan if score["value"] is None else score["value"]
                return Value(Estimate(number, low, high), metric, (folder,))
    if outcome.failure:
        raise UserError(outcome.failure)
    near = suggest(metric, dict.fromkeys(known)) or f" Its runs have {', '.join(dict.fromkeys(known)) or 'no scores'}"
    raise UserError(f"no {name} in its records.{near}")


def _at(record: Mapping[str, Any], path: str) -> float | None:
    """The number at a dotted path; None where there is none."""
    inner: Any = record
    for part in path.split("."):
        inner = inner.get(part) if isinstance(inner, Mapping) else None
    return float(inner) if isinstance(inner, int | float) and not isinstance(inner, bool) else None


class Pairs:
    """Differences and ratios of two cells' values; each run is read and validated once.

    Args:
        files: of tasks of the user's own, whose score functions may be run.
    """

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self.files = files
        self.checked: dict[Path, Checked] = {}
        self.compared: dict[tuple[Path, Path], compare.Compared] = {}

    def difference(self, a: Value, b: Value) -> Estimate:
        """A minus b."""
        if not (a.runs and b.runs) or a.runs == b.runs:
            return _exact(a, b, lambda x, y: x - y)
        if a.metric != b.metric:
            raise UserError(f"{a.metric} and {b.metric} cannot be compared")
        return over_seeds([self._difference(a.metric, *pair) for pair in zip(a.runs, b.runs, strict=True)], scores=True)

    def _difference(self, metric: str, a: Path, b: Path) -> Estimate:
        """That of two runs."""
        pair = (b, a)
        if pair not in self.compared:
            self.compared[pair] = compare.compare_runs(pair, (self._check(b), self._check(a)))
        of_metric = [one for one in self.compared[pair].differences if one.metric == metric]
        if not of_metric:
            raise UserError(f"{metric} of the two cannot be compared")
        return Estimate(of_metric[0].value, of_metric[0].low, of_metric[0].high)

    def ratio(self, a: Value, b: Value) -> Estimate:
        """A divided by b."""
        if not (a.runs and b.runs) or a.runs == b.runs:
            return _exact(a, b, lambda x, y: x / y if y else math.nan)
        self.difference(a, b)  # raises where they cannot be compared
        means = a.estimate.value, b.estimate.value
        return over_seeds([self._ratio(a.metric, *pair, means) for pair in zip(a.runs, b.runs, strict=True)], True)

    def _ratio(self, metric: str, a: Path, b: Path, means: tuple[float, float]) -> Estimate:
        """That of two runs, so that the mean over the seeds is the ratio of the means over the seeds.

        The mean of ratios is another number, which the table contradicts. What a seed adds to the ratio of means is
        taken to first order (the delta method); with one seed it is nothing.
        """
        of_a, of_b = self._check(a), self._check(b)
        parts = [run.measured[metric] for run in (of_a, of_b)]
        first, second = (mean(part) if isinstance(part, np.ndarray) else part for part in parts)
        if not (isinstance(first, AdditiveScore) and isinstance(second, AdditiveScore)):
            raise UserError(f"a ratio of {metric} has no interval; claim a difference")
        width = first.parts.shape[1]
        videos = [row.video for row in of_a.rows if row.target is not None]
        with np.errstate(divide="ignore", invalid="ignore"):
            both = AdditiveScore(
                np.concatenate([first.parts, second.parts], 1),
                lambda sums: first.of(sums[..., :width]) / second.of(sums[..., width:]),
            )
            low, high = interval_of(both, videos, of_a.record["provenance"]["seed"])
            whole = np.divide(*means)
            number = float(whole + (first - whole * second) / np.float64(means[1]))
        return Estimate(number, number - (both - low), number + (high - both))

    def _check(self, run: Path) -> Checked:
        if run not in self.checked:
            self.checked[run] = compare.require_valid(run, self.files)
        return self.checked[run]


def _exact(a: Value, b: Value, of: Callable[[float, float], float]) -> Estimate:
    if bool(a.runs) != bool(b.runs):
        raise UserError("a cost and a score cannot be compared")
    if a.metric != b.metric:
        raise UserError(f"{a.metric} and {b.metric} cannot be compared")
    number = of(a.estimate.value, b.estimate.value)
    return Estimate(number, number, number)
