"""The leaderboard as one self-contained html file: sortable, filterable, with plots and every run's predictions.

page.html, page.css and the scripts are put together here. The table is JSON in the page. The samples of each task and
the predictions of each run are compressed beside it, each once; the browser unpacks them when a run is opened. Equal
results give equal bytes: the page holds no time of its own.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import yaml

from evalkit import plugins
from evalkit.api import Task
from evalkit.config import keys
from evalkit.config.values import convert
from evalkit.datasets import published
from evalkit.results import run_folder
from evalkit.runtime import bounded
from evalkit.runtime.progress import track

from .columns import MINI, Cell, Column, build_columns
from .comparison import compare_published, other_sizes, sections
from .other_tools import Score
from .regions import kind_of, shorten
from .runs import Run
from .thumbnails import Picture, add_pictures, to_json

SCRIPTS = ("page.js", "page_regions.js", "page_run.js", "page_start.js")  # one script element, in this order
MAX_PAGE_BYTES = 20_000_000  # pictures are added up to this size
MAX_TEXT_LENGTH = 600  # characters of a prediction or target
TOP_CLASSES = 5  # shown of a prediction that scores all classes


def render_page(
    runs: Sequence[Run], refused: Sequence[str] = (), others: Sequence[Score] = (), videos: Path | None = None
) -> str:
    """The leaderboard as html.

    Args:
        runs: those that validate.
        refused: a line for each run that does not.
        others: scores of other tools.
        videos: a folder with the samples' videos, found by name, for a thumbnail of the middle frame of each, or the
            key frames that boxes are drawn on, up to `MAX_PAGE_BYTES`; None for none.
    """
    columns = build_columns(runs)
    cells: list[dict[str, Any]] = []
    samples: dict[str, dict[str, Any]] = {}  # of each task, by a name made of their hash
    pictures: dict[str, list[Picture]] = {}  # of each task
    packed: dict[str, str] = {}
    in_order = [(index, column, cell) for index, column in enumerate(columns) for cell in column.cells]
    for number, (index, column, cell) in enumerate(track(in_order, "page", len(in_order))):
        rows = _prediction_rows(cell.run)
        task = _task(cell.run)
        task_samples = _samples(task, rows, kind_of(cell.run.result))
        name = f"samples-{hashlib.sha256(json.dumps(task_samples).encode()).hexdigest()[:16]}"
        samples[name] = task_samples
        if task is not None or name not in pictures:
            pictures[name] = _pictures(task, rows, kind_of(cell.run.result))
        packed[f"run-{number}"] = _pack(_predictions(cell.run, rows))
        cells.append({"column": index, "samples": name, **_cell(column, cell)})
    if videos is not None:
        used = sum(map(len, packed.values())) + sum(len(_pack(task_samples)) for task_samples in samples.values())
        packed |= add_pictures(samples, pictures, videos, MAX_PAGE_BYTES - used)
    packed |= {name: _pack(task_samples) for name, task_samples in samples.items()}
    board = {
        "columns": [_column(column) for column in columns],
        "cells": cells,
        "sections": _sections(columns),
        "refused": refused,
        "others": [
            [score.encoder, score.task, score.split, score.metric, score.value, score.source] for score in others
        ],
    }
    scripts = (f'<script type="text/plain" id="{name}">{text}</script>' for name, text in packed.items())
    before, _, after = template().partition("PACKED")
    return "".join([before.replace("BOARD", to_json(board)), "\n".join(scripts), after])


def template() -> str:
    """The page without data: page.html with the style sheet and the scripts in it; BOARD and PACKED stand for data."""
    folder = Path(__file__).parent
    css, *scripts = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", *SCRIPTS))
    html = (folder / "page.html").read_text(encoding="utf-8")
    return html.replace("PAGE_CSS", css).replace("PAGE_JS", "".join(scripts))


# --- the table, drawn when the page is opened ------------------------------------------------------------------------


def _sections(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The sections of the board; first one of all columns but miniatures, if there are several sections of these."""
    titled = [(title.partition(":")[0], members) for title, members in sections(columns)]
    if len(titled) - any(members[0].task.endswith(MINI) for _, members in titled) > 1:
        titled.insert(0, ("All but miniatures", [column for column in columns if not column.task.endswith(MINI)]))
    index = {id(column): i for i, column in enumerate(columns)}
    return [{"title": title, "columns": [index[id(column)] for column in members]} for title, members in titled]


