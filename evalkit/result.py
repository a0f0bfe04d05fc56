"""The record of a run: what was predicted, what it scores, and whether both can be trusted.

A run is a folder that is written once, whole or not at all, and never changed:

    result.json         scores and all that led to them; its shape is result.schema.json
    predictions.jsonl   one `Row` per test example; the scores can be recomputed from it alone
    config.yaml         the resolved configuration
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import secrets
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.api import Score, UserError
from evalkit.statistics import Indices, interval, interval_of

RESULT, PREDICTIONS, CONFIG = "result.json", "predictions.jsonl", "config.yaml"

_Measured = dict[str, "float | npt.NDArray[np.float64]"]


@dataclass(frozen=True)
class Row:
    """One line of predictions.jsonl: what was predicted for one test example.

    Holds plain values only: numpy and torch numbers and arrays become Python's, tuples become lists, NaN and infinity
    become None. A row therefore equals what is read back, and so do the scores.

    Attributes:
        id: unique in the run.
        video: what the intervals are clustered by; the same text for all examples of one video.
        kind: scores are also given per kind; empty means none.
        target: what is right; None where the answer is not public.
        prediction: what the task's score function takes; None means failed, or not predicted.
        failure: one line on why there is no prediction; None where there is one.
        decoder: what decoded the video, where it was not the default.
        detail: anything worth keeping, such as the log-likelihood of each option.

    Raises:
        UserError: a value cannot be written as JSON.
    """

    id: str
    video: str
    kind: str = ""
    target: Any = None
    prediction: Any = None
    failure: str | None = None
    decoder: str | None = None
    detail: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("target", "prediction", "detail"):
            try:
                object.__setattr__(self, name, plain(getattr(self, name)))
            except UserError as error:
                raise UserError(f"{name} of example {self.id!r}: {error}") from error
        if self.failure is not None and self.prediction is not None:
            raise ValueError(f"example {self.id!r} has both a prediction and a failure: {self.failure}")

    def json(self) -> str:
        """The row as one line of JSON, ASCII, without the line's end."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def parse(cls, line: str) -> Row:
        """The row that `json` wrote.

        Raises:
            ValueError: the line is no such row; says why.
        """
        found = _parse(line)
        problems = _violations(found, "#/$defs/row")
        if problems:
            raise ValueError(problems[0])
        return cls(**found)


def plain(value: Any) -> Any:
    """The value in what JSON has: numpy and torch become Python's, tuples lists, paths text, NaN and infinity None.

    Raises:
        UserError: the value, or one inside it, is of another type.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy and torch, arrays and scalars, without importing torch
        return plain(value.tolist())
    raise UserError(
        f"a result cannot hold {type(value).__name__} {str(value)[:60]!r}; give numbers, text, lists or dictionaries"
    )


def digest(value: Any) -> str:
    """The sha256, in hex, of the value as JSON with sorted keys: equal for equal settings, whatever their order."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_id(config_yaml: str, started: datetime) -> str:
    """A run's folder name, which sorts by time: 20260131T235959Z-1a2b3c4d, UTC and a hash of the configuration."""
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{hashlib.sha256(config_yaml.encode()).hexdigest()[:8]}"


# --- scores ---------------------------------------------------------------------------------------------------------


