"""lm-evaluation-harness: <model>/results_<time>.json and samples_<task>_<time>.jsonl.

Rates are fractions, as there. A stderr is the half width of our 95 % interval, which draws whole videos, over 1.96; the
interval itself is in configs.<task>.metadata.evalkit, with all else that lm-eval has no word for.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any

from evalkit.results.run_folder import load_rows
from evalkit.results.schema import digest
from evalkit.results.scores import lower_is_better

from ..runs import Run
from . import as_json, as_lines, defined, example_scores, fraction, model_id, path_part, summary, task_name, timestamp

NAMES = {"accuracy": "acc", "top1": "acc"}


def files(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """Two files per run."""
    for run in runs:
        task = task_name(run)
        time = timestamp(run).astimezone(UTC).replace(tzinfo=None).isoformat().replace(":", "-")
        samples = list(_samples(run))
        folder = "__".join(model_id(run))
        yield f"{folder}/results_{time}.json", as_json(_results(run, samples))
        yield f"{folder}/samples_{path_part(task)}_{time}.jsonl", as_lines(samples)


def _results(run: Run, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    record, task, encoder = run.result, run.result["task"], run.result["encoder"]
    name, data, provenance = task_name(run), record["data"], record["provenance"]
    scores = defined(run)
    metrics: dict[str, Any] = {"name": name, "alias": name, "sample_len": data["n_expected"]}
    for entry in scores:
        metric = _name(entry["metric"])
        low, high = entry["ci95"]
        stderr = None if low is None or high is None else (high - low) / (2 * 1.959964)
        metrics[f"{metric},none"] = fraction(entry["metric"], entry["value"])
        metrics[f"{metric}_stderr,none"] = "N/A" if stderr is None else fraction(entry["metric"], stderr)
    return {
        "results": {name: metrics},
        "group_subtasks": {name: []},
        "configs": {
            name: {
                "task": name,
                "test_split": task["split"],
                "metadata": {"version": task["version"], "evalkit": summary(run)},
            }
        },
        "versions": {name: task["version"]},
        "n-shot": {name: task["protocol"].get("shots", 0)},
        "higher_is_better": {name: {_name(score["metric"]): not lower_is_better(score["metric"]) for score in scores}},
        "n-samples": {
            name: {"original": data.get("published_size") or data["n_expected"], "effective": data["n_expected"]}
        },
        "config": {
            "model": "evalkit",
            "model_args": f"pretrained={encoder['ckpt']}",
            "model_num_parameters": encoder["parameters"],
            "model_sha": encoder["sha256"],
            "device": provenance["device"],
            "random_seed": provenance["seed"],
        },
        "git_hash": provenance["git_commit"],
        "date": timestamp(run, "started").timestamp(),
        "task_hashes": {name: _sha("".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples))},
        "model_source": "evalkit",
        "model_name": "/".join(model_id(run)),
        "model_name_sanitized": "__".join(model_id(run)),
        "total_evaluation_time_seconds": str(record["cost"]["wall_s"]),
    }


def _samples(run: Run) -> Iterator[dict[str, Any]]:
    """A line per example; one without a public answer has no metric."""
    rows = load_rows(run.folder)
    scores = example_scores(run, rows)
    labeled = itertools.count()
    for i, row in enumerate(rows):
        text = "" if row.prediction is None else str(row.prediction)
        place = None if row.target is None else next(labeled)
        metrics = {} if place is None else {_name(metric): float(values[place]) for metric, values in scores.items()}
        doc = {"id": row.id, "video": row.video, "kind": row.kind, "failure": row.failure, "detail": row.detail}
        yield {
            "doc_id": i,
            "doc": doc,
            "target": str(row.target),
            "arguments": {},
            "resps": [[text]],
            "filtered_resps": [text],
            "filter": "none",
            "metrics": list(metrics),
            "doc_hash": digest({"id": row.id, "video": row.video}),
            "prompt_hash": _sha(""),  # predictions.jsonl holds no question
            "target_hash": _sha(str(row.target)),
            **metrics,
        }


def _name(metric: str) -> str:
    first, slash, kind = metric.partition("/")
    return NAMES.get(first, first) + slash + kind


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
