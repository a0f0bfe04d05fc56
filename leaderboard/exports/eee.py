"""Every Eval Ever, schema 0.3.0: data/<task>/<org>/<model>/<uuid>.json and <uuid>_samples.jsonl.

Rates are in percent, as metric_unit says. The name of a file is a hash of the run, so that it is the same each time.
Samples are of the headline, where that is a mean over examples.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalkit.results.run_folder import load_rows
from evalkit.results.schema import digest
from evalkit.results.scores import is_rank, lower_is_better
from evalkit.results.table import encoder_name

from ..runs import Run
from . import as_json, as_lines, defined, example_scores, model_id, path_part, task_name, timestamp, with_headline

VERSION = "0.3.0"


def files(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """A file per run, and one with its samples."""
    for run in with_headline(runs):
        record, (org, name) = run.result, model_id(run)
        task, time = record["task"]["name"], str(int(timestamp(run).timestamp()))
        file = f"data/{path_part(task)}/{org}/{name}/{uuid.UUID(bytes=bytes.fromhex(digest(record))[:16], version=4)}"
        log = {
            "schema_version": VERSION,
            "evaluation_id": f"{task}/{org}/{name}/{time}",
            "evaluation_timestamp": record["provenance"]["started"],
            "retrieved_timestamp": time,
            "source_metadata": {
                "source_name": "evalkit",
                "source_type": "evaluation_run",
                "source_organization_name": "unknown",
                "evaluator_relationship": "other",
            },
            "eval_library": {
                "name": "evalkit",
                "version": record["provenance"]["packages"].get("evalkit", "unknown"),
                "additional_details": _texts(git_commit=record["provenance"]["git_commit"]),
            },
            "model_info": _model(run),
            "evaluation_results": [_result(run, entry) for entry in defined(run)],
        }
        samples = as_lines(_samples(run, log))
        if samples:
            log["detailed_evaluation_results"] = {
                "format": "jsonl",
                "file_path": f"{file}_samples.jsonl",
                "hash_algorithm": "sha256",
                "checksum": hashlib.sha256(samples.encode()).hexdigest(),
                "total_rows": samples.count("\n"),
            }
            yield f"{file}_samples.jsonl", samples
        yield f"{file}.json", as_json(log)


def _model(run: Run) -> dict[str, Any]:
    encoder, adapter, (org, name) = run.result["encoder"], run.result["adapter"], model_id(run)
    return {
        "name": encoder_name(run.result),
        "id": f"{org}/{name}",
        "developer": org,
        "additional_details": _texts(
            deployment_type="self_deployed",
            model_availability="unknown",
            ckpt=encoder["ckpt"],
            weights_sha256=encoder["sha256"],
            parameters=encoder["parameters"],
            adapter=adapter["name"],
            adapter_settings=adapter["settings"],
            trainable_parameters=adapter["trainable_parameters"],
        ),
    }


def _result(run: Run, entry: Mapping[str, Any]) -> dict[str, Any]:
    record, task, metric, (low, high) = run.result, run.result["task"], entry["metric"], entry["ci95"]
    uncertainty: dict[str, Any] = {"num_samples": entry["n"]}
    if low is not None and high is not None:
        method = "bootstrap, clustered by video"
        interval = {"lower": low, "upper": high, "confidence_level": 0.95, "method": method}
        uncertainty["confidence_interval"] = interval
    details = _texts(n_videos=entry["n_clusters"], failed_wrong=entry["bounds"][0], failed_right=entry["bounds"][1])
    if entry is record["scores"][0]:
        details |= _texts(chance=record["chance"], failed=record["data"]["n_failed"])
        details |= {f"control {c['name']} {c['metric']}": str(c["value"]) for c in record["controls"]}
    return {
        "evaluation_result_id": f"{task['name']}/{metric}",
        "evaluation_name": task_name(run),
        "source_data": {
            "dataset_name": task["name"],
            "source_type": "other",
            "additional_details": _texts(
                split=task["split"], version=task["version"], fingerprint=record["data"]["fingerprint"]
            ),
        },
        "evaluation_timestamp": record["provenance"]["finished"],
        "metric_config": {
            "metric_id": metric,
            "metric_name": metric,
            "metric_unit": "rank" if is_rank(metric) else "percent",
            "lower_is_better": lower_is_better(metric),
            "score_type": "continuous",
            "min_score": 1 if is_rank(metric) else 0,
            "max_score": "Infinity" if is_rank(metric) or metric.startswith("CIDEr") else 100,
        },
        "score_details": {"score": entry["value"], "details": details, "uncertainty": uncertainty},
        "generation_config": {
            "generation_args": {"execution_command": record["provenance"]["command"]},
            "additional_details": _texts(protocol_sha256=task["protocol_sha256"], protocol=task["protocol"]),
        },
    }


def _samples(run: Run, log: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A line per labeled example; none if the headline is no mean over them."""
    headline = run.result["scores"][0]["metric"]
    rows = load_rows(run.folder)
    values = example_scores(run, rows).get(headline)
    labeled = [row for row in rows if row.target is not None]
    for row, value in zip(labeled, values, strict=True) if values is not None else ():
        text = (
            []
            if row.prediction is None
            else [row.prediction if isinstance(row.prediction, str) else json.dumps(row.prediction)]
        )
        targets = row.target if isinstance(row.target, list) else [row.target]
        yield {
            "schema_version": VERSION,
            "evaluation_id": log["evaluation_id"],
            "model_id": log["model_info"]["id"],
            "evaluation_name": task_name(run),
            "evaluation_result_id": log["evaluation_results"][0]["evaluation_result_id"],
            "sample_id": row.id,
            "interaction_type": "single_turn",
            "input": {"raw": row.video, "reference": [str(target) for target in targets]},
            "output": {"raw": text},
            "answer_attribution": [],
            "evaluation": {"score": float(value), "is_correct": bool(value == 1)},
            **({"error": row.failure} if row.failure else {}),
            **({"metadata": {"kind": row.kind}} if row.kind else {}),
        }


def _texts(**values: Any) -> dict[str, str]:
    """What is known, as text, which is all that the schema takes here."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
        if value is not None
    }
