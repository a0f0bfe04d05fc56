"""Reads scores of other tools: the JSON files of mteb (and MVEB) and of lm-evaluation-harness."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.datasets.files import parsing_errors_at, read_json
from evalkit.errors import UserError
from evalkit.runtime import bounded

# lm-eval's metrics that are no fractions: lower-is-better sums, and sacrebleu's, which are in percent already.
UNSCALED_METRICS = {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "bleu", "chrf", "ter"}


class Score(NamedTuple):
    """One number that another tool measured.

    Attributes:
        encoder: as the tool names it, mostly `organization/model`.
        task: as the tool names it, which says nothing of the protocol: mteb's tasks ask other questions than ours.
        split: what was scored; with mteb's subset or lm-eval's filter, where it has one, after a slash.
        metric: the tool's name of it; mteb's `main_score` first.
        value: rates in 0..100.
        source: `mteb` or `lm-eval`, and the version where it is known.
        file: it was read from.
    """

    encoder: str
    task: str
    split: str
    metric: str
    value: float
    source: str
    file: Path


def read_scores(path: Path) -> list[Score]:
    """The scores of a file, or of all such files under a folder, in order; other JSON files are ignored.

    Raises:
        UserError: there is no such path, a file is damaged, or there is no score.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.json"))
    scores = [score for file in files for score in _read(file)]
    if not scores:
        raise UserError(f"no score of mteb or lm-eval at or under {str(path)!r}: wanted <Task>.json or results_*.json")
    return scores


def _read(file: Path) -> list[Score]:
    with parsing_errors_at(str(file)):
        values = json.loads(bounded.read_bytes(file).decode("utf-8-sig"))
        if not isinstance(values, dict):
            return []
        if {"task_name", "scores", "dataset_revision"} <= values.keys():
            return list(_mteb(file, values))
        if {"results", "configs"} <= values.keys():
            return list(_lm_eval(file, values))
    return []


def _mteb(file: Path, values: Mapping[str, Any]) -> Iterator[Score]:
    """Scores of <org__model>/<revision>/<Task>.json; the model is named by model_meta.json, else by the folder."""
    meta, folder = file.with_name("model_meta.json"), file.resolve().parent.parent.name
    encoder = read_json(meta, dict)["name"] if meta.is_file() else folder.replace("__", "/", 1)
    if "/" not in encoder and not meta.is_file():
        raise ValueError(f"no model_meta.json beside it, and {folder!r} is not an organization__model: whose scores?")
    source = " ".join(["mteb", *filter(None, [values.get("mteb_version")])])
    for split, subsets in values["scores"].items():
        for subset in subsets:
            where = split if subset["hf_subset"] == "default" else f"{split}/{subset['hf_subset']}"
            for metric in sorted(subset, key=lambda metric: metric != "main_score"):
                if _is_number(subset[metric]):
                    yield Score(
                        encoder, values["task_name"], where, metric, round(100 * subset[metric], 8), source, file
                    )


def _lm_eval(file: Path, values: Mapping[str, Any]) -> Iterator[Score]:
    encoder = values.get("model_name") or str(values["config"]["model_args"])
    source = " ".join(["lm-eval", *filter(None, [values.get("lm_eval_version")])])
    for task, metrics in values["results"].items():
        split = values["configs"].get(task, {}).get("test_split") or ""
        for key, value in metrics.items():
            metric, comma, kind = key.partition(",")
            if comma and not metric.endswith("_stderr") and _is_number(value):
                where = split if kind == "none" else f"{split}/{kind}"
                scale = 1 if metric in UNSCALED_METRICS or metric.endswith("_rank") else 100
                yield Score(encoder, task, where, metric, round(scale * value, 8), source, file)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