def scores(score: Score, rows: Sequence[Row], seed: int) -> list[dict[str, Any]]:
    """The scores over all labelled rows, as result.json holds them: the headline first, then the headline per kind.

    Every labelled example counts, a failed one as wrong. Rates are in percent. `bounds` is what the score would be with
    all failed examples wrong (the score itself) and all of them right. Numbers are rounded to six decimals, so that
    the order in which a machine adds does not show.

    Args:
        score: the task's score function.
        rows: all test examples; those without a target are left out.
        seed: of the bootstrap.

    Returns:
        A list of {metric, value, ci95 [low, high], n, n_clusters, bounds [all failed wrong, all failed right]}; None
        stands for a number that is undefined. Empty where no row has a target.

    Raises:
        UserError: the score function returns something else than `evalkit.api.Score` allows.
    """
    labelled = [row for row in rows if row.target is not None]
    if not labelled:
        return []
    targets = [row.target for row in labelled]
    predictions = [row.prediction for row in labelled]
    corrected = [row.target if row.prediction is None else row.prediction for row in labelled]
    videos = [row.video for row in labelled]
    failed = np.array([row.prediction is None for row in labelled])

    worst = _measure(score, predictions, targets, must_be=0.0, where=failed)
    best = _measure(score, corrected, targets, must_be=1.0, where=failed) if failed.any() else worst

    def entries(metrics: Sequence[str], indices: Indices, suffix: str = "") -> list[dict[str, Any]]:
        """One entry per metric, over the labelled examples with these indices."""
        chosen = [videos[i] for i in indices]
        per_split = [metric for metric in metrics if not isinstance(worst[metric], np.ndarray)]

        def over(given: Sequence[Any], drawn: Indices) -> list[float]:
            found: Mapping[str, Any] = score([given[i] for i in drawn], [targets[i] for i in drawn])
            return [float(found[metric]) for metric in per_split]

        value: dict[str, tuple[float, float, float, float]] = {}  # low, value, with all failed right, high
        if per_split:  # all of them from the same draws: each draw costs one call of the score function
            low, high = interval_of(lambda drawn: over(predictions, indices[drawn]), chosen, seed)
            numbers = zip(low, over(predictions, indices), over(corrected, indices), high, strict=True)
            value = dict(zip(per_split, numbers, strict=True))
        for metric in metrics:
            rates, bound = worst[metric], best[metric]
            if isinstance(rates, np.ndarray) and isinstance(bound, np.ndarray):
                low, high = interval(rates[indices], chosen, seed)
                value[metric] = (100 * low, 100 * rates[indices].mean(), 100 * bound[indices].mean(), 100 * high)
        found = []
        for metric in metrics:
            low, middle, right, high = (_rounded(number) for number in value[metric])
            found.append(
                {
                    "metric": metric + suffix,
                    "value": middle,
                    "ci95": [low, high],
                    "n": len(indices),
                    "n_clusters": len(set(chosen)),
                    "bounds": [middle, right],
                }
            )
        return found

    metrics = list(worst)
    found = entries(metrics, np.arange(len(labelled)))
    for kind in sorted({row.kind for row in labelled} - {""}):
        members = np.flatnonzero([row.kind == kind for row in labelled])
        found += entries(metrics[:1], members, f"/{kind}")
    return found


def _measure(
    score: Score,
    predictions: Sequence[Any],
    targets: Sequence[Any],
    must_be: float | None = None,
    where: npt.NDArray[np.bool_] | None = None,
) -> _Measured:
    """What the score function returns, checked: per metric a float, or (N,) in 0..1, which is `must_be` at `where`."""
    found = score(predictions, targets)
    name = f"score function {getattr(score, '__module__', '?')}:{getattr(score, '__qualname__', score)}"
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"{name} returns {str(found)[:60]!r}; it must return a dictionary {{metric: value}}")
    measured: _Measured = {}
    for metric, value in found.items():
        if isinstance(value, int | float):
            measured[metric] = float(value)
            continue
        try:
            rates = np.asarray(plain(value), dtype=np.float64)
        except (UserError, TypeError, ValueError):
            rates = np.empty((0, 0))
        if rates.ndim == 0:  # a numpy or torch scalar; None for NaN becomes NaN again
            measured[metric] = float(rates)
            continue
        if rates.shape != (len(targets),) or not ((rates >= 0) & (rates <= 1)).all():
            raise UserError(
                f"{name} returns {str(value)[:60]!r} for {metric!r}; it must return one number in 0..1 for each of the "
                f"{len(targets)} examples, or one float over all of them"
            )
        if where is not None and must_be is not None and (rates[where] != must_be).any():
            given = "a failed example (prediction None)" if must_be == 0 else "a target in place of a prediction"
            raise UserError(f"{name} gives {metric!r} another value than {must_be:g} to {given}")
        measured[metric] = rates
    return measured


def _rounded(number: float) -> float | None:
    return round(float(number), 6) if np.isfinite(number) else None


def tally(rows: Sequence[Row]) -> dict[str, Any]:
    """What result.json's `data` says of the rows: n_expected, n_scored, n_failed and failures [{id, reason}].

    An example without a public answer counts as scored when it has a prediction; `n` of a score counts labelled ones.
    """
    failures = [{"id": row.id, "reason": row.failure or "no prediction"} for row in rows if row.prediction is None]
    return {
        "n_expected": len(rows),
        "n_scored": len(rows) - len(failures),
        "n_failed": len(failures),
        "failures": failures,
    }


# --- the score function, found again by name -------------------------------------------------------------------------


