"""Hugging Face hub: <org__model>/.eval_results/<task>.yaml, and a model-index for the model's card.

Numbers are as evalkit gives them, rates in percent. An entry of .eval_results is on a benchmark's board where its
`dataset.id` is the benchmark's on the hub; here it is evalkit's name of the task, to be replaced. It holds the
headline; all scores are in model-index.yaml, which goes into the front matter of the model's README.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import yaml

from evalkit.errors import counted

from ..runs import Run
from . import defined, model_id, path_part, task_name, task_names, timestamp, with_headline

# Of the hub's kinds of tasks, by adapter; the others name what is seen.
KINDS = {
    "captioner": "video-text-to-text",
    "multiple_choice": "video-text-to-text",
    "retrieval": "text-to-video-retrieval",
}


def files(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """A file per encoder, task and protocol, and one per encoder."""
    for (org, name), group in groupby(sorted(with_headline(runs), key=model_id), model_id):
        model_runs = list(group)
        for path, text in eval_results(model_runs):
            yield f"{org}__{name}/{path}", text
        index = [{"name": name, "results": model_index(model_runs)}]
        yield f"{org}__{name}/model-index.yaml", _yaml({"model-index": index})


def eval_results(runs: Sequence[Run], dataset: str = "") -> Iterator[tuple[str, str]]:
    """The files below .eval_results of a model, each with its path.

    Args:
        runs: of one model.
        dataset: the benchmark's id on the hub; empty: evalkit's name of the task.
    """
    runs = [*with_headline(runs)]
    for run, task in zip(runs, task_names(runs), strict=True):
        yield f".eval_results/{path_part(task)}.yaml", _yaml([_entry(run, dataset)])


def model_index(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The results of a model's model-index."""
    return [_result(run) for run in with_headline(runs)]


def _entry(run: Run, dataset: str) -> dict[str, Any]:
    record, task, headline = run.result, run.result["task"], run.result["scores"][0]
    interval = "" if None in headline["ci95"] else " (95 % interval {:.1f} to {:.1f})".format(*headline["ci95"])
    failed = record["data"]["n_failed"]
    notes = [
        f"{headline['metric']}{interval} of {counted(headline['n'], 'example')}, "
        f"{counted(headline['n_clusters'], 'video')}",
        f"adapter {record['adapter']['name']}",
        *([task_name(run)] if task_name(run) != task["name"] else []),
        *([f"protocol {task['protocol']['name']}"] if task["protocol"].get("name") else []),
        *(f"{control['name']} {control['metric']} {control['value']}" for control in record["controls"]),
        *([f"{failed} failed examples count as wrong"] if failed else []),
        f"evalkit protocol {task['protocol_sha256'][:12]}",
    ]
    return {
        "dataset": {"id": dataset or task["name"], "task_id": task["split"]},
        "value": headline["value"],
        "date": f"{timestamp(run):%Y-%m-%d}",
        "notes": "; ".join(notes),
    }


def _result(run: Run) -> dict[str, Any]:
    task, adapter = run.result["task"], run.result["adapter"]["name"]
    settings = {
        "adapter": adapter,
        "protocol": task["protocol"].get("name") or None,
        "protocol_sha256": task["protocol_sha256"],
        "fingerprint": run.result["data"]["fingerprint"],
    }
    return {
        "task": {"type": KINDS.get(adapter, "video-classification")},
        "dataset": {"type": task["name"], "name": task_name(run), "split": task["split"], "args": settings},
        "metrics": [
            {
                "type": entry["metric"],
                "value": entry["value"],
                "name": entry["metric"],
                "args": {key: entry[key] for key in ("ci95", "n", "n_clusters", "bounds")},
            }
            for entry in defined(run)
        ],
    }


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text