def _column(column: Column) -> dict[str, Any]:
    key = (column.task, column.metric, column.adaptation)
    values = published.rows(*key, column.split, column.protocol)
    numbers: dict[str, published.Number] = {}
    for n in published.published_numbers():
        if (n.task, n.metric, n.adaptation) == key and values.get(n.row) == n.value:
            numbers.setdefault(n.row, n)
    return {
        "task": column.task,
        "split": column.split,
        "protocol": column.protocol,
        "how": column.adaptation,
        "metric": column.metric,
        "marks": column.marks,
        "printed": [_number(number) for number in numbers.values()],
    }


def _number(number: published.Number) -> dict[str, Any]:
    return {key: getattr(number, key) for key in ("row", "source", "table", "value", "note")}


def _cell(column: Column, cell: Cell) -> dict[str, Any]:
    record, comparison = cell.run.result, compare_published(column, cell)
    data, cost = record["data"], record["cost"]
    unknown = {"value": None, "ci95": [None, None], "bounds": [None, None], "n": data["n_expected"], "n_clusters": None}
    score = cell.score or unknown
    forwards = cost["encoder_forwards"]
    return {
        "name": cell.run.name,
        "encoder": cell.encoder,
        "mark": cell.mark,
        "seen": cell.seen,
        "ranks": cell.ranks,
        "times": cell.seeds.total,
        "seeds": len(cell.seeds.runs),
        "pooled": cell.seeds.pooled,
        "sd": cell.seeds.sd,
        **{key: score[key] for key in unknown},
        "sizes": other_sizes(cell.seeds.worst.result),
        "failed": cell.seeds.worst.result["data"]["n_failed"],
        "chance": record["chance"],
        "device": record["provenance"]["device"],
        "cost": {
            "clip_s": cost["encode_s"] / forwards if forwards else None,
            "encode_s": None if cost["cache_hits"] else cost["encode_s"],  # partly paid for by an earlier run
            "parameters": record["encoder"]["parameters"],
            "flops": record["adapter"].get("trainable_flops"),
            "memory": cost["peak_memory_bytes"],
            "saved": cost.get("training", {}).get("saved_bytes"),
        },
        "beside": comparison
        and {
            **_number(comparison.published),
            "difference": comparison.difference,
            "verdict": comparison.verdict,
        },
    }


# --- samples and predictions, drawn when a run is opened --------------------------------------------------------------


def _prediction_rows(run: Run) -> list[dict[str, Any]]:
    """The rows of predictions.jsonl, not validated again: that is ten times slower, and `collect` did it."""
    text = bounded.read_bytes(run.folder / run_folder.PREDICTIONS).decode()
    lines = ",".join(text.split("\n")[:-1])
    rows: list[dict[str, Any]] = json.loads(f"[{lines}]")  # twice as fast as one call per line
    return rows


