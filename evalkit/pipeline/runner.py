"""`evalkit run`: one encoder, one task, one record. Each step hands its result to the next; none reaches back."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import evalkit
from evalkit.api import Example, Task
from evalkit.config.config import Config
from evalkit.errors import UserError
from evalkit.heads.flops import trainable_flops
from evalkit.pipeline import preflight
from evalkit.pipeline.controls import controls_of, measure_control
from evalkit.pipeline.fit import fit_adapter
from evalkit.pipeline.predict import Predictions, predict
from evalkit.pipeline.setup import Experiment, prepare
from evalkit.results import provenance, run_folder, scores
from evalkit.results.rows import Row, tally
from evalkit.results.table import table
from evalkit.video.decode import default_decoder
from evalkit.weights import trained_adapter

logger = logging.getLogger("evalkit")


def run(config: Config, quiet: bool = False) -> Path:
    """Scores an encoder on a task, prints the table unless told to be quiet, and returns the run's folder.

    Raises:
        UserError: something in the configuration, the data or the checkpoint that the user can mend.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    with prepare(config) as experiment:
        folder = _run(config, experiment, started, clock)
    if not quiet:
        print(table(run_folder.load(folder)))
        print(folder / run_folder.RESULT)
    return folder


def _run(config: Config, experiment: Experiment, started: datetime, clock: float) -> Path:
    task, cost = experiment.task, experiment.extractor.cost
    score_reference = scores.reference(task.score)  # fails now rather than after hours
    if not task.test:
        raise UserError(f"task {experiment.name} has no test examples")
    out = config.options.out
    try:
        out.mkdir(parents=True, exist_ok=True)  # fails now rather than after hours
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"out={out}: cannot write there: {error.strerror}") from error
    needs_fit = (
        experiment.adapter.epochs > 0
        and experiment.fitted_from is None
        and not trained_adapter.saves_encoder(experiment.adapter)
    )
    if needs_fit and not task.train:
        raise UserError(
            f"adapter {experiment.adapter_name} is untrained and task {experiment.name} has no train split: train it "
            f"with `evalkit adapt task=... adapter={config.options.adapter or experiment.adapter_name} "
            f"ckpt={config.options.ckpt} out=FOLDER`, then give adapter.from=FOLDER"
        )
    if config.trainer.shots and not needs_fit:
        raise UserError(f"trainer.shots={config.trainer.shots} has no effect: nothing is fitted; leave it out")
    canary = config.options.canary and not experiment.retuned  # else it was checked when it was tuned, and is the same
    findings = preflight.check(config, experiment.encoder, experiment.extractor, task) if canary else []
    selection = None
    if needs_fit:
        selection, cost.fit_s = fit_adapter(experiment, config)

    predicted = predict(experiment, controls_of(experiment) if config.options.controls else [], config.options.seed)
    scoring = time.monotonic()
    rows = _rows(task.test, predicted)
    scored = scores.scores(task.score, rows, config.options.seed)
    labeled = any(row.target is not None for row in rows)
    controls = [measure_control(name, task, found) for name, found in predicted.by_control.items() if name and labeled]
    cost.score_s = time.monotonic() - scoring
    counts = tally(rows)
    encoder, views = experiment.encoder.module, experiment.extractor.views
    assert views.frames and views.size  # resolve() filled them in
    frozen = getattr(experiment.adapter, "frozen", {})  # a language model by its weights, wherever it lies
    encoder_name = _encoder_name(config.options.ckpt)
    record = {
        "schema": 1,
        "status": "complete" if not counts["n_failed"] else "partial" if counts["n_scored"] else "failed",
        "task": {
            "name": experiment.name,
            "version": task.version,
            "split": task.split,
            "score": score_reference,
            "protocol": _protocol(experiment, frozen, config.trainer.shots),
            "published": dict(task.published),
        },
        "encoder": {
            "name": encoder_name,
            "ckpt": config.options.ckpt,
            "sha256": experiment.encoder.sha256,
            "architecture": type(encoder).__name__,
            "clip": asdict(encoder.clip),
            "parameters": sum(p.numel() for p in encoder.parameters()),
            "settings": {
                **config.encoder,
                "precision": experiment.encoder.precision,
                "batch": experiment.encoder.batch,
            },
            "canary": [one._asdict() for one in findings],
        },
        "adapter": {
            "name": experiment.adapter_name,
            "settings": {
                **experiment.settings,
                "from": _place(experiment.fitted_from),
                **frozen,
            },
            "trainable_parameters": sum(
                value.numel() for value in trained_adapter.adapter_state(experiment.adapter).values()
            ),
            "trainable_flops": trainable_flops(experiment.adapter, encoder, views.frames, views.size),
        },
        "data": {
            "fingerprint": run_folder.fingerprint(task.test),
            "published_size": task.sizes.get("test"),
            **counts,
        },
        "scores": scored,
        "chance": task.chance,
        "controls": controls,
        "selection": selection,
        "cost": {
            **asdict(cost),
            "peak_memory_bytes": provenance.peak_memory_bytes(),
            "wall_s": time.monotonic() - clock,
        },
        "provenance": provenance.provenance(
            ("sweep" if config.points else config.command, *config.words),
            config.options.seed,
            str(experiment.device),
            default_decoder(config.options.decoder),
            started,
            datetime.now(UTC),
        ),
    }
    chosen = config.at(selection["chosen"].get("point", 0)) if selection else config
    folder = out / encoder_name / experiment.name / run_folder.run_id(config.to_yaml(), started)
    written = run_folder.write(folder, record, rows, chosen.to_yaml(), lambda hidden: _submit(task, predicted, hidden))
    predicted.journal.remove()
    return written


