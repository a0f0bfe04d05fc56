"""`evalkit sweep`: values with commas make a product; what differs only in the adapter is fitted in one pass."""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evalkit.errors import UserError, on_screen
from evalkit.launch import cells, local
from evalkit.launch.cells import Cell, Jobs
from evalkit.launch.local import Ended
from evalkit.results import plot, run_folder
from evalkit.results.table import columns, decimal, interval
from evalkit.runtime import ranks
from evalkit.tracking import trackers

logger = logging.getLogger("evalkit")


class Done(NamedTuple):
    """What came of a cell.

    Attributes:
        record: what result.json holds; None where the cell failed.
        failure: why there is none.
        chosen: the number of the grid point that is best on val.
        values: each point's score on val; None where it has none.
    """

    cell: Cell
    record: dict[str, Any] | None = None
    failure: str = ""
    chosen: int = 0
    values: Sequence[float | None] = ()


def sweep(words: Sequence[str]) -> int:
    """Runs every cell that is not finished yet, prints what was chosen, and returns 1 where a cell failed.

    Raises:
        UserError: a word is wrong; nothing has been run then.
    """
    jobs, planned = cells.plan(words)
    place = ranks.here()
    with place.notes():
        points = sum(len(cell.points) for cell in planned)
        logger.info(f"passes: {len(planned)}, grid points: {points}")
        if points == 1:
            logger.info("no key has several values: a sweep takes them with commas between, adapter.lr=1e-4,1e-3")
        done = run_all(jobs, planned)
    if not place.first:
        return 1 if any(outcome.failure for outcome in done) else 0
    print(report(done))
    setting, drawn = curves(done)
    if drawn:
        print(f"\n{plot.terminal(drawn, setting)}")
        mark = hashlib.sha256(repr(sorted(cell.config.words for cell in planned)).encode()).hexdigest()[:8]
        print(plot.png(drawn, setting, planned[0].config.options.out / f"sweep-{mark}.png"))
    return 1 if any(outcome.failure for outcome in done) else 0


def run_all(jobs: Jobs, planned: Sequence[Cell], name: str = "sweep") -> list[Done]:
    """What came of each cell; those that are finished already are not run again."""
    return [_done(cell, end) for cell, end in zip(planned, end_all(jobs, planned, name), strict=True)]


def end_all(jobs: Jobs, planned: Sequence[Cell], name: str) -> list[Ended]:
    """How each cell ended, wherever it ran; in trackers they are a group of this name.

    Raises:
        UserError: a tracker is not installed; nothing has been run then.
    """
    for cell in planned:
        trackers.check(cell.config.options)
    planned = cells.grouped(planned, name)
    if jobs.on == "slurm":
        from evalkit.launch import slurm

        return slurm.run_all(planned, jobs)
    if jobs.on == "ray":
        from evalkit.launch import ray

        return ray.run_all(planned, jobs)
    return local.run_all(planned, jobs.count or 1)


def _done(cell: Cell, ended: Ended) -> Done:
    """What came of a cell, read from its run."""
    if ended.folder is None:
        return Done(cell, failure=ended.failure)
    try:
        record = run_folder.load(ended.folder)
    except UserError as error:
        return Done(cell, failure=str(error))
    points = len(cell.points)
    if record["selection"] is None:
        return Done(cell, record, values=[None] * points)
    chosen, values = record["selection"]["chosen"].get("point"), record["selection"].get("grid_val_scores", [])
    if not (isinstance(chosen, int) and 0 <= chosen < points == len(values)):
        failure = (
            f"{ended.folder}: {run_folder.RESULT} is not of these {points} grid points: remove it, and they are run "
            "again"
        )
        return Done(cell, failure=failure)
    return Done(cell, record, chosen=chosen, values=values)


