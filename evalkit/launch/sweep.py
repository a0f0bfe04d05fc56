"""`evalkit sweep`: values with commas make a product; what differs only in the adapter is fitted in one pass."""

from __future__ import annotations

import contextvars
import hashlib
import itertools
import json
import logging
import os
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.config.config import Config
from evalkit.config.parse import resolve
from evalkit.errors import UserError, on_screen, one_line
from evalkit.results import plot, run_folder, validate
from evalkit.results.table import columns, decimal, interval
from evalkit.runtime import notes, ranks

logger = logging.getLogger("evalkit")


class Cell(NamedTuple):
    """One pass over one task with one encoder: a configuration with the grid points that are fitted together.

    Attributes:
        words: what `evalkit sweep` takes for this cell alone.
        points: per grid point, the words that make it a plain run.
    """

    words: tuple[str, ...]
    points: tuple[tuple[str, ...], ...]
    config: Config


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
    jobs, cells = plan(words)
    place = ranks.here()
    with place.notes():
        logger.info(f"{len(cells)} passes, {sum(len(cell.points) for cell in cells)} grid points")
        done = run_all(jobs, cells)
    if not place.first:
        return 1 if any(outcome.failure for outcome in done) else 0
    print(report(done))
    setting, drawn = curves(done)
    if drawn:
        print(f"\n{plot.terminal(drawn, setting)}")
        mark = hashlib.sha256(repr(sorted(cell.config.words for cell in cells)).encode()).hexdigest()[:8]
        print(plot.png(drawn, setting, cells[0].config.options.out / f"sweep-{mark}.png"))
    return 1 if any(outcome.failure for outcome in done) else 0


def run_all(jobs: int, cells: Sequence[Cell]) -> list[Done]:
    """What came of each cell: so many are run side by side, and those that are finished already are not run again."""
    if jobs == 1 or len(cells) == 1:
        ended = [_run(cell) for cell in cells]
    elif ranks.here().size > 1:
        raise UserError(f"jobs={jobs}: srun or torchrun has started processes that share each pass: leave out jobs=")
    else:
        running: set[subprocess.Popen[str]] = set()
        pool = ThreadPoolExecutor(jobs)
        try:
            shown = contextvars.copy_context().copy  # whether notes are
            ended = list(pool.map(lambda cell: shown().run(_run_apart, cell, running), cells))
        finally:  # interrupted: no further cell begins, and those that run end
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()
            pool.shutdown()
    return [_done(cell, *end) for cell, end in zip(cells, ended, strict=True)]


def plan(words: Sequence[str]) -> tuple[int, list[Cell]]:
    """How many cells to run side by side, and the cells: one per combination of what is not `adapter.*`.

    Raises:
        UserError: a word is wrong.
    """
    jobs = 1
    axes: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"expected key=value, got {word!r}")
        if key == "jobs":
            jobs = int(value) if value.isdigit() else 0
            if jobs < 1:
                raise UserError(f"jobs={value}: expected a whole number above 0")
            continue
        values = list(dict.fromkeys(split(value)))
        if key in axes or (len(values) > 1 and not all(values)):
            raise UserError(f"{key} is given twice" if key in axes else f"{word}: a value between commas is empty")
        axes[key] = values
    grid = {
        key: values
        for key, values in axes.items()
        if key.startswith("adapter.") and key != "adapter.from" and len(values) > 1
    }
    common = {key: values for key, values in axes.items() if key not in grid}
    cells = []
    for chosen in _product(common):
        # In whatever order keys are given, points have the same numbers and the run the same name.
        points = tuple((*chosen, *varied_words) for varied_words in _product(dict(sorted(grid.items()))))
        configs = [resolve("run", point, called="sweep") for point in points]
        varied = [key.removeprefix("adapter.") for key in grid]
        base = configs[0]
        settings = tuple({key: config.adapter[key] for key in varied} for config in configs)
        quoted = [f"{key}={','.join(map(_quoted, values))}" for key, values in grid.items()]
        cell_words = (*(_word(word) for word in chosen), *quoted)
        common_settings = {key: value for key, value in base.adapter.items() if key not in varied}
        settled = replace(
            base, words=tuple(sorted(cell_words)), adapter=common_settings, points=settings if grid else ()
        )
        cells.append(Cell(cell_words, points, settled))
    return jobs, cells