def _samples(task: Task | None, rows: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """The samples as all runs on them share them; questions, options and class names are added from the task.

    `regions` is the kind of what is drawn, where targets are segments or boxes; `seconds` the lengths of their videos.
    """
    samples: dict[str, Any] = {
        "ids": [row["id"] for row in rows],
        "videos": [row["video"] for row in rows],
        "kinds": [row["kind"] for row in rows],
        "targets": [_regions_or_short(row["target"], kind, False) for row in rows],
    }
    if kind:
        samples["regions"] = kind
    if task is not None:
        if task.classes:
            samples["classes"] = task.classes
        if any(example.text for example in task.test):
            samples["texts"] = [example.text[:MAX_TEXT_LENGTH] for example in task.test]
        if any(example.choices for example in task.test):
            samples["options"] = [[option[:MAX_TEXT_LENGTH] for option in example.choices] for example in task.test]
        if kind == "segments":
            samples["seconds"] = [example.span and round(example.span[1], 2) for example in task.test]
    return samples


def _pictures(task: Task | None, rows: Sequence[Mapping[str, Any]], kind: str) -> list[Picture]:
    """What the samples' pictures show: of boxes the key frames, where the task's files tell their seconds."""
    if kind == "boxes":
        pairs = zip(rows, task.test, strict=True) if task else ()
        return [Picture(row["id"], row["video"], e.video, e.span and fmean(e.span)) for row, e in pairs]
    files = [example.video for example in task.test] if task else [None] * len(rows)
    return [Picture(row["video"], row["video"], file) for row, file in zip(rows, files, strict=True)]


def _predictions(run: Run, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A run's predictions, record and failures; `values`, 0..1 per sample, is None for a corpus-level headline."""
    record, values = run.result, None
    headline = run.headline.values if record["scores"] else None
    if isinstance(headline, np.ndarray):
        rest = iter(headline.round(3).tolist())
        values = [None if row["target"] is None else f"{next(rest):g}" for row in rows]
    reasons = {failure["id"]: failure["reason"] for failure in record["data"]["failures"]}
    return {
        "result": {**record, "data": {**record["data"], "failures": []}},  # they are under `failures`
        "values": values,
        "predictions": [_regions_or_short(row["prediction"], kind_of(record), True) for row in rows],
        "failures": {i: reasons[row["id"]] for i, row in enumerate(rows) if row["id"] in reasons},
    }


def _regions_or_short(value: Any, kind: str, scored: bool) -> Any:
    return shorten(value, kind, scored) if kind and isinstance(value, list) else _short(value)


def _short(value: Any) -> Any:
    """A target or prediction for the page: indices as they are, class scores as the top five, anything else as text."""
    if isinstance(value, int) or (isinstance(value, list) and all(isinstance(item, int) for item in value)):
        return value
    if isinstance(value, list) and len(value) > 2 and all(isinstance(item, float) for item in value):
        top = sorted(range(len(value)), key=lambda i: -value[i])[:TOP_CLASSES]
        return {"best": [[i, f"{value[i]:.2f}"] for i in top]}
    return _text(value)


def _text(value: Any) -> str:
    """A value as text; several texts are one per line."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return (", " if all(isinstance(item, float) for item in value) else "\n").join(map(_text, value))
    text = "" if value is None else str(value)
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]}…"


def _task(run: Run) -> Task | None:
    """The run's task, rebuilt from its configuration; None unless its files are here and have the run's fingerprint.

    Only installed tasks are built: a result from elsewhere must not name code to run.
    """
    name, mini, _ = run.result["task"]["name"].partition(MINI)
    if name not in plugins.names("task"):
        return None
    try:
        text = bounded.read_bytes(run.folder / run_folder.CONFIG).decode()
        bounded.check_yaml(text)
        config = yaml.safe_load(text)
        data = {key: value for key, value in config.items() if key.startswith("data.")}
        task, fingerprint = _build_task(name, bool(mini), json.dumps(data))
    except Exception:  # a task's own code may raise anything if its files are missing
        return None
    return task if fingerprint == run.result["data"]["fingerprint"] else None


@functools.cache
def _build_task(name: str, mini: bool, data: str) -> tuple[Task, str]:
    known = keys.known_keys("check", name)
    settings = {known[key].parameter: convert(value, known[key].type) for key, value in json.loads(data).items()}
    task = plugins.factory("task", name)(**settings, **({"mini": True} if mini else {}))
    return task, run_folder.fingerprint(task.test)


# --- as text ---------------------------------------------------------------------------------------------------------


def _pack(value: Any) -> str:
    """Compressed JSON in base64, for the browser to unpack."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode())).decode()
