"""`evalkit run ckpt=none`: a language model answers a task's questions without an encoder or videos.

It is the blind baseline: what the questions and options give away, which every encoder's score stands beside.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evalkit import plugins
from evalkit.api import Clip, Task
from evalkit.config.config import Config
from evalkit.config.keys import default_adapter, settings_class
from evalkit.config.options import Options, Trainer
from evalkit.errors import UserError, counted
from evalkit.features.extract import Cost
from evalkit.features.key import architecture
from evalkit.heads.adapter import Adapter
from evalkit.language.reader import READER_SETTINGS
from evalkit.pipeline import preflight
from evalkit.pipeline.described import adapter_record, path_name, recorded
from evalkit.pipeline.journal import Journal
from evalkit.pipeline.predict import Predictions, ask
from evalkit.pipeline.runner import write_run
from evalkit.pipeline.settings import TRAINING, grid_points
from evalkit.pipeline.setup import adapter_builder, find_device
from evalkit.pipeline.task_data import load_task
from evalkit.results import run_folder, schema, scores
from evalkit.results.provenance import packages
from evalkit.runtime.machine import threads
from evalkit.runtime.progress import track
from evalkit.runtime.ranks import ALONE
from evalkit.tracking import trackers

logger = logging.getLogger("evalkit")

CKPT = "none"
# Settings of what stands between video and language model, and of its training.
IDLE_SETTINGS = {*READER_SETTINGS, *TRAINING} - {"lm", "lm_precision"}
# Keys that are about an encoder, its video, or processes that share them.
IDLE_OPTIONS = ("adapter_from", "devices", "nodes", "workers", "precision", "compile", "time_limit", "decoder")


class NoEncoder(nn.Module):
    """Replaces the encoder for an adapter: its tokens have width 0, and it is never called."""

    clip = Clip()
    dim = 0

    def forward(self, video: torch.Tensor) -> Any:
        raise UserError("ckpt=none has no encoder, and an adapter asks one")


def run(config: Config, size: int = 1) -> Path:
    """Scores a language model alone on a task and returns the run's folder.

    Args:
        config: of the run.
        size: processes that torchrun or srun has started, of which one is needed.

    Raises:
        UserError: something in the configuration, the data or the language model that the user can mend; or the
            adapter does not answer without a video.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    options, cost = config.options, Cost()
    name = options.adapter or default_adapter(options.task)
    if size > 1:
        raise UserError(
            f"ckpt=none: {size} processes were started, and one asks the language model: start evalkit alone"
        )
    _refuse_idle(config, name)
    torch.manual_seed(options.seed)
    device = find_device(options.device, ALONE)
    if device.type == "cpu":
        torch.set_num_threads(options.threads or threads())
    task = load_task(config)
    if task.adapter and not options.adapter:
        raise UserError(
            f"task {options.task}: protocol {task.protocol} has another adapter: add adapter={task.adapter}"
        )
    if not task.test:
        raise UserError(f"task {options.task} has no test examples")
    scores.reference(task.score)  # fails now rather than after hours
    preflight.check_out(options.out)
    (settings,) = grid_points(config, task, name, None)
    adapter = adapter_builder(name, NoEncoder(), task)([settings]).to(device).eval()
    settings = {key: value for key, value in recorded(settings).items() if key not in IDLE_SETTINGS}
    shown = plugins.display_name(name)
    display_name = plugins.display_name(options.task) + ("@mini" if options.mini else "")
    batch = (128 if device.type == "cuda" else 16) if options.batch == "auto" else options.batch
    journal = _journal(config, task, display_name, shown, settings, adapter, batch)
    model: Mapping[str, Any] = adapter.describe_language_model(task.test[0]) or {}
    encoder = str(model.get("name") or shown)
    told = trackers.settings_of(config, {"task": display_name, "encoder": encoder, "adapter": shown}, {}, [settings])
    run_id, run_name = run_folder.run_id(config.to_yaml(), started), f"{path_name(encoder)}-{display_name}"
    with trackers.start(options, run_name, run_id, told, wanted=True) as tracking:
        asking = time.monotonic()
        predicted = _predict(task, adapter, batch, journal)
        logger.info(f"{counted(len(task.test), 'example')} answered in {time.monotonic() - asking:.1f} s")
        folder = write_run(
            config,
            task,
            predicted,
            name=display_name,
            protocol={
                "name": task.protocol,
                "adapter": shown,
                "settings": {key: value for key, value in settings.items() if key != "lm"},
                **adapter.frozen,
            },
            encoder={
                "name": encoder,
                "ckpt": CKPT,
                "sha256": None,
                "architecture": "none",
                "clip": {},
                "parameters": None,
            },
            adapter=adapter_record(adapter, shown, settings, task),
            selection=None,
            on_val=(),
            cost=cost,
            device=str(device),
            decoder="none",
            started=started,
            clock=clock,
        )
        trackers.end_run(tracking, folder, options.task)
    return folder


