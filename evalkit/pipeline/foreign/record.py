"""`evalkit score task=NAME predictions=FILE`: a record of predictions that were made elsewhere."""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit.config.parse import resolve
from evalkit.datasets.videos import relative_names
from evalkit.errors import UserError, counted, printable, suggest
from evalkit.pipeline.foreign.files import Predictions, read_predictions
from evalkit.pipeline.task_data import load_task, meant_size
from evalkit.plugins import display_name
from evalkit.results import provenance, run_folder, scores
from evalkit.results.evidence import Evidence
from evalkit.results.record import record
from evalkit.results.rows import Row
from evalkit.runtime import notes

logger = logging.getLogger("evalkit")

ADAPTER = "predictions"  # the adapter's name in such a record, by which it is known


def score_predictions(words: Sequence[str]) -> Path:
    """Scores a file of predictions on a task's real annotations, and returns the folder of the record.

    Examples that are not in the file have failed, and count as wrong; ids of the file that are none of the task's are
    counted and told. Neither encoder nor videos are needed.

    Args:
        words: predictions=FILE and task=NAME; data.* of the task; out=FOLDER, by default results; name=, which the
            board shows, by default the file's name; mini=true for the miniature's annotations.

    Raises:
        UserError: a word is wrong, the task's data are not there, or the file is not in the benchmark's format.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    given = {"predictions": "", "out": "results", "name": ""}
    rest = []
    for word in words:
        key, _, value = word.partition("=")
        if key in given:
            if not value:
                raise UserError(f"{key}=: wanted a value")
            given[key] = value
            continue
        if not word.startswith(("task=", "mini=", "data.", "config=")):
            near = suggest(key, [*given, "task", "mini"])
            known = "task=, data.*, mini=, config=, out= and name="
            raise UserError(f"score predictions=FILE takes {known}, got {word}.{near}")
        rest.append(word)
    config = resolve("check", rest, called="score predictions=FILE")
    file = Path(given["predictions"]).expanduser()
    predictions = read_predictions(load_task(config), file)
    task = predictions.task
    rows = _rows(predictions, file)
    if predictions.others:
        count, first = len(predictions.others), predictions.others[0]
        logger.warning(f"{file}: left out {counted(count, 'id')} that the task does not have, first {first!r}")
    reference = scores.reference(task.score)
    scoring = time.monotonic()
    with notes.remarks():
        scored = scores.scores(task.score, rows, config.options.seed)
    name = display_name(config.options.task) + ("@mini" if config.options.mini else "")
    shown, digest = given["name"] or file.stem, run_folder.file_sha256(file)
    result = record(
        task,
        rows,
        name=name,
        score=reference,
        quick_score=None,
        protocol={"name": task.protocol, "adapter": ADAPTER},
        encoder={
            "name": shown,
            "ckpt": f"{file.name}@{digest[:8]}",  # so that two files of one name are two on the board
            "sha256": None,
            "architecture": "unknown",
            "clip": {},
            "parameters": None,
        },
        adapter={
            "name": ADAPTER,
            "settings": {
                "file": file.name,
                "sha256": digest,
                "format": predictions.form,
                "other_ids": len(predictions.others),
            },
            "trainable_parameters": 0,
        },
        scores=scored,
        controls=(),
        selection=None,
        cost=_cost(time.monotonic() - scoring, time.monotonic() - clock),
        provenance=provenance.provenance(
            ("score", *words), config.options.seed, "cpu", "none", started, datetime.now(UTC)
        ),
        expect=meant_size(config),
    )
    command = printable(f"# {shlex.join(['evalkit', 'score', *words])}")
    settings = {"task": config.options.task, **given, **{f"data.{key}": of for key, of in config.data.items()}}
    # Text as in JSON is text in yaml.
    config_yaml = "\n".join([command, *(f"{key}: {json.dumps(str(value))}" for key, value in settings.items())]) + "\n"
    folder_name = "".join(c if c.isalnum() or c in "._-" else "-" for c in shown).strip(".") or digest[:8]
    folder = Path(given["out"]).expanduser() / folder_name / name / run_folder.run_id(config_yaml, started)
    return run_folder.write(folder, result, rows, config_yaml, evidence=Evidence())


def _rows(predictions: Predictions, file: Path) -> list[Row]:
    """A row per test example, its video named within the folder that holds all of them."""
    examples = predictions.task.test
    return [
        Row(
            id=example.id,
            video=video,
            kind=example.kind,
            target=example.target,
            prediction=predictions.values.get(example.id),
            failure=None if example.id in predictions.values else f"no prediction in {file.name}",
        )
        for example, video in zip(examples, relative_names(examples), strict=True)
    ]


def _cost(score_s: float, wall_s: float) -> dict[str, Any]:
    counts = {"encoder_forwards": 0, "cache_hits": 0, "cache_misses": 0}
    seconds = {"decode_s": 0.0, "encode_s": 0.0, "fit_s": 0.0, "score_s": score_s, "wall_s": wall_s}
    return {**counts, **seconds, "peak_memory_bytes": provenance.peak_memory_bytes()}