def _rows(examples: Sequence[Example], predicted: Predictions) -> list[Row]:
    """A row per example, its video named within the folder that holds all of them, not by where that lies."""
    root = os.path.commonpath([example.video.absolute().parent for example in examples])
    rows = []
    for example in examples:
        prediction = predicted.scored.get(example.id)
        failure = predicted.failures.get(example.id)
        if prediction is not None and prediction.value is None:
            failure = (prediction.detail or {}).get("failure")  # an answer that says nothing, in the adapter's words
        rows.append(
            Row(
                id=example.id,
                video=str(example.video.absolute().relative_to(root)),
                kind=example.kind,
                target=example.target,
                prediction=None if prediction is None else prediction.value,
                failure=None if failure is None else failure.replace(f"{root}{os.sep}", ""),
                decoder=predicted.decoders.get(example.id),
                detail=None if prediction is None else prediction.detail,
            )
        )
    return rows


def _submit(task: Task, predicted: Predictions, folder: Path) -> None:
    """Writes the official submission files; where that fails the run is kept and the reason told."""
    if task.submission is None:
        return
    answers = {e.id: predicted.scored[e.id].value if e.id in predicted.scored else None for e in task.test}
    try:
        task.submission(answers, folder)
    except (UserError, ValueError, TypeError, KeyError) as error:
        logger.warning(f"no submission written: {error}")


def _protocol(experiment: Experiment, frozen: Mapping[str, str], shots: int) -> dict[str, Any]:
    """All that decides what the number means: views, adapter and its settings, few-shot subset."""
    settings = {key: value for key, value in experiment.settings.items() if key != "lm"}
    return {
        "name": experiment.task.protocol,
        "views": asdict(experiment.extractor.views),
        "augment": asdict(experiment.augment) if experiment.augment else None,
        "adapter": experiment.adapter_name,
        "settings": settings,
        **frozen,
        **({"shots": shots} if shots else {}),
    }


def _place(folder: Path | None) -> str:
    """Where an adapter came from; what evalkit ships is named within it, not by where it is installed."""
    home = Path(evalkit.__file__).parent
    if folder is None or not folder.is_relative_to(home):
        return str(folder or "")
    return str(folder.relative_to(home.parent))


def _encoder_name(ckpt: str) -> str:
    """A folder name for a checkpoint: its last part, as letters that any file system takes."""
    path = Path(ckpt)
    last = path.parent.name if path.is_file() else path.name or ckpt
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in last).strip(".") or "encoder"