def report(done: Sequence[Done]) -> str:
    """A line per grid point: what it sets, its score on val, and for the chosen one the score on test."""
    shared = _shared(done)
    failures: dict[int, str] = {}
    kept = [_saved_bytes(outcome.record) for outcome in done]
    apart = len(set(kept) - {None}) > 1  # else the column would tell nothing
    rows: list[tuple[str, ...]] = [("task", "encoder", "grid point", "val", "", "test", "95 % interval", "val - test")]
    rows[0] += ("MB kept",) if apart else ()
    for (cell, record, failure, chosen, values), saved in zip(done, kept, strict=True):
        if record is None:
            settings = " ".join(word.removeprefix("adapter.") for word in cell.words if word not in shared)
            names = (cell.config.options.task, cell.config.options.ckpt)
            rows.append((*names, settings, "", "failed", "", "", "", *[""] * apart))
            failures[len(rows) - 1] = failure + _in_two_sweeps(cell, failure, done)
            continue
        score = record["scores"][0] if record["scores"] else None
        for number, (words, value) in enumerate(zip(cell.points, values, strict=True)):
            settings = " ".join(word.removeprefix("adapter.") for word in words if cells.word_of(word) not in shared)
            end = ("", "", "", "")
            if number == chosen and score:
                test = score["value"]
                gap = None if value is None or test is None else value - test
                end = ("chosen", decimal(test, "", ""), interval(score["ci95"], "", ""), decimal(gap, "+", ""))
            names = (record["task"]["name"], record["encoder"]["name"])
            megabytes = "" if saved is None or number != chosen else f"{saved / 1e6:,.1f}"
            rows.append((*names, settings, decimal(value, "", ""), *end, *([megabytes] if apart else [])))
    lines = [with_failures(columns(rows), failures)]
    lines += [f"evalkit run {shlex.join(outcome.cell.points[outcome.chosen])}" for outcome in done if outcome.record]
    return "\n".join(lines)


def _in_two_sweeps(cell: Cell, failure: str, done: Sequence[Done]) -> str:
    """What to append to the failure of a cell whose encoder one of its settings does not fit; else empty."""
    keys = (word.partition("=")[0] for word in cell.words)
    key = next((key for key in keys if key.startswith("encoder.") and failure.startswith(f"{key}=")), "")
    options = [outcome.cell.config.options for outcome in done]
    fitting = [of.ckpt for of, outcome in zip(options, done, strict=True) if not outcome.failure.startswith(f"{key}=")]
    return cells.in_two_sweeps(key, fitting, (of.ckpt for of in options), cell.config.options.out) if key else ""


def _saved_bytes(record: dict[str, Any] | None) -> int | None:
    """What autograd keeps of a training step of the run's adapter; None where none was measured."""
    saved: int | None = (record or {}).get("cost", {}).get("training", {}).get("saved_bytes")
    return saved


def with_failures(table: str, failures: Mapping[int, str]) -> str:
    """A table with the reason at the end of each row that ends in `failed`; in a cell it would widen all of them.

    Args:
        table: as `columns` gives it.
        failures: reason by the number of the row.
    """
    lines = table.splitlines()
    for row, reason in failures.items():
        lines[row] += f": {on_screen(reason)}"
    return "\n".join(lines)


def curves(done: Sequence[Done]) -> tuple[str, list[plot.Curve]]:
    """The first setting with several numbers, and the scores on val over it: a curve for each choice of all others."""
    points_of: dict[str, tuple[list[float], list[float]]] = {}
    shared = _shared(done)
    setting = ""
    for cell, record, _, _, values in done:
        first = cell.config.points[0] if cell.config.points else {}
        varied = [key for key in first if all(_is_number(point[key]) for point in cell.config.points)]
        if record is None or not varied or setting not in ("", varied[0]):
            continue
        setting = varied[0]
        words = [w for w in cell.points[0] if cells.word_of(w) in cell.words and cells.word_of(w) not in shared]
        name = " ".join([record["encoder"]["name"], "on", record["task"]["name"], *words])
        for point, value in zip(cell.config.points, values, strict=True):
            if value is not None:
                others = " ".join(f"{key}={point[key]}" for key in point if key != setting)
                xs, ys = points_of.setdefault(f"{name} {others}".strip(), ([], []))
                xs.append(float(point[setting]))
                ys.append(value)
    return f"adapter.{setting}", [(name, xs, ys) for name, (xs, ys) in points_of.items()]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shared(done: Sequence[Done]) -> set[str]:
    """Options that need not be shown: those of every cell, and those with a column of their own."""
    words = set.intersection(*(set(outcome.cell.words) for outcome in done))
    return words | {
        word for outcome in done for word in outcome.cell.words if word.partition("=")[0] in ("task", "ckpt")
    }
