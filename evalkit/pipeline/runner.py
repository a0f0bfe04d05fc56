"""`evalkit run`: one encoder, one task, one record. Each step hands its result to the next; none reaches back."""

from __future__ import annotations

import inspect
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evalkit.api import Example, Prediction, Task
from evalkit.canary.finding import Finding
from evalkit.config.config import Config
from evalkit.datasets.videos import relative_names
from evalkit.errors import UserError, counted
from evalkit.features.extract import Cost
from evalkit.heads.flops import trainable_flops
from evalkit.pipeline import plan, preflight
from evalkit.pipeline.controls import controls_of, measure_control
from evalkit.pipeline.described import (
    adapter_record,
    encoder_name,
    encoder_record,
    path_name,
    place,
    protocol_of,
    recorded,
    shared_with_train,
    tell_seen,
    training_data_of,
)
from evalkit.pipeline.predict import Predictions, predict
from evalkit.pipeline.settings import used
from evalkit.pipeline.setup import Experiment, prepare
from evalkit.pipeline.task_data import meant_size, video_places
from evalkit.pipeline.training.fit import fit_adapter
from evalkit.results import provenance, run_folder, scores, table
from evalkit.results.evidence import Evidence
from evalkit.results.record import record
from evalkit.results.rows import Row
from evalkit.runtime import notes
from evalkit.runtime.progress import duration, phase
from evalkit.runtime.ranks import ALONE, Ranks
from evalkit.tracking import trackers
from evalkit.video.decode import default_decoder
from evalkit.video.media import shown
from evalkit.weights.trained_adapter import adapter_tasks

logger = logging.getLogger("evalkit")


