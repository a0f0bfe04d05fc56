"""One flat table, results.csv: a row per run and score, with torchgeo-bench's columns where both have them.

Rates are fractions, as there; ranks are as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from evalkit.results.table import encoder_name

from ..csv import as_csv
from ..runs import Run
from . import defined, fraction, model_id, task_name

FILE = "results.csv"


def files(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """The one file; the newest run comes first."""
    rows = [row for run in runs for row in _rows(run)]
    if rows:
        yield FILE, as_csv(rows)


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    record, task, encoder = run.result, run.result["task"], run.result["encoder"]
    for entry in defined(run):
        metric = entry["metric"]
        (low, high), (worst, best) = entry["ci95"], entry["bounds"]
        yield {
            "dataset": task_name(run),
            "method": record["adapter"]["name"],
            "metric_name": metric,
            "metric_value": fraction(metric, entry["value"]),
            "ci_lower": fraction(metric, low),
            "ci_upper": fraction(metric, high),
            "n_test": entry["n"],
            "seed": record["provenance"]["seed"],
            "model": "/".join(model_id(run)),
            "name": encoder_name(run.result),
            "image_size": encoder["clip"].get("size"),
            # Ours.
            "frames": encoder["clip"].get("frames"),
            "split": task["split"],
            "n_videos": entry["n_clusters"],
            "n_failed": record["data"]["n_failed"],
            "failed_wrong": fraction(metric, worst),
            "failed_right": fraction(metric, best),
            "chance": fraction(metric, record["chance"]) if entry is record["scores"][0] else None,
            "status": record["status"],
            "task_version": task["version"],
            "protocol_sha256": task["protocol_sha256"],
            "fingerprint": record["data"]["fingerprint"],
            "weights_sha256": encoder["sha256"],
            "parameters": encoder["parameters"],
            "trainable_parameters": record["adapter"]["trainable_parameters"],
            "encode_s": record["cost"]["encode_s"],
            "wall_s": record["cost"]["wall_s"],
            "git_commit": record["provenance"]["git_commit"],
            "finished": record["provenance"]["finished"],
            "command": record["provenance"]["command"],
        }
