"""Which of several runs of one task is better, and how sure that is: differences on the same samples, clustered.

A difference's interval is a paired bootstrap of the videos: both runs are scored on the same draw. Its p-value is that
of an exchange test: if the runs were equally good, either could have given any video's answers, so that the two are
exchanged for each video at random, and p is how often that makes a difference as large. A bootstrap of few videos finds
too much; this does not. A score that is not made of sums, such as an average precision, ranks the answers to
all videos together, and those of two runs have no common scale; its p-value is how often the bootstrap strays as far
from its median as the difference is from 0.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evalkit.api import UserError
from evalkit.metrics.bootstrap import (
    AT_ONCE,
    LEVEL,
    RESAMPLES,
    Indices,
    Summed,
    Table,
    Weighted,
    centred,
    difference,
    interval,
    kinds,
    mean,
    numbered,
    sums_drawn,
)
from evalkit.plugins import suggest
from evalkit.results.rows import Row
from evalkit.results.run_folder import Checked, check
from evalkit.results.scores import Measured, lower_is_better, task_files
from evalkit.results.table import columns, first

# Below so many clusters nothing can be told: even if all agreed, chance would do so in 2 x 0.5^5 of all cases.
FEWEST = 6
SHOWN = 10  # changed samples, of each kind


class Difference(NamedTuple):
    """How far b is above a by one metric, in its own unit; NaN stands for what is unknown.

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
    return _compared((a, b), (_valid(a, files), _valid(b, files)))


def _valid(run: Path, files: Sequence[Path]) -> Checked:
    checked = check(run, files)
    if checked.problems:
        raise UserError(checked.problems[0])
    return checked


def _compared(paths: tuple[Path, Path], checked: tuple[Checked, Checked]) -> Compared:
    (a, b), records, every = paths, [one.record for one in checked], [one.rows for one in checked]
    if told := _refusal(records, every):
        raise UserError(f"{a} and {b} cannot be compared: {told}")
    rows = [row for row in every[0] if row.target is not None]
    if not rows:
        raise UserError(f"{a} and {b} cannot be compared: no sample has a public answer")
    one, other = (own.measured for own in checked)
    videos = [row.video for row in rows]
    by, changed = _changed(one, other, [row.id for row in rows])
    return Compared(
        list(_differences(one, other, rows, records[0]["provenance"]["seed"])),
        by,
        changed,
        list(_apart("", *(record["task"]["protocol"] for record in records))),
        len(rows),
        len(set(videos)),
    )


def _refusal(records: Sequence[Mapping[str, Any]], rows: Sequence[Sequence[Row]]) -> str:
    """What forbids a comparison; empty where nothing does."""
    one, other = (record["task"] for record in records)
    for key in ("name", "version", "split", "score"):
        if one[key] != other[key]:
            return f"task.{key} is {one[key]} and {other[key]}"
    ids, others = ([row.id for row in own] for own in rows)
    if alone := set(ids) ^ set(others):
        return f"they have {len(ids):,} and {len(others):,} samples, and {min(alone)!r} is in one of them only"
    if ids != others:
        return "their samples are in another order"
    for row, own in zip(*rows, strict=True):
        for key in ("video", "kind", "target"):
            if (told := getattr(row, key)) != getattr(own, key):
                return f"{key} of sample {row.id!r} is {str(told)[:60]!r} and {str(getattr(own, key))[:60]!r}"
    if records[0]["data"]["fingerprint"] != records[1]["data"]["fingerprint"]:
        return "data.fingerprint differs: the questions, options or spans of their samples are not the same"
    return ""


