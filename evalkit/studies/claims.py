"""Whether the numbers of a study's cells bear out what is claimed of them: holds, does not hold, cannot tell.

A cost counts as it is; a score has an interval, by a paired bootstrap of the videos where two cells are compared. What
is claimed holds where the whole interval lies in the range that the claim states, and does not hold where none of it
does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from evalkit.errors import UserError, suggest
from evalkit.metrics.bootstrap import AdditiveScore, interval_of, mean
from evalkit.plugins import display_name
from evalkit.results import compare
from evalkit.results.validate import Checked
from evalkit.studies.files import Claim, Expectation

Verdict = Literal["holds", "does not hold", "cannot tell"]


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
        run: the folder of that run.
    """

    estimate: Estimate
    metric: str = ""
    run: Path | None = None


class Judged(NamedTuple):
    """A claim and what the numbers say of it.

    Attributes:
        estimates: of the difference, the ratio or the value; of an order, the difference of each pair.
        reason: why there is no estimate.
    """

    claim: Claim
    verdict: Verdict
    estimates: tuple[Estimate, ...] = ()
    reason: str = ""


@dataclass
class Outcome:
    """What came of a cell.

    Attributes:
        records: of what was trained, the last first, then of its runs.
        runs: the folders of its runs; None of one that failed.
        failure: why something is missing.
    """

    adapted: list[Mapping[str, Any]] = field(default_factory=list)
    runs: list[tuple[Path, Mapping[str, Any]]] = field(default_factory=list)
    failure: str = ""


def value(outcome: Outcome, name: str) -> Value:
    """What a cell has of an entry of `x` or `y`.

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
                return Value(Estimate(number, low, high), metric, folder)
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
        if a.run is None or b.run is None or a.run == b.run:
            return _exact(a, b, lambda x, y: x - y)
        pair = (b.run, a.run)
        if pair not in self.compared:
            self.compared[pair] = compare.compare_runs(pair, (self._check(b.run), self._check(a.run)))
        of_metric = [one for one in self.compared[pair].differences if one.metric == a.metric]
        if a.metric != b.metric or not of_metric:
            raise UserError(f"{a.metric} and {b.metric} cannot be compared")
        return Estimate(of_metric[0].value, of_metric[0].low, of_metric[0].high)

    def ratio(self, a: Value, b: Value) -> Estimate:
        """A divided by b."""
        if a.run is None or b.run is None or a.run == b.run:
            return _exact(a, b, lambda x, y: x / y if y else math.nan)
        self.difference(a, b)  # raises where they cannot be compared
        of_a, of_b = self._check(a.run), self._check(b.run)
        parts = [run.measured[value.metric] for run, value in ((of_a, a), (of_b, b))]
        first, second = (mean(part) if isinstance(part, np.ndarray) else part for part in parts)
        if not (isinstance(first, AdditiveScore) and isinstance(second, AdditiveScore)):
            raise UserError(f"a ratio of {a.metric} has no interval; claim a difference")
        width = first.parts.shape[1]
        both = AdditiveScore(
            np.concatenate([first.parts, second.parts], 1),
            lambda sums: first.of(sums[..., :width]) / second.of(sums[..., width:]),
        )
        videos = [row.video for row in of_a.rows if row.target is not None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return Estimate(float(both), *interval_of(both, videos, of_a.record["provenance"]["seed"]))

    def _check(self, run: Path) -> Checked:
        if run not in self.checked:
            self.checked[run] = compare.require_valid(run, self.files)
        return self.checked[run]


def _exact(a: Value, b: Value, of: Callable[[float, float], float]) -> Estimate:
    if (a.run is None) != (b.run is None):
        raise UserError("a cost and a score cannot be compared")
    if a.run is not None and a.metric != b.metric:
        raise UserError(f"{a.metric} and {b.metric} cannot be compared")
    number = of(a.estimate.value, b.estimate.value)
    return Estimate(number, number, number)


def judge(claim: Claim, outcomes: Mapping[str, Outcome], pairs: Pairs) -> Judged:
    """A claim, held against what came of the cells."""
    try:
        values = [value(outcomes[name], claim.metric) for name in claim.of]
        match claim.expect.of:
            case "value":
                estimates = [values[0].estimate]
            case "difference":
                estimates = [pairs.difference(*values)]
            case "ratio":
                estimates = [pairs.ratio(*values)]
            case "lowest" | "highest":
                estimates = [pairs.difference(values[0], other) for other in values[1:]]
            case _:
                estimates = [pairs.difference(after, before) for before, after in itertools.pairwise(values)]
    except UserError as error:
        return Judged(claim, "cannot tell", reason=str(error))
    return Judged(claim, verdict(claim.expect, estimates), tuple(estimates))


def verdict(expect: Expectation, estimates: Sequence[Estimate]) -> Verdict:
    """What the estimates say: of several, all must lie in the range for it to hold, and one outside refutes it."""
    if expect.of in ("increasing", "highest"):
        verdicts = [_above(estimate) for estimate in estimates]
    elif expect.of in ("decreasing", "lowest"):
        verdicts = [_above(Estimate(-value, -high, -low)) for value, low, high in estimates]
    else:
        verdicts = [_within(estimate, expect.low, expect.high) for estimate in estimates]
    if "does not hold" in verdicts:
        return "does not hold"
    return "cannot tell" if "cannot tell" in verdicts else "holds"


def _above(estimate: Estimate) -> Verdict:
    """Whether a difference is above 0; of two costs that are equal it is not."""
    value, low, high = estimate
    if math.isnan(value + low + high):
        return "cannot tell"
    return "holds" if low > 0 else "does not hold" if high < 0 or low == high == 0 else "cannot tell"


def _within(estimate: Estimate, low: float, high: float) -> Verdict:
    if math.isnan(estimate.value + estimate.low + estimate.high):
        return "cannot tell"
    if low <= estimate.low and estimate.high <= high:
        return "holds"
    return "does not hold" if estimate.high < low or estimate.low > high else "cannot tell"


def front(points: Sequence[tuple[float, float]], lower: bool = False) -> list[bool]:
    """Which points (cost, worth) are on the Pareto front: none costs less or as much and is worth more, or as much.

    Args:
        points: NaN where one is unknown, which is on no front.
        lower: less is more, of the worth.
    """
    known = [(x, -y if lower else y) for x, y in points]
    return [
        not math.isnan(x + y)
        and not any(a <= x and b >= y and (a, b) != (x, y) for a, b in known if not math.isnan(a + b))
        for x, y in known
    ]
