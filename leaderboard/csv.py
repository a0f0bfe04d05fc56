"""The leaderboard as a csv file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .columns import Cell, Column, build_columns
from .comparison import compare_published
from .runs import Run

# What a spreadsheet takes for a formula where a cell begins with it, in full width too, and runs.
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def render_csv(runs: Sequence[Run]) -> str:
    """The leaderboard as csv: a row per cell, numbers in full precision."""
    return as_csv([_row(column, cell) for column in build_columns(runs) for cell in column.cells]) or "encoder\n"


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as csv, below a line of these; nothing without rows.

    Texts come from whoever made the results: an apostrophe before those that a spreadsheet would run makes them text.
    """
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows(map(_plain, row.values()) for row in rows)
    return text.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, str):  # csv does not quote a carriage return, which ends a line all the same
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _row(column: Column, cell: Cell) -> dict[str, Any]:
    record, comparison = cell.run.result, compare_published(column, cell)
    task, data, provenance, worst = record["task"], record["data"], record["provenance"], cell.seeds.worst.result
    score = cell.score or {"value": None, "ci95": [None, None], "bounds": [None, None], "n": None, "n_clusters": None}
    return {
        "encoder": cell.encoder,
        "encoder_sha256": record["encoder"]["sha256"],
        "task": column.task,
        "split": column.split,
        "adaptation": column.adaptation,
        "adapter": record["adapter"]["name"],
        "protocol": column.protocol,
        "protocol_sha256": task["protocol_sha256"],
        "fingerprint": data["fingerprint"],
        "version": task["version"],
        "mark": cell.mark,
        "differs": column.marks.get(cell.mark),
        "trained_on": cell.seen,
        "in_train": worst["data"].get("shared_videos", {}).get("videos", 0),
        "metric": column.metric,
        "value": score["value"],
        "low": score["ci95"][0],
        "high": score["ci95"][1],
        "at_most": score["bounds"][1],
        "n": score["n"],
        "videos": score["n_clusters"],
        "status": worst["status"],
        "failed": worst["data"]["n_failed"],
        "chance": record["chance"],
        "best_rank": cell.ranks and cell.ranks[0],
        "worst_rank": cell.ranks and cell.ranks[1],
        "printed": comparison and comparison.published.value,
        "printed_of": comparison and comparison.published.row,
        "printed_in": comparison and f"{comparison.published.source}, table {comparison.published.table}",
        "difference": comparison and round(comparison.difference, 6),
        "verdict": comparison and comparison.verdict,
        "runs": cell.seeds.total,
        "folds": " ".join(map(str, cell.seeds.folds)),
        "seeds": " ".join(map(str, cell.seeds.numbers)),
        "sd": None if cell.seeds.sd is None else round(cell.seeds.sd, 6),
        "finished": provenance["finished"],
        "commit": provenance["git_commit"],
        "dirty": provenance["dirty"],
        "command": provenance["command"],
        "run": cell.run.name,
    }