def _apart(name: str, one: Any, other: Any) -> Iterator[str]:
    """Where two protocols differ, a line each."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = {*one, *other}
        if one.get("adapter") != other.get("adapter"):  # which have settings of their own
            keys -= {"settings"}
        for key in sorted(keys):
            yield from _apart(f"{name}.{key}".lstrip("."), one.get(key), other.get(key))
    elif one != other:
        yield f"{name}: {str(one)[:60]} and {str(other)[:60]}"


def _changed(a: Measured, b: Measured, ids: Sequence[str]) -> tuple[str, dict[str, list[str]]]:
    for metric, one in a.items():
        other = b[metric]
        if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
            whole = {*one, *other} <= {0.0, 1.0}
            names = ("right -> wrong", "wrong -> right") if whole else ("lower", "higher")
            return metric, {
                name: [ids[i] for i in np.flatnonzero(chosen).tolist()]
                for name, chosen in zip(names, (other < one, other > one), strict=True)
            }
    return "", {}


def _differences(a: Measured, b: Measured, rows: Sequence[Row], seed: int) -> Iterator[Difference]:
    videos = [row.video for row in rows]
    for metric in a:
        yield _difference(metric, a[metric], b[metric], videos, seed)
    headline = next(iter(a), "")
    for kind in sorted({row.kind for row in rows} - {""}):
        places = np.flatnonzero([row.kind == kind for row in rows])
        one, other = (_among(own[headline], places) for own in (a, b))
        yield _difference(f"{headline}/{kind}", one, other, [videos[i] for i in places.tolist()], seed)


def _among(value: npt.NDArray[np.float64] | Summed | Weighted, places: Indices) -> Any:
    return value[places] if isinstance(value, np.ndarray) else value.among(places)


def _difference(metric: str, a: Any, b: Any, videos: Sequence[str], seed: int) -> Difference:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        low, high = interval((1 + b - a) / 2, videos, seed)  # from -1..1 to 0..1
        a, b = mean(a), mean(b)
        return Difference(metric, a, b, b - a, 200 * low - 100, 200 * high - 100, exchanged(a, b, videos, seed))
    better, (low, high, p) = difference(a, b), paired(a, b, videos, seed)
    if isinstance(a, Summed) and not math.isnan(p):
        p = exchanged(a, b, videos, seed)
    return Difference(metric, a, b, better, low, high, p)


def paired(
    a: Summed | Weighted, b: Summed | Weighted, clusters: Sequence[Hashable], seed: int, resamples: int | None = None
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
    low, high = centred(drawn, better)
    if n < FEWEST or math.isnan(low):
        return low, high, 1.0 if not np.any(drawn) else math.nan
    return low, high, _share(drawn - np.median(drawn), better)


def exchanged(a: Summed, b: Summed, clusters: Sequence[Hashable], seed: int, resamples: int = RESAMPLES) -> float:
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
    step = max(1, AT_ONCE // len(alike))
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
    values: Sequence[npt.ArrayLike | Summed], clusters: Sequence[Hashable], seed: int, resamples: int = 2_000
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
    scores = [one if isinstance(one, Summed) else mean(one) for one in values]
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


# --- the command -----------------------------------------------------------------------------------------------------


def report(words: Sequence[str]) -> str:
    """What `evalkit compare A B ... [all=true] [task=FILE.py]` prints: each B beside A.

    Raises:
        UserError: fewer than two runs are named, or as `compare`.
    """
    words, files = task_files(words)
    paths = [Path(word) for word in words if word not in ("all=true", "all=false")]
    for path in paths:
        if "=" in path.name and not path.exists():
            raise UserError(f"compare takes runs and all=true, got {path}.{suggest(str(path), ['all=true'])}")
    if len(paths) < 2:
        raise UserError(f"compare takes two or more runs, got {' '.join(words) or 'nothing'}")
    a, *others = paths
    known = {run: _valid(run, files) for run in paths}
    found = [_compared((a, b), (known[a], known[b])) for b in others]
    together = [holm(p) for p in zip(*([one.p for one in own.differences] for own in found), strict=True)]
    task = known[a].record["task"]
    lines = [
        f"{task['name']}, {task['split']}: {found[0].n:,} samples of {found[0].n_clusters:,} videos",
        f"A  {_run(a, known[a].record)}",
    ]
    for k, (b, own) in enumerate(zip(others, found, strict=True)):
        lines += [f"B  {_run(b, known[b].record)}", *(f"protocol differs in {line}" for line in own.apart), ""]
        rows = [("", "A", "B", "B - A", "95 % interval", "p", *(["p of all (Holm)"] if len(found) > 1 else []))]
        for one, adjusted in zip(own.differences, together, strict=True):
            span = "-" if math.isnan(one.low) else f"{one.low:+.1f} to {one.high:+.1f}"
            told = [_decimal(one.a), _decimal(one.b), _decimal(one.value, "+"), span, _p(one.p)]
            metric = f"{one.metric}, less is better" if lower_is_better(one.metric) else one.metric
            rows.append((metric, *told, *([_p(adjusted[k])] if len(found) > 1 else [])))
        lines += [columns(rows), ""]
        for name, ids in own.changed.items():
            shown = first(ids, len(ids) if "all=true" in words else SHOWN)
            lines.append(f"{own.by} {name}: {len(ids):,}" + (f"  ({shown})" if ids else ""))
        if not own.by:
            lines.append("no metric is of single samples, so none is said to have changed")
        lines.append("")
    return "\n".join(lines[:-1])


def _run(run: Path, record: Mapping[str, Any]) -> str:
    failed = record["data"]["n_failed"]
    told = f"{run}  {record['encoder']['name']}, {record['adapter']['name']}"
    return told + (f", {failed:,} samples failed, counted as wrong" if failed else "")


def _decimal(number: float, sign: str = "") -> str:
    return "-" if math.isnan(number) else f"{float(number):{sign}.1f}"


def _p(number: float) -> str:
    return "-" if math.isnan(number) else "< 0.001" if number < 0.001 else f"{number:.3f}"