def split(value: str) -> list[str]:
    """The parts of a value between commas that are outside brackets and quotes; quotes are taken off."""
    parts, depth, quote = [""], 0, ""
    for letter in value:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[(":
            depth += 1
        elif letter in "])":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += letter
    return [part[1:-1] if len(part) > 1 and part[0] == part[-1] and part[0] in "'\"" else part for part in parts]


def finished(config: Config) -> Path | None:
    """The complete run of this very cell that is already there, newer than the files that its words name."""
    mark = hashlib.sha256(config.to_yaml().encode()).hexdigest()[:8]
    changed = max(map(_changed, _named_files(config)), default=0.0)
    task_files = [Path(config.options.task).expanduser().resolve()] if config.options.task.endswith(".py") else []
    for record in sorted(config.options.out.glob(f"*/*/[!.]*-{mark}*/{run_folder.RESULT}")):
        if record.stat().st_mtime < changed:
            continue
        if problems := validate.validate(record.parent, task_files):
            logger.warning(f"not taken: {problems[0]}")
        elif run_folder.load(record.parent)["status"] == "complete":
            logger.info(f"already there: {record.parent}")
            return record.parent
    return None


def _named_files(config: Config) -> list[Path]:
    """The files and folders that a cell's words name, by the rules by which they are read.

    A name that is none must not be looked up: a folder `probe` in the working folder is not the adapter, and an empty
    path would be the working folder itself.
    """
    options = config.options
    names = [name for name in (options.task, options.adapter) if name.endswith(".py")]
    names += [options.ckpt] if options.ckpt != "demo" and not options.ckpt.startswith("random:") else []
    names += [options.adapter_from] if options.adapter_from not in ("", "none") else []
    names += [options.lm] if options.lm not in ("", "scratch") else []
    names += [str(value) for value in config.data.values() if isinstance(value, Path)]
    return [Path(name).expanduser() for name in names]


def _changed(place: Path) -> float:
    """When a file, or any file right in a folder, was last written; 0 for what is neither."""
    try:
        files = [place] if place.is_file() else [file for file in place.iterdir() if file.is_file()]
    except OSError:
        return 0.0
    return max((file.stat().st_mtime for file in files), default=0.0)


def report(done: Sequence[Done]) -> str:
    """A line per grid point: what it sets, its score on val, and for the chosen one the score on test."""
    shared = _shared(done)
    failures: dict[int, str] = {}
    rows: list[tuple[str, ...]] = [("task", "encoder", "grid point", "val", "", "test", "95 % interval", "val - test")]
    for cell, record, failure, chosen, values in done:
        if record is None:
            rows.append((cell.config.options.task, cell.config.options.ckpt, "", "", "failed", "", "", ""))
            failures[len(rows) - 1] = failure
            continue
        score = record["scores"][0] if record["scores"] else None
        for number, (words, value) in enumerate(zip(cell.points, values, strict=True)):
            settings = " ".join(word.removeprefix("adapter.") for word in words if _word(word) not in shared)
            end = ("", "", "", "")
            if number == chosen and score:
                test = score["value"]
                gap = None if value is None or test is None else value - test
                end = ("chosen", decimal(test, "", ""), interval(score["ci95"], "", ""), decimal(gap, "+", ""))
            names = (record["task"]["name"], record["encoder"]["name"])
            rows.append((*names, settings, decimal(value, "", ""), *end))
    lines = [with_failures(columns(rows), failures)]
    lines += [f"evalkit run {shlex.join(outcome.cell.points[outcome.chosen])}" for outcome in done if outcome.record]
    return "\n".join(lines)


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
        words = [w for w in cell.points[0] if _word(w) in cell.words and _word(w) not in shared]
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
    """The words that need no telling: those of every cell, and those whose columns tell them."""
    words = set.intersection(*(set(outcome.cell.words) for outcome in done))
    return words | {
        word for outcome in done for word in outcome.cell.words if word.partition("=")[0] in ("task", "ckpt")
    }


def _run(cell: Cell) -> tuple[Path | None, str]:
    """The folder of a cell's run, else why there is none; whatever goes wrong ends this cell alone."""
    from evalkit.launch.processes import run

    try:
        return finished(cell.config) or run(cell.config), ""
    except UserError as error:
        logger.error(f"evalkit: {error}")
        return None, str(error)
    except Exception as error:  # a cell must not end the others
        logger.error(traceback.format_exc().rstrip())
        return None, one_line(error)


def _run_apart(cell: Cell, running: set[subprocess.Popen[str]]) -> tuple[Path | None, str]:
    """The same in a process of its own, which is among those running while it does, and ends with this one."""
    if folder := finished(cell.config):
        return folder, ""
    program = (
        "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from evalkit.runtime import parent; "
        "parent.end_with(int(sys.argv.pop(1))); from evalkit.launch import sweep; sweep.run_alone(sys.argv[1:])"
    )
    path = json.dumps([str(place) for place in sys.path])
    # -P: else a json.py in the current folder would be run.
    command = [sys.executable, "-P", "-c", program, path, str(os.getpid()), *cell.words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
        running.add(process)
        output, messages = process.communicate()
        running.discard(process)
    if messages:
        logger.info(messages.removesuffix("\n"))
    try:
        place, failure = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):  # it was killed
        return None, f"its process ended with {process.returncode}"
    return Path(place) if place else None, failure


def run_alone(words: Sequence[str]) -> None:
    """Runs the one cell that these words make, and prints last, as JSON, its run's folder and why there is none."""
    _, (cell,) = plan(words)
    with notes.on_stderr():
        folder, failure = _run(cell)
    print(json.dumps([str(folder or ""), failure]))


def _done(cell: Cell, folder: Path | None, failure: str) -> Done:
    """What came of a cell, read from its run."""
    if folder is None:
        return Done(cell, failure=failure)
    try:
        record = run_folder.load(folder)
    except UserError as error:
        return Done(cell, failure=str(error))
    points = len(cell.points)
    if record["selection"] is None:
        return Done(cell, record, values=[None] * points)
    chosen, values = record["selection"]["chosen"].get("point"), record["selection"].get("grid_val_scores", [])
    if not (isinstance(chosen, int) and 0 <= chosen < points == len(values)):
        failure = (
            f"{folder}: {run_folder.RESULT} is not of these {points} grid points: remove it, and they are run again"
        )
        return Done(cell, failure=failure)
    return Done(cell, record, chosen=chosen, values=values)


def _product(axes: dict[str, list[str]]) -> Iterator[tuple[str, ...]]:
    for values in itertools.product(*axes.values()):
        yield tuple(f"{key}={value}" for key, value in zip(axes, values, strict=True))


def _word(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key}={_quoted(value)}"


def _quoted(value: str) -> str:
    """The value as `split` gives it back.

    Raises:
        UserError: it holds a comma and both kinds of quotes.
    """
    if split(value) == [value]:
        return value
    for quote in ('"', "'"):
        if quote not in value:
            return f"{quote}{value}{quote}"
    raise UserError(f"{value}: a value with a comma may hold one kind of quotes only")