def run(config: Config, ranks: Ranks = ALONE) -> Path:
    """Scores an encoder on a task and returns the run's folder.

    Of several processes each encodes its share of the videos into the store, and predicts its share of the examples;
    the first one fits, scores and writes.

    Args:
        config: of the run.
        ranks: this process's place among those that share it.

    Raises:
        UserError: something in the configuration, the data or the checkpoint that the user can mend.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    with prepare(config, ranks) as experiment:
        folder = ranks.broadcast(_run(config, experiment, started, clock))
    assert folder
    return folder


def _run(config: Config, experiment: Experiment, started: datetime, clock: float) -> Path | None:
    """The folder that was written; None in all but the first process."""
    options, ranks = config.options, experiment.ranks
    scores.reference(experiment.task.score)  # fails now rather than after hours
    controls = controls_of(experiment) if options.controls else []
    trained_on = training_data_of(config)
    findings: list[Finding] = []
    if ranks.first:
        preflight.check_run(experiment, options, config.trainer, video_places(config))
        if options.canary and not experiment.retuned:  # else it was checked when it was tuned, and is the same
            findings = preflight.check_encoder(experiment, config)
        with phase("look at what is to be encoded"):
            outlook = plan.outlook(experiment, config, controls)
        if outlook:
            logger.info(outlook.line)
            if outlook.instead and not options.confirm:
                plan.confirm(outlook, sys.stdin, sys.stderr)
        tell_seen(experiment.name, trained_on)
    ranks.wait()
    with tracked(config, experiment, started) as experiment.trackers:
        encoder = encoder_record(experiment, config, findings, trained_on)
        return _measure(config, experiment, controls, encoder, started, clock)


def tracked(config: Config, experiment: Experiment, started: datetime) -> AbstractContextManager[trackers.Trackers]:
    """The trackers of `log=` while the block runs; none in all but the first process."""
    encoder = encoder_name(config.options)
    names = {"task": experiment.name, "encoder": encoder, "adapter": experiment.adapter_name}
    settings = trackers.settings_of(config, names, asdict(experiment.extractor.views), experiment.points)
    run_id = run_folder.run_id(config.to_yaml(), started)
    return trackers.start(config.options, f"{encoder}-{experiment.name}", run_id, settings, experiment.ranks.first)


def _measure(
    config: Config,
    experiment: Experiment,
    controls: Sequence[str],
    encoder: Mapping[str, Any],
    started: datetime,
    clock: float,
) -> Path | None:
    """Fits, predicts, scores and writes; None in all but the first process."""
    task, cost, options, ranks = experiment.task, experiment.extractor.cost, config.options, experiment.ranks
    selection = None
    if experiment.needs_fit:
        selection, cost.fit_s = fit_adapter(experiment, config.trainer, options.seed)
    predicted = predict(experiment, controls, options.seed)
    cost.add_counts(ranks.gather(cost)[1:])
    if not ranks.first:
        return None
    if len(predicted.failures) == len(task.test):
        reason = f"{shown(task.test[0].video)}: {predicted.failures[task.test[0].id]}"
        raise UserError(f"none of {counted(len(task.test), 'test example')} could be read; {reason}")
    views = experiment.extractor.views
    assert views.frames is not None and views.size is not None  # resolve_views() filled them in
    folder = write_run(
        config,
        task,
        predicted,
        name=experiment.name,
        protocol=protocol_of(experiment, config.trainer),
        encoder=encoder,
        adapter=adapter_record(
            experiment.adapter,
            experiment.adapter_name,
            {**recorded(experiment.settings), "from": place(experiment.fitted_from)},
            task,
            trained_on=adapter_tasks(experiment.fitted_from) if experiment.fitted_from else [],
            trainable_flops=trainable_flops(experiment.adapter, experiment.encoder.module, views.frames, views.size),
        ),
        selection=selection,
        shared=shared_with_train(task, experiment.reader.cache is not None) if selection else {},
        on_val=experiment.on_val,
        cost=cost,
        training=experiment.training,
        device=str(experiment.device),
        decoder=default_decoder(options.decoder),
        started=started,
        clock=clock,
    )
    trackers.end_run(experiment.trackers, folder, options.task)
    return folder


def write_run(
    config: Config,
    task: Task,
    predicted: Predictions,
    *,
    name: str,
    protocol: Mapping[str, Any],
    encoder: Mapping[str, Any],
    adapter: Mapping[str, Any],
    selection: Mapping[str, Any] | None,
    on_val: Sequence[tuple[str, Any, Any]],
    cost: Cost,
    device: str,
    decoder: str,
    started: datetime,
    clock: float,
    training: Mapping[str, Any] | None = None,
    shared: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Scores what was predicted, writes the run and returns its folder; the journal of the predictions is removed.

    Args:
        config: of the run.
        task: that was run.
        predicted: of its test examples.
        name: of the task, with `@mini` where its miniature was used.
        protocol: everything that decides the meaning of the scores.
        encoder: as the record holds it.
        adapter: as the record holds it.
        selection: how grid point and epoch were chosen; None where nothing was fitted.
        on_val: id, target and prediction of each val example.
        cost: seconds and counts until now.
        device: of the arithmetic.
        decoder: the default one.
        started: when the run began.
        clock: monotonic time of that.
        training: what a step of training cost; None where there was none.
        shared: test videos that train or val has, too, as the record holds them.

    Raises:
        UserError: the adapter answered no example at all.
    """
    options, scoring = config.options, time.monotonic()
    rows = _rows(task.test, predicted)
    if all(row.failure and "said" not in (row.detail or {}) for row in rows):  # a wrong answer is said
        raise UserError(f"none of {counted(len(rows), 'test example')} was answered; {rows[0].id}: {rows[0].failure}")
    with phase("score"), notes.remarks():
        scored = scores.scores(task.score, rows, options.seed)
    labeled = any(row.target is not None for row in rows)
    controls = [measure_control(name, task, of) for name, of in predicted.by_control.items() if name and labeled]
    cost.score_s = time.monotonic() - scoring

    result = record(
        task,
        rows,
        name=name,
        score=scores.reference(task.score),
        quick_score=_quick_reference(task),
        protocol=protocol,
        encoder=encoder,
        adapter=adapter,
        scores=scored,
        controls=controls,
        selection=selection,
        cost={
            **asdict(cost),
            "peak_memory_bytes": provenance.peak_memory_bytes(),
            "wall_s": time.monotonic() - clock,
            **({"training": training} if training else {}),
        },
        provenance=provenance.provenance(
            ("sweep" if config.points else config.command, *config.words),
            options.seed,
            device,
            decoder,
            started,
            datetime.now(UTC),
        ),
        fitted=selection is not None,
        shared=shared,
        expect=meant_size(config),
    )
    chosen = config.at(selection["chosen"].get("point", 0)) if selection else config
    run_id = run_folder.run_id(config.to_yaml(), started)
    folder = options.out / path_name(str(encoder["name"])) / name / run_id
    controls_predicted = {
        name: {id: prediction.value for id, prediction in of.items()}
        for name, of in predicted.by_control.items()
        if name and labeled
    }
    written = run_folder.write(
        folder,
        result,
        rows,
        chosen.to_yaml() + used(chosen, adapter["settings"], protocol.get("views", {})),
        lambda hidden: _submit(task, predicted, hidden),
        Evidence(controls_predicted, on_val),
    )
    predicted.journal.remove()
    logger.info(summary(cost, rows, time.monotonic() - clock))
    for remark in filter(
        None, (table.collapsed(rows, task.classes or (), selection is not None), table.tied(selection))
    ):
        logger.warning(remark)
    return written


