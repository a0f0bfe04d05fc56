"""CLIP_benchmark's JSON and key names (acc1, image_retrieval_recall@5, ...), as its `build` reads them.

Rates are fractions, as there. Beside each stand its `_ci95_low` and `_ci95_high`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..runs import Run
from . import as_json, defined, fraction, model_id, path_part, report, task_name, task_names

_RECALL = {
    f"{way}_R@{k}": f"{retrieved}_retrieval_recall@{k}"
    for way, retrieved in (("t2v", "image"), ("v2t", "text"))
    for k in (1, 5, 10)
}
_WORDS = {"CIDEr": "CIDEr", "METEOR": "METEOR", "ROUGE-L": "ROUGE_L"} | {f"BLEU-{n}": f"Bleu_{n}" for n in range(1, 5)}

# Its name of what an adapter does, and of each metric.
ZERO_SHOT = {
    "zero_shot": ("zeroshot_classification", {"top1": "acc1", "top5": "acc5", "mAP": "mean_average_precision"}),
    "retrieval": ("zeroshot_retrieval", _RECALL),
}
LINEAR = ("linear_probe", {"top1": "lp_acc1", "top5": "lp_acc5"})
CAPTIONS = ("captioning", _WORDS)


def files(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """A file per encoder and task, for the kinds of task that the format has."""
    for run, task in zip(runs, task_names(runs), strict=True):
        record = run.result
        kind, keys = _kind(record["adapter"], fitted=record["selection"] is not None)
        metrics: dict[str, float | None] = {}
        left_out = []
        for entry in defined(run):
            metric, (low, high) = entry["metric"], entry["ci95"]
            if metric not in keys:
                left_out.append(metric)
                continue
            metrics[keys[metric]] = fraction(metric, entry["value"])
            metrics[f"{keys[metric]}_ci95_low"] = fraction(metric, low)
            metrics[f"{keys[metric]}_ci95_high"] = fraction(metric, high)
        if left_out or not metrics:
            report(
                run,
                f"adapter {record['adapter']['name']}: no place in clip_benchmark for {', '.join(left_out) or 'it'}",
            )
        if not metrics:
            continue
        org, name = model_id(run)
        dataset, pretrained = task_name(run), (record["encoder"]["sha256"] or "unknown")[:12]
        dump = {
            "dataset": dataset,
            "model": name,
            "pretrained": pretrained,
            "task": kind,
            "metrics": metrics,
            "language": "en",
            "n": record["scores"][0]["n"],
            "n_failed": record["data"]["n_failed"],
            "protocol_sha256": record["task"]["protocol_sha256"],
        }
        yield f"{path_part(task)}_{pretrained}_{name}_en_{kind}.json", as_json(dump)


def _kind(adapter: Mapping[str, Any], fitted: bool) -> tuple[str, Mapping[str, str]]:
    """The format's task and its keys by evalkit's metrics; empty if it has none, as for an attentive probe."""
    name, settings = adapter["name"], adapter["settings"]
    if name in ZERO_SHOT and not fitted and not settings.get("from"):
        return ZERO_SHOT[name]
    if name == "logistic" or (name == "probe" and settings.get("head") == "linear"):
        return LINEAR
    return CAPTIONS if name == "captioner" else ("", {})
