"""The leaderboard as one self-contained html file: sortable, filterable, with plots and every run's predictions.

page.html, page.css and the scripts are put together here. The table is JSON in the page. The samples of each task and
the predictions of each run are compressed beside it, each once; the browser unpacks them when a run is opened. Equal
results give equal bytes: the page holds no time of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.datasets import published
from evalkit.results.table import shared_in_words
from evalkit.runtime.progress import track

from ..columns import MINI, Cell, Column, build_columns
from ..comparison import compare_published, other_sizes, sections
from ..other_tools import Score
from ..runs import Run
from .regions import kind_of
from .samples import pictures_of, prediction_rows, predictions_of, samples_of, task_of
from .thumbnails import Picture, add_pictures, to_json

# One script element, in this order.
SCRIPTS = (
    "base.js",
    "plot.js",
    "board.js",
    "regions.js",
    "answers.js",
    "classes.js",
    "samples.js",
    "run.js",
    "start.js",
)
MAX_PAGE_BYTES = 20_000_000  # pictures are added up to this size


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
    samples: dict[str, dict[str, Any]] = {}  # of each task, by a name made of their hash
    pictures: dict[str, list[Picture]] = {}  # of each task
    packed: dict[str, str] = {}
    in_order = [(cell, run) for column in columns for cell in column.cells for run in _newest_first(cell)]
    shown: dict[int, list[dict[str, Any]]] = {}  # the runs of each cell, the newest first
    for number, (cell, run) in enumerate(track(in_order, "page", len(in_order))):
        rows, task = prediction_rows(run), task_of(run)
        task_samples = samples_of(task, rows, run.result)
        name = f"samples-{hashlib.sha256(json.dumps(task_samples).encode()).hexdigest()[:16]}"
        samples[name] = task_samples
        if task is not None or name not in pictures:
            pictures[name] = pictures_of(task, rows, kind_of(run.result))
        packed[f"run-{number}"] = _pack(predictions_of(run, rows, task))
        shown.setdefault(id(cell), []).append({"id": f"run-{number}", "samples": name, **_run(run)})
    cells = [
        {"column": index, "runs": shown[id(cell)], **_cell(column, cell)}
        for index, column in enumerate(columns)
        for cell in column.cells
    ]
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
    scripts = ((folder / "scripts" / name).read_text(encoding="utf-8") for name in SCRIPTS)
    css = (folder / "page.css").read_text(encoding="utf-8")
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


def _newest_first(cell: Cell) -> list[Run]:
    """The runs of a cell: the one that finished last, then the others by fold and seed."""
    return [cell.run, *(run for run in cell.seeds.runs if run is not cell.run)]


def _run(run: Run) -> dict[str, Any]:
    """The differences between the runs of a cell, and their scores."""
    record = run.result
    value = record["scores"][0]["value"] if record["scores"] else None
    place = {"seed": record["provenance"]["seed"], "fold": record["task"].get("fold")}
    return {"name": run.name, "value": value, **place}


def _cell(column: Column, cell: Cell) -> dict[str, Any]:
    record, comparison = cell.run.result, compare_published(column, cell)
    data, cost = record["data"], record["cost"]
    unknown = {"value": None, "ci95": [None, None], "bounds": [None, None], "n": data["n_expected"], "n_clusters": None}
    score = cell.score or unknown
    forwards = cost["encoder_forwards"]
    return {
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
        "shared": shared_in_words(cell.seeds.worst.result["data"]),
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


# --- as text ---------------------------------------------------------------------------------------------------------


def _pack(value: Any) -> str:
    """Compressed JSON in base64, for the browser to unpack."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode())).decode()
