"""`evalkit sweep`: values with commas make a product; what differs only in the adapter is fitted in one pass."""

from __future__ import annotations

import hashlib
import itertools
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from evalkit import plot, result
from evalkit.api import UserError
from evalkit.config import Config, resolve


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
    """What came of a cell: the run's folder, or why there is none."""

    cell: Cell
    folder: Path | None
    failure: str = ""


def sweep(words: Sequence[str]) -> int:
    """Runs every cell that is not finished yet, prints what was chosen, and returns 1 where a cell failed.

    Raises:
        UserError: a word is wrong; nothing has been run then.
    """
    jobs, cells = plan(words)
    print(f"{len(cells)} passes, {sum(len(cell.points) for cell in cells)} grid points", file=sys.stderr)
    if jobs == 1 or len(cells) == 1:
        done = [_run(cell) for cell in cells]
    else:
        with ThreadPoolExecutor(jobs) as pool:
            done = list(pool.map(_run_apart, cells))
    print(report(done))
    setting, found = curves(done)
    if found:
        out = cells[0].config.options.out
        mark = hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]
        plot.png(found, setting, out / f"sweep-{mark}.png")
        print(f"\n{plot.terminal(found, setting)}\n{out / f'sweep-{mark}.png'}")
    return 1 if any(one.failure for one in done) else 0


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
        points = tuple((*chosen, *own) for own in _product(grid))
        configs = [resolve("run", point) for point in points]
        varied = [key.removeprefix("adapter.") for key in grid]
        base = configs[0]
        own = tuple({key: one.adapter[key] for key in varied} for one in configs)
        quoted = [f"{key}={','.join(map(_quoted, values))}" for key, values in grid.items()]
        cell_words = (*(_word(word) for word in chosen), *quoted)
        common_settings = {key: value for key, value in base.adapter.items() if key not in varied}
        settled = replace(base, words=cell_words, adapter=common_settings, points=own if grid else ())
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
    named = [config.options.ckpt, config.options.task, config.options.adapter, config.options.adapter_from]
    named += [str(value) for value in config.data.values() if isinstance(value, Path)]
    changed = max(_changed(Path(name).expanduser()) for name in named)
    for record in sorted(config.options.out.glob(f"*/*/[!.]*-{mark}*/{result.RESULT}")):
        if record.stat().st_mtime < changed or result.validate(record.parent):
            continue
        if result.load(record.parent)["status"] == "complete":
            print(f"already there: {record.parent}", file=sys.stderr)
            return record.parent
    return None


def _changed(place: Path) -> float:
    """When a file, or any file right in a folder, was last written; 0 for what is neither."""
    try:
        files = [place] if place.is_file() else [file for file in place.iterdir() if file.is_file()]
    except OSError:
        return 0.0
    return max((file.stat().st_mtime for file in files), default=0.0)


def report(done: Sequence[Done]) -> str:
    """A line per grid point: what it sets, its score on val, and for the chosen one the score on test."""
    from evalkit.table import columns

    shared = _shared(done)
    rows: list[tuple[str, ...]] = [("task", "encoder", "grid point", "val", "", "test", "95 % interval", "val - test")]
    for cell, folder, failure in done:
        if folder is None:
            rows.append((cell.config.options.task, cell.config.options.ckpt, "", "", f"failed: {failure}", "", "", ""))
            continue
        record = result.load(folder)
        chosen, values = _choice(record)
        score = record["scores"][0] if record["scores"] else None
        for number, words in enumerate(cell.points):
            own = " ".join(word.removeprefix("adapter.") for word in words if _word(word) not in shared)
            value = values[number] if number < len(values) else None
            told = "" if value is None else f"{value:.1f}"
            end = ("", "", "", "")
            if number == chosen and score:
                low, high = score["ci95"]
                gap = "" if value is None else f"{value - score['value']:+.1f}"
                end = ("chosen", f"{score['value']:.1f}", f"{low:.1f} to {high:.1f}", gap)
            rows.append((record["task"]["name"], record["encoder"]["name"], own, told, *end))
    lines = [columns(rows)]
    lines += [f"evalkit run {shlex.join(_chosen_words(one))}" for one in done if one.folder]
    return "\n".join(lines)


def curves(done: Sequence[Done]) -> tuple[str, list[plot.Curve]]:
    """The first setting with several numbers, and the scores on val over it: a curve for each choice of all others."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    shared = _shared(done)
    setting = ""
    for cell, folder, _ in done:
        first = cell.config.points[0] if cell.config.points else {}
        varied = [key for key in first if all(_is_number(point[key]) for point in cell.config.points)]
        if folder is None or not varied or setting not in ("", varied[0]):
            continue
        setting = varied[0]
        record = result.load(folder)
        own = [w for w in cell.points[0] if _word(w) in cell.words and _word(w) not in shared]
        name = " ".join([record["encoder"]["name"], "on", record["task"]["name"], *own])
        for point, value in zip(cell.config.points, _choice(record)[1], strict=False):
            if value is not None:
                others = " ".join(f"{key}={point[key]}" for key in point if key != setting)
                xs, ys = found.setdefault(f"{name} {others}".strip(), ([], []))
                xs.append(float(point[setting]))
                ys.append(value)
    return f"adapter.{setting}", [(name, xs, ys) for name, (xs, ys) in found.items()]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shared(done: Sequence[Done]) -> set[str]:
    """The words that need no telling: those of every cell, and those whose columns tell them."""
    words = set.intersection(*(set(one.cell.words) for one in done))
    return words | {word for one in done for word in one.cell.words if word.partition("=")[0] in ("task", "ckpt")}


def _choice(record: dict[str, Any]) -> tuple[int, list[float | None]]:
    """The number of the chosen grid point, and each point's score on val."""
    selection = record["selection"] or {}
    values = selection.get("grid_val_scores") or [selection.get("val_score")]
    return selection.get("chosen", {}).get("point", 0), values


def _chosen_words(done: Done) -> tuple[str, ...]:
    assert done.folder
    return done.cell.points[_choice(result.load(done.folder))[0]]


def _run(cell: Cell) -> Done:
    """One cell in this process; whatever goes wrong is what came of it."""
    from evalkit.run import run

    try:
        return Done(cell, finished(cell.config) or run(cell.config))
    except UserError as error:
        print(f"evalkit: {error}", file=sys.stderr)
        return Done(cell, None, str(error))
    except Exception as error:  # a cell must not end the others
        traceback.print_exc()
        return Done(cell, None, f"{type(error).__name__}: {error}")


def _run_apart(cell: Cell) -> Done:
    """One cell in a process of its own."""
    if folder := finished(cell.config):
        return Done(cell, folder)
    ended = subprocess.run([sys.executable, "-m", "evalkit", "sweep", *cell.words], capture_output=True, text=True)
    print(ended.stderr, end="", file=sys.stderr)
    folder = finished(cell.config)
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    return Done(cell, folder, "" if folder else (lines or [f"ended with {ended.returncode}"])[-1])


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