def _refuse_idle(config: Config, adapter: str) -> None:
    """Raises UserError where the adapter needs a video, or a key is given that has no effect without one."""
    options = config.options
    kind = settings_class(adapter)
    if not kind.TEXT_ONLY:
        raise UserError(
            f"ckpt=none: adapter {plugins.display_name(adapter)} needs an encoder's features. A language model alone "
            "answers questions and writes captions, with adapter=multiple_choice or captioner; give an encoder as ckpt="
        )
    given = [f"{section}.{key}" for section in ("clip", "encoder") for key in getattr(config, section)]
    given += [f"data.{key}" for key in ("videos",) if config.data.get(key) is not None]
    given += [f"adapter.{key}" for key in config.adapter if key in IDLE_SETTINGS]
    given += ["controls=true"] if "controls=true" in config.words else []
    defaults = Options(task="", ckpt="")
    given += [key for key in IDLE_OPTIONS if getattr(options, key) != getattr(defaults, key)]
    given += [f"trainer.{f.name}" for f in fields(Trainer) if getattr(config.trainer, f.name) != f.default]
    if given:
        key = {"adapter_from": "adapter.from", "encoder.trust": "trust"}.get(given[0], given[0])
        raise UserError(
            f"{key} has no effect with ckpt=none: no video is read, nothing is trained and no control is scored, the "
            "language model answers as it is; leave it out"
        )
    if options.lm == "scratch":
        raise UserError("lm=scratch is trained on videos, and ckpt=none has none: give the folder of a language model")
    if config.points:
        keys = sorted({key for point in config.points for key in point})
        raise UserError(f"adapter.{keys[0]} has several values, but the adapter is not fitted: give one")


def _predict(task: Task, adapter: Adapter, size: int, journal: Journal) -> Predictions:
    """Predictions for all test examples, in batches; those of an interrupted run are read from its journal."""
    predicted = Predictions({"": {}}, {}, {}, journal)
    predicted.tell_known(len(task.test))

    def answered() -> Any:
        for start in range(0, len(task.test), size):
            examples = task.test[start : start + size]
            if not predicted.recall([""], examples):
                with torch.inference_mode():
                    predictions = ask(adapter, examples, None)
                predicted.add("", predictions)
            yield from examples

    for _ in track(answered(), "predict", len(task.test)):
        continue
    predicted.finalize("", adapter, task.test)
    return predicted


def _journal(
    config: Config, task: Task, name: str, adapter_name: str, settings: Mapping[str, Any], adapter: Adapter, batch: int
) -> Journal:
    """The journal, named by everything that affects the predictions; None with cache=off."""
    if config.options.cache == "off":
        return Journal("")
    identity = {
        "text only": [name, task.version, run_folder.fingerprint(task.test)],
        "adapter": [adapter_name, settings, architecture(adapter), dict(adapter.frozen)],
        "run": [config.options.seed, batch, packages()],
    }
    return Journal(schema.digest(schema.plain(identity)))