def summary(cost: Cost, rows: Sequence[Row], seconds: float) -> str:
    """A line on a run that is done: how long it took, and what of that most; what was stored already; what failed."""
    phases = {name: getattr(cost, f"{name}_s") for name in ("decode", "encode", "fit", "score")}
    slow = sorted((name for name in phases if phases[name] >= 0.1), key=lambda name: -phases[name])
    taken = "".join(f", {name} {duration(phases[name])}" for name in slow)
    parts = [f"took {duration(seconds)}{taken}"]
    if looked_up := cost.cache_hits + cost.cache_misses:
        parts.append(f"{cost.cache_hits:,} of {counted(looked_up, 'clip')} already stored")
    if failed := [row for row in rows if row.failure]:
        parts.append(
            f"{len(failed):,} of {counted(len(rows), 'example')} failed, first {failed[0].id}: {failed[0].failure}"
        )
    return "; ".join(parts)


def _rows(examples: Sequence[Example], predicted: Predictions) -> list[Row]:
    """A row per example; videos are named relative to their common folder."""
    root = os.path.commonpath([example.video.absolute().parent for example in examples])
    rows = []
    for example, video in zip(examples, relative_names(examples), strict=True):
        prediction = predicted.scored.get(example.id)
        failure = predicted.failures.get(example.id)
        if prediction is not None and _is_nan(prediction):
            prediction, failure = None, "the adapter predicted NaN or infinity"
        if prediction is not None and prediction.value is None:
            failure = (prediction.detail or {}).get("failure")  # an answer that says nothing, in the adapter's words
        rows.append(
            Row(
                id=example.id,
                video=video,
                kind=example.kind,
                target=example.target,
                prediction=None if prediction is None else prediction.value,
                failure=None if failure is None else failure.replace(f"{root}{os.sep}", ""),
                decoder=predicted.decoders.get(example.id),
                detail=None if prediction is None else prediction.detail,
            )
        )
    return rows


def _is_nan(prediction: Prediction) -> bool:
    """Whether a prediction contains NaN, which makes it meaningless; details may be infinite."""
    return _has(prediction.value, lambda number: not math.isfinite(number)) or _has(prediction.detail, math.isnan)


def _has(value: Any, wrong: Callable[[float], bool]) -> bool:
    if isinstance(value, float):
        return wrong(value)
    if isinstance(value, Mapping):
        return any(_has(inner, wrong) for inner in value.values())
    if isinstance(value, list | tuple):
        return any(_has(inner, wrong) for inner in value)
    return hasattr(value, "tolist") and _has(value.tolist(), wrong)


def _submit(task: Task, predicted: Predictions, folder: Path) -> None:
    """Writes the official submission files; if that fails, the run is kept and the reason is logged."""
    if task.submission is None:
        return
    answers = {e.id: predicted.scored[e.id].value if e.id in predicted.scored else None for e in task.test}
    try:
        task.submission(answers, folder)
    except (UserError, ValueError, TypeError, KeyError) as error:
        logger.warning(f"no submission written: {error}")


def _quick_reference(task: Task) -> str | None:
    """The name of the score function of controls and val; None where it is the task's own, or has none."""
    try:
        return scores.reference(inspect.unwrap(task.quick_score)) if task.quick_score else None
    except UserError:
        return None
