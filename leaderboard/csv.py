"""The leaderboard as a csv file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from .columns import Cell, Column, build_columns
from .comparison import compare_published
from .runs import Run


def render_csv(runs: Sequence[Run]) -> str:
    """The leaderboard as csv: a row per cell, numbers in full precision."""
    rows = [_row(column, cell) for column in build_columns(runs) for cell in column.cells]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["encoder"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


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
        "seeds": " ".join(map(str, cell.seeds.numbers)),
        "sd": None if cell.seeds.sd is None else round(cell.seeds.sd, 6),
        "finished": provenance["finished"],
        "commit": provenance["git_commit"],
        "dirty": provenance["dirty"],
        "command": provenance["command"],
        "run": cell.run.name,
    }