def reference(function: Callable[..., Any]) -> str:
    """The name under which re-scoring finds a score function again.

    Returns:
        `evalkit.metrics:accuracy`, or `/home/me/my_task.py:score` for a task in a file of its own.

    Raises:
        UserError: it is a lambda, a local function, or otherwise not to be found by name.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not isinstance(function, FunctionType) or not name.isidentifier():
        raise UserError(
            f"score function {name!r} could not be found again to re-score: define it with def at the top level of the "
            "task's file, or take one from evalkit.metrics"
        )
    module = function.__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    found = f"{module if _installed(module) or file is None else Path(file).resolve()}:{name}"
    try:
        resolve(found)
    except UserError as error:
        raise UserError(f"{error}; define the score function in the task's own file or take one of evalkit") from error
    return found


def resolve(reference: str) -> Score:
    """The score function that a result names.

    Only functions that evalkit, an installed plug-in or a task's file defines itself are taken: a result that came
    from elsewhere must not be able to name, and so to call, anything on this machine.

    Raises:
        UserError: there is no such function.
    """
    from evalkit import plugins

    where, _, name = reference.rpartition(":")
    if where.endswith(".py"):
        module = plugins.module_and_factory("task", where)[0]
    elif _installed(where):
        try:
            module = importlib.import_module(where)
        except ImportError as error:
            raise UserError(f"score function {reference!r}: {error}") from error
    else:
        raise UserError(f"score function {reference!r} is not part of evalkit, an installed plug-in or a task's file")
    function = getattr(module, name, None)
    if not isinstance(function, FunctionType) or function.__module__ != module.__name__:
        raise UserError(f"score function {reference!r}: {where} defines no function {name!r}")
    return function


def _installed(module: str) -> bool:
    """Whether a module belongs to evalkit or to a package that announces tasks to it."""
    from importlib.metadata import entry_points

    packages = {"evalkit", *(point.module.partition(".")[0] for point in entry_points(group="evalkit.tasks"))}
    return module.partition(".")[0] in packages


# --- writing ---------------------------------------------------------------------------------------------------------


def write(
    folder: Path,
    result: Mapping[str, Any],
    rows: Sequence[Row],
    config_yaml: str,
    extra: Callable[[Path], object] | None = None,
) -> Path:
    """Writes a run, whole or not at all, and returns its folder.

    The files are written and flushed to disk in a hidden folder beside `folder`, which is then renamed. Killed at any
    moment, or with a full disk, nothing can be seen under a run's name; a hidden folder may be left by a kill.

    Args:
        folder: where the run should be; where it is taken, `folder-2`, `folder-3`, ... is used. Nothing is overwritten.
        result: what result.json holds, but for the two hashes (of predictions and protocol), which are added here.
        rows: all test examples, in order.
        config_yaml: the resolved configuration.
        extra: called with the hidden folder before it is renamed, to add files such as submissions.

    Raises:
        ValueError: the result does not fit the schema or its rows.
        OSError: it could not be written, for example ENOSPC.
    """
    predictions = "".join(f"{row.json()}\n" for row in rows).encode()
    record = plain(result)
    record["task"]["protocol_sha256"] = digest(record["task"]["protocol"])
    record["data"]["predictions_sha256"] = hashlib.sha256(predictions).hexdigest()
    problems = _violations(record) or _contradictions(record, rows)
    if problems:
        raise ValueError("not a valid result: " + "; ".join(problems))

    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = folder.parent / f".{folder.name}.{secrets.token_hex(4)}"
    hidden.mkdir()
    try:
        (hidden / RESULT).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        (hidden / PREDICTIONS).write_bytes(predictions)
        (hidden / CONFIG).write_text(config_yaml, encoding="utf-8")
        if extra is not None:
            extra(hidden)
        for path in [*hidden.rglob("*"), hidden]:
            _flush(path)
        final = _rename(hidden, folder)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    _flush(final.parent)
    return final


def _rename(hidden: Path, folder: Path) -> Path:
    number = 1
    while True:
        free = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        number += 1
        if free.exists():
            continue
        try:
            return hidden.rename(free)
        except OSError:
            if not free.exists():  # else another process took the name in between
                raise


def _flush(path: Path) -> None:
    """To disk, so that a power cut after the rename does not leave a name without content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading, re-scoring, checking -----------------------------------------------------------------------------------


