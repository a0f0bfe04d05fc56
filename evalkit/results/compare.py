"""Compares two runs of one task on the same samples: differences with intervals and p-values, clustered by video.

A difference's interval is a paired bootstrap of the videos: both runs are scored on the same draw. Its p-value is that
of an exchange test: if the runs were equally good, either could have given any video's answers, so that the two are
exchanged for each video at random, and p is how often that makes a difference as large. A bootstrap of few videos finds
too much; this does not. A score that is not made of sums, such as an average precision, ranks the answers to
all videos together, and those of two runs have no common scale; its p-value is how often the bootstrap strays as far
from its median as the difference is from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evalkit.errors import UserError, counted
from evalkit.metrics.bootstrap import AdditiveScore, Indices, ReweightedScore, difference, interval, mean
from evalkit.metrics.significance import exchange_test, paired_bootstrap
from evalkit.results.rows import Row
from evalkit.results.scores import Measured, present
from evalkit.results.validate import Checked, check

SHOWN = 10  # changed samples, of each kind


class Difference(NamedTuple):
    """The difference b - a of one metric, in its own unit; NaN if unknown.

    Attributes:
        low: of the 95 % interval.
        high: of the 95 % interval.
        p: of a difference as large, or larger, between runs that are equally good.
    """

    metric: str
    a: float
    b: float
    value: float
    low: float
    high: float
    p: float


class Compared(NamedTuple):
    """Two runs of one task.

    Attributes:
        differences: the headline, the other metrics, and the headline of each kind.
        by: the first metric that is of single samples; empty where none is.
        changed: by it, the ids of the samples that went `right -> wrong` and `wrong -> right`, or, of a metric that
            knows more than those two, are `lower` and `higher` in b.
        apart: what of the protocols differs, a line each.
        n: samples.
        n_clusters: videos.
    """

    differences: list[Difference]
    by: str
    changed: dict[str, list[str]]
    apart: list[str]
    n: int
    n_clusters: int


def compare(a: Path, b: Path, *, files: Sequence[Path] = ()) -> Compared:
    """What run b does better or worse than run a, on the same samples; failed ones are wrong.

    Args:
        a: a run.
        b: another.
        files: of tasks of the user's own, where the runs are of one.

    Raises:
        UserError: one is not valid; they are not of one task, version, split and score, or not of the same samples;
            says what differs.
    """
    return compare_runs((a, b), (require_valid(a, files), require_valid(b, files)))


def require_valid(run: Path, files: Sequence[Path]) -> Checked:
    """A run that validates.

    Raises:
        UserError: it does not; says the first problem.
    """
    checked = check(run, files)
    if checked.problems:
        raise UserError(checked.problems[0])
    return checked


def compare_runs(paths: tuple[Path, Path], checked: tuple[Checked, Checked]) -> Compared:
    """See `compare`; of runs that are validated already."""
    (a, b), records, every = paths, [run.record for run in checked], [run.rows for run in checked]
    if reason := _refusal(records, every):
        raise UserError(f"{a} and {b} cannot be compared: {reason}")
    rows = [row for row in every[0] if row.target is not None]
    if not rows:
        raise UserError(f"{a} and {b} cannot be compared: no sample has a public answer")
    measured_a, measured_b = (run.measured for run in checked)
    videos = [row.video for row in rows]
    by, changed = _changed(measured_a, measured_b, [row.id for row in rows])
    return Compared(
        list(_differences(measured_a, measured_b, rows, records[0]["provenance"]["seed"])),
        by,
        changed,
        list(_apart("", *(record["task"]["protocol"] for record in records))),
        len(rows),
        len(set(videos)),
    )


def _refusal(records: Sequence[Mapping[str, Any]], rows: Sequence[Sequence[Row]]) -> str:
    """What forbids a comparison; empty where nothing does."""
    tasks = [{**record["task"], "score": present(record["task"]["score"])} for record in records]
    for key in ("name", "version", "split", "score"):
        if tasks[0][key] != tasks[1][key]:
            return f"task.{key} is {tasks[0][key]} and {tasks[1][key]}"
    ids, others = ([row.id for row in run] for run in rows)
    if alone := set(ids) ^ set(others):
        return f"they have {len(ids):,} and {counted(len(others), 'sample')}, and {min(alone)!r} is in one of them only"
    if ids != others:
        return "their samples are in another order"
    for row, counterpart in zip(*rows, strict=True):
        for key in ("video", "kind", "target"):
            left, right = getattr(row, key), getattr(counterpart, key)
            if left != right:
                return f"{key} of sample {row.id!r} is {str(left)[:60]!r} and {str(right)[:60]!r}"
    if records[0]["data"]["fingerprint"] != records[1]["data"]["fingerprint"]:
        return "data.fingerprint differs: the questions, options or spans of their samples are not the same"
    return ""


def _apart(name: str, left: Any, right: Any) -> Iterator[str]:
    """Where two protocols differ, a line each."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        keys = {*left, *right}
        if left.get("adapter") != right.get("adapter"):  # which have settings of their own
            keys -= {"settings"}
        for key in sorted(keys):
            yield from _apart(f"{name}.{key}".lstrip("."), left.get(key), right.get(key))
    elif left != right:
        yield f"{name}: {str(left)[:60]} and {str(right)[:60]}"


def _changed(a: Measured, b: Measured, ids: Sequence[str]) -> tuple[str, dict[str, list[str]]]:
    for metric, values_a in a.items():
        values_b = b[metric]
        if isinstance(values_a, np.ndarray) and isinstance(values_b, np.ndarray):
            whole = {*values_a, *values_b} <= {0.0, 1.0}
            names = ("right -> wrong", "wrong -> right") if whole else ("lower", "higher")
            return metric, {
                name: [ids[i] for i in np.flatnonzero(chosen).tolist()]
                for name, chosen in zip(names, (values_b < values_a, values_b > values_a), strict=True)
            }
    return "", {}


def _differences(a: Measured, b: Measured, rows: Sequence[Row], seed: int) -> Iterator[Difference]:
    videos = [row.video for row in rows]
    for metric in a:
        yield _difference(metric, a[metric], b[metric], videos, seed)
    headline = next(iter(a), "")
    for kind in sorted({row.kind for row in rows} - {""}):
        places = np.flatnonzero([row.kind == kind for row in rows])
        of_a, of_b = (_among(run[headline], places) for run in (a, b))
        yield _difference(f"{headline}/{kind}", of_a, of_b, [videos[i] for i in places.tolist()], seed)


def _among(value: npt.NDArray[np.float64] | AdditiveScore | ReweightedScore, places: Indices) -> Any:
    return value[places] if isinstance(value, np.ndarray) else value.subset(places)


def _difference(metric: str, a: Any, b: Any, videos: Sequence[str], seed: int) -> Difference:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        low, high = interval((1 + b - a) / 2, videos, seed)  # from -1..1 to 0..1
        a, b = mean(a), mean(b)
        return Difference(metric, a, b, b - a, 200 * low - 100, 200 * high - 100, exchange_test(a, b, videos, seed))
    better, (low, high, p) = difference(a, b), paired_bootstrap(a, b, videos, seed)
    if isinstance(a, AdditiveScore) and not math.isnan(p):
        p = exchange_test(a, b, videos, seed)
    return Difference(metric, a, b, better, low, high, p)
