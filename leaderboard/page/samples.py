"""The samples and predictions of a run, as the page draws them when the run is opened."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from evalkit.api import Task
from evalkit.errors import UserError
from evalkit.metrics.bootstrap import AdditiveScore
from evalkit.results import run_folder
from evalkit.runtime import bounded
from evalkit.show import rebuilt

from ..runs import Run
from .details import CAPTIONS, details_of, odd_tokens, view_of
from .regions import kind_of, shorten
from .thumbnails import Picture

MAX_TEXT_LENGTH = 600  # characters of a prediction or target
TOP_CLASSES = 5  # shown of a prediction that scores all classes


def prediction_rows(run: Run) -> list[dict[str, Any]]:
    """The rows of predictions.jsonl, not validated again: that is ten times slower, and `collect` did it."""
    text = bounded.read_bytes(run.folder / run_folder.PREDICTIONS).decode()
    lines = ",".join(text.split("\n")[:-1])
    rows: list[dict[str, Any]] = json.loads(f"[{lines}]")  # twice as fast as one call per line
    return rows


def samples_of(task: Task | None, rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> dict[str, Any]:
    """The samples as all runs on them share them; questions, options and class names are added from the task.

    `regions` is the kind of what is drawn, where targets are segments or boxes; `seconds` the lengths of their videos.
    `tokens` are those of captions' references, in the order in which all of them stand.
    """
    kind = kind_of(record)
    samples: dict[str, Any] = {
        "ids": [row["id"] for row in rows],
        "videos": [row["video"] for row in rows],
        "kinds": [row["kind"] for row in rows],
        "targets": [_regions_or_short(row["target"], kind, False) for row in rows],
    }
    if kind:
        samples["regions"] = kind
    if record["task"]["score"].partition(":")[2] in CAPTIONS:
        samples["tokens"] = odd_tokens([text for row in rows for text in _short_texts(row["target"])])
        samples["targets"] = ["\n".join(_short_texts(row["target"])) for row in rows]
    if task is not None:
        if task.classes:
            samples["classes"] = task.classes
        if any(example.text for example in task.test):
            samples["texts"] = [example.text[:MAX_TEXT_LENGTH] for example in task.test]
        if any(example.choices for example in task.test):
            samples["options"] = [[option[:MAX_TEXT_LENGTH] for option in example.choices] for example in task.test]
        if kind == "segments":
            samples["seconds"] = [example.span and round(example.span[1], 2) for example in task.test]
    return samples


def pictures_of(task: Task | None, rows: Sequence[Mapping[str, Any]], kind: str) -> list[Picture]:
    """What the samples' pictures show: of boxes the key frames, where the task's files tell their seconds."""
    if kind == "boxes":
        pairs = zip(rows, task.test, strict=True) if task else ()
        return [Picture(row["id"], row["video"], e.video, e.span and fmean(e.span)) for row, e in pairs]
    files = [example.video for example in task.test] if task else [None] * len(rows)
    return [Picture(row["video"], row["video"], file) for row, file in zip(rows, files, strict=True)]


def predictions_of(run: Run, rows: Sequence[Mapping[str, Any]], task: Task | None) -> dict[str, Any]:
    """A run's predictions, record and failures; `values`, 0..1 per sample, is None for a corpus-level headline.

    `each` is each sample's own part of a headline that is their mean, such as CIDEr, in percent; None of any other.
    `view` is what `view_of` says, and beside it is what that view draws; `tokens` are those of captions.
    """
    record = run.result
    view = view_of(record, rows, task)
    headline = run.headline.values if record["scores"] else None
    values = [f"{value:g}" for value in headline.round(3).tolist()] if isinstance(headline, np.ndarray) else None
    predictions = [_regions_or_short(row["prediction"], kind_of(record), True) for row in rows]
    reasons = {failure["id"]: failure["reason"] for failure in record["data"]["failures"]}
    return {
        "result": {**record, "data": {**record["data"], "failures": []}},  # they are under `failures`
        "values": _of_labeled(values, rows),
        "each": _of_labeled(_parts_of_mean(headline), rows),
        "predictions": predictions,
        "failures": {i: reasons[row["id"]] for i, row in enumerate(rows) if row["id"] in reasons},
        "view": view,
        **details_of(view, record, rows),
        **({"tokens": odd_tokens(predictions)} if view == "captions" else {}),
    }


def _of_labeled(values: Sequence[Any] | None, rows: Sequence[Mapping[str, Any]]) -> list[Any] | None:
    """A value for each sample from those of the labeled ones, None for the others."""
    rest = iter(values or ())
    return None if values is None else [None if row["target"] is None else next(rest) for row in rows]


def _parts_of_mean(score: Any) -> list[float] | None:
    if not isinstance(score, AdditiveScore) or score.parts.shape[1] != 2 or not (score.parts[:, 1] == 1).all():
        return None
    parts = 100 * score.parts[:, 0]
    return [round(part, 1) for part in parts.tolist()] if math.isclose(parts.mean(), score, rel_tol=1e-9) else None


def _regions_or_short(value: Any, kind: str, scored: bool) -> Any:
    return shorten(value, kind, scored) if kind and isinstance(value, list) else short(value)


def short(value: Any) -> Any:
    """A target or prediction for the page: indices as they are, class scores as the top five, anything else as text."""
    if isinstance(value, int) or (isinstance(value, list) and all(isinstance(item, int) for item in value)):
        return value
    if isinstance(value, list) and len(value) > 2 and all(isinstance(item, float) for item in value):
        top = sorted(range(len(value)), key=lambda i: -value[i])[:TOP_CLASSES]
        return {"best": [[i, f"{value[i]:.2f}"] for i in top]}
    return _text(value)


def _short_texts(target: Any) -> list[str]:
    """A caption's references for the page, each in one line."""
    texts = target if isinstance(target, list) else [] if target is None else [target]
    return [" ".join(_text(text).splitlines()) for text in texts]


def _text(value: Any) -> str:
    """A value as text; several texts are one per line."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return (", " if all(isinstance(item, float) for item in value) else "\n").join(map(_text, value))
    text = "" if value is None else str(value)
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]}…"


def task_of(run: Run) -> Task | None:
    """The run's task, made again; None unless its files are here and have the run's fingerprint.

    Only installed tasks are made: a result from elsewhere must not name code to run.
    """
    try:
        return rebuilt.task_of(rebuilt.config_of(run.folder, (), (), task_alone=True), run.result)
    except UserError:  # its files are missing or are others, or it is the user's own
        return None