def load(run: Path) -> dict[str, Any]:
    """What a run's result.json holds; `run` is the folder or the file.

    Raises:
        UserError: there is none, or it is not JSON.
    """
    run = _folder(run)
    try:
        found = _parse((run / RESULT).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{run}: {_broken(RESULT, error)}") from error
    return found


def load_rows(run: Path) -> list[Row]:
    """A run's predictions, in order.

    Raises:
        UserError: there are none, or a line is not a row.
    """
    run = _folder(run)
    rows: list[Row] = []
    try:
        text = (run / PREDICTIONS).read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            raise ValueError("cut off in its last line")
        for line in text.split("\n")[:-1]:
            rows.append(Row.parse(line))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{run}: {_broken(f'{PREDICTIONS} line {len(rows) + 1}', error)}") from error
    return rows


def rescore(run: Path) -> dict[str, Any]:
    """The run's result with its scores recomputed from predictions.jsonl alone; the run itself is left as it is.

    Needs no encoder, no data set and no GPU; imports torch only where the task's score function does.

    Returns:
        What `load` gives, with new `scores` and one key more: `differences`, a line for each number that differs from
        the stored one. `table` prints both.

    Raises:
        UserError: the run cannot be read, or the score function cannot be found.
    """
    result = load(run)
    problems = _violations(result)
    if problems:
        raise UserError(f"{_folder(run)}: {RESULT}: {problems[0]}")
    new = scores(resolve(result["task"]["score"]), load_rows(run), result["provenance"]["seed"])
    return {**result, "scores": new, "differences": _differences(result["scores"], new)}


def validate(path: Path) -> list[str]:
    """What is wrong with a run, or with every run under a folder: one line each, empty when all is well.

    Checks result.json against the schema, the two hashes, the counts and ids of predictions.jsonl, and that the scores
    recomputed from it equal the stored ones.

    Raises:
        UserError: there is no run at or under `path`.
    """
    path = _folder(path)
    runs = []
    for folder, below, files in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith("."))  # hidden: runs that were not finished
        if RESULT in files or PREDICTIONS in files:
            runs.append(Path(folder))
    if not runs:
        raise UserError(f"no run at or under {str(path)!r}: a run is a folder with {RESULT} in it")
    return [problem for run in runs for problem in _problems(run)]


def _problems(run: Path) -> list[str]:
    try:
        result = load(run)
        rows = load_rows(run)
        sha256 = hashlib.sha256((run / PREDICTIONS).read_bytes()).hexdigest()
    except UserError as error:
        return [str(error)]
    found = _violations(result)
    if found:  # the checks below take the shape for granted
        return [f"{run}: {RESULT}: {problem}" for problem in found]
    if sha256 != result["data"]["predictions_sha256"]:
        found.append(f"{PREDICTIONS} was changed: its sha256 is not data.predictions_sha256")
    if digest(result["task"]["protocol"]) != result["task"]["protocol_sha256"]:
        found.append("task.protocol was changed: its sha256 is not task.protocol_sha256")
    found += _contradictions(result, rows)
    try:
        found += rescore(run)["differences"]
    except Exception as error:  # whatever the task's own code raises
        found.append(f"cannot be re-scored: {_line(error)}")
    return [f"{run}: {problem}" for problem in found]


