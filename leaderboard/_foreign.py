"""Scores that others' tools wrote, as rows to put beside ours: mteb's (and MVEB's) and lm-evaluation-harness's JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.datasets.files import error_context, read_json
from evalkit.errors import UserError

# What lm-eval prints as it is, where all else is a fraction: lower-is-better sums, and sacrebleu's, which are percent.
AS_THEY_ARE = {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "bleu", "chrf", "ter"}


class Score(NamedTuple):
    """One number that another tool measured.

    Attributes:
        encoder: as the tool names it, mostly `organization/model`.
        task: as the tool names it, which says nothing of the protocol: mteb's tasks ask other questions than ours.
        split: what was scored; with mteb's subset or lm-eval's filter, where it has one, after a slash.
        metric: the tool's name of it; mteb's `main_score` first.
        value: rates in 0..100.
        source: `mteb` or `lm-eval`, and the version where it is known.
        file: where it stands.
    """

    encoder: str
    task: str
    split: str
    metric: str
    value: float
    source: str
    file: Path


def foreign(path: Path) -> list[Score]:
    """The scores of a file, or of all such files under a folder, in their order; other JSON in it is passed over.

    Raises:
        UserError: there is no such path, a file is damaged, or there is no score.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.json"))
    found = [score for file in files for score in _read(file)]
    if not found:
        raise UserError(f"no score of mteb or lm-eval at or under {str(path)!r}: wanted <Task>.json or results_*.json")
    return found


def _read(file: Path) -> list[Score]:
    with error_context(str(file)):
        values = json.loads(file.read_text(encoding="utf-8-sig"))
        if not isinstance(values, dict):
            return []
        if {"task_name", "scores", "dataset_revision"} <= values.keys():
            return list(_mteb(file, values))
        if {"results", "configs"} <= values.keys():
            return list(_lm_eval(file, values))
    return []


def _mteb(file: Path, values: Mapping[str, Any]) -> Iterator[Score]:
    """Of <org__model>/<revision>/<Task>.json, whose folder names the model where no model_meta.json does."""
    beside, folder = file.with_name("model_meta.json"), file.resolve().parent.parent.name
    encoder = read_json(beside, dict)["name"] if beside.is_file() else folder.replace("__", "/", 1)
    if "/" not in encoder and not beside.is_file():
        raise ValueError(f"no model_meta.json beside it, and {folder!r} is no organization__model: whose scores?")
    source = " ".join(["mteb", *filter(None, [values.get("mteb_version")])])
    for split, subsets in values["scores"].items():
        for one in subsets:
            where = split if one["hf_subset"] == "default" else f"{split}/{one['hf_subset']}"
            for metric in sorted(one, key=lambda metric: metric != "main_score"):
                if _is_number(one[metric]):
                    yield Score(encoder, values["task_name"], where, metric, round(100 * one[metric], 8), source, file)


def _lm_eval(file: Path, values: Mapping[str, Any]) -> Iterator[Score]:
    encoder = values.get("model_name") or str(values["config"]["model_args"])
    source = " ".join(["lm-eval", *filter(None, [values.get("lm_eval_version")])])
    for task, metrics in values["results"].items():
        split = values["configs"].get(task, {}).get("test_split") or ""
        for key, value in metrics.items():
            metric, comma, kind = key.partition(",")
            if comma and not metric.endswith("_stderr") and _is_number(value):
                where = split if kind == "none" else f"{split}/{kind}"
                scale = 1 if metric in AS_THEY_ARE or metric.endswith("_rank") else 100
                yield Score(encoder, task, where, metric, round(scale * value, 8), source, file)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