def _contradictions(result: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """Where a result that fits the schema contradicts its rows, or itself."""
    found = []
    seen = Counter(row.id for row in rows)
    found += [f"{PREDICTIONS} has {times} rows with id {name!r}" for name, times in seen.items() if times > 1]
    for key, value in tally(rows).items():
        stored = result["data"][key]
        if stored != value:
            shown = f"is {stored}, but {value}" if key != "failures" else "differs from what is given"
            found.append(f"data.{key} {shown} in {PREDICTIONS}")
    status, data = result["status"], result["data"]
    if status == "complete" and data["n_failed"]:
        found.append(f"status is complete, but data.n_failed is {data['n_failed']}")
    if status == "failed" and data["n_scored"]:
        found.append(f"status is failed, but data.n_scored is {data['n_scored']}")
    return found


def _differences(stored: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [[entry["metric"] for entry in entries] for entries in (stored, new)]
    if names[0] != names[1]:
        return [f"scores: stored {', '.join(names[0]) or 'none'}; recomputed {', '.join(names[1]) or 'none'}"]
    return [
        f"{old['metric']} {key}: stored {old[key]}, recomputed {entry[key]}"
        for old, entry in zip(stored, new, strict=True)
        for key in entry
        if old[key] != entry[key]
    ]


def _folder(run: Path) -> Path:
    return run.parent if run.name == RESULT else run


def _parse(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")  # Python alone would take NaN and Infinity

    return json.loads(text, parse_constant=refuse)


def _broken(what: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no {what.split()[0]}"
    if isinstance(error, OSError):
        return f"{what} cannot be read: {error.strerror}"
    if isinstance(error, json.JSONDecodeError):
        return f"{what} is not JSON, perhaps cut off: {error}"
    return f"{what}: {_line(error)}"


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError | ValueError) else f"{type(error).__name__}: {text}"


def _violations(value: Any, part: str = "#") -> list[str]:
    """Where a value does not fit the schema, or a part of it: one line each, with the path of the key."""
    found = []
    for error in sorted(_validator(part).iter_errors(value), key=lambda error: [str(key) for key in error.path]):
        text = error.message if len(error.message) <= 160 else f"{error.message[:160]}..."
        where = ".".join(str(key) for key in error.path)
        found.append(f"{where}: {text}" if where else text)
    return found


@cache
def _validator(part: str) -> Any:
    from jsonschema import Draft202012Validator

    schema = json.loads((Path(__file__).parent / "result.schema.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema if part == "#" else {"$ref": part, "$defs": schema["$defs"]})


# --- the table at the end of a run -----------------------------------------------------------------------------------


def table(result: Mapping[str, Any]) -> str:
    """The result as text for a terminal or a pipe: what was run, its scores, what to compare them with, what failed."""
    import io

    from rich.console import Console
    from rich.table import Table

    task, encoder, adapter, data = (result[key] for key in ("task", "encoder", "adapter", "data"))
    failed, expected = data["n_failed"], data["n_expected"]
    status = result["status"] + (f": {failed:,} of {expected:,} examples failed, counted as wrong" if failed else "")
    head = Table.grid(padding=(0, 2))
    head.add_row("task", f"{task['name']}, {task['split']}, version {task['version']}")
    head.add_row("encoder", f"{encoder['name']}, {_count(encoder['parameters'])} parameters")
    head.add_row("adapter", f"{adapter['name']}, {_count(adapter['trainable_parameters'])} trainable")
    head.add_row("status", status)

    body = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    body.add_column("", no_wrap=True)
    for title in ("score", "95 % interval", "examples", "videos"):
        body.add_column(title, justify="right", no_wrap=True)
    if failed:
        body.add_column("bounds", justify="right", no_wrap=True)
    for entry in result["scores"]:
        body.add_row(
            entry["metric"],
            _decimal(entry["value"]),
            _span(entry["ci95"]),
            f"{entry['n']:,}",
            f"{entry['n_clusters']:,}",
            *([_span(entry["bounds"])] if failed else []),
        )
    if result["scores"]:
        body.add_row()
        body.add_row("chance", _decimal(result["chance"]))
        headline = result["scores"][0]["metric"]
        for control in result["controls"]:
            metric = "" if control["metric"] == headline else f" {control['metric']}"
            body.add_row(f"{control['name']} (control){metric}", _decimal(control["value"]))
        for row, value in task.get("published", {}).items():
            body.add_row(f"{row} (published)", _decimal(value))

    buffer = io.StringIO()
    # Wide enough that nothing is cut: a terminal folds a long name, a pipe keeps it.
    console = Console(file=buffer, width=1000, color_system=None, force_terminal=False, markup=False, highlight=False)
    console.print(head)
    console.print()
    console.print(body if result["scores"] else "no score: no test example has a public answer")
    lines = [line.rstrip() for line in buffer.getvalue().splitlines()]
    lines += _grouped(data["failures"])
    if result.get("differences"):
        lines += ["", "recomputed scores differ from the stored ones:", *(f"  {x}" for x in result["differences"])]
    # A file name may hold bytes that no encoding has; printing it must not fail.
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def _grouped(failures: Sequence[Mapping[str, str]], most: int = 5) -> list[str]:
    """The reasons of failures, the most frequent first, each with the first ids that have it."""
    groups: dict[str, list[str]] = {}
    for failure in failures:
        groups.setdefault(failure["reason"], []).append(failure["id"])
    if not groups:
        return []
    ranked = sorted(groups.items(), key=lambda group: -len(group[1]))
    width = len(f"{len(ranked[0][1]):,}")
    lines = ["", "failed (bounds: with all of them wrong, with all of them right)"]
    for reason, ids in ranked[:most]:
        lines.append(f"  {len(ids):{width},}  {reason}  ({_first(ids)})")
    left = sum(len(ids) for _, ids in ranked[most:])
    return [*lines, f"  {left:{width},}  for {len(ranked) - most} other reasons"] if left else lines


def _first(ids: Iterable[str], most: int = 3) -> str:
    names = list(ids)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _count(number: int | None) -> str:
    if number is None:
        return "unknown"
    return f"{number:,}" if number < 100_000 else f"{number / 1e6:,.1f} M"


def _decimal(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f}"


def _span(numbers: Sequence[float | None]) -> str:
    return "-" if None in numbers else " to ".join(_decimal(number) for number in numbers)
