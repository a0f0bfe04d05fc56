"""Descriptions for the record: the protocol, the encoder with its name and training data, the adapter."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import evalkit
from evalkit import encoders
from evalkit.api import Task
from evalkit.canary.finding import Finding
from evalkit.config.config import Config
from evalkit.config.options import Options, Trainer
from evalkit.datasets import training_data
from evalkit.datasets.videos import relative_names
from evalkit.encoders._spec import read_pointer
from evalkit.features.duplicates import shared_videos
from evalkit.features.exchange.module import PREFIX, FeatureFiles
from evalkit.heads.adapter import Adapter
from evalkit.pipeline.setup import Experiment
from evalkit.weights import checkpoint, presets, trained_adapter

logger = logging.getLogger("evalkit")

AT_HAND = 400_000  # videos, so many of which are known by their bytes once they are encoded
MOST_PAIRS = 5  # of videos that two splits share, in the record

# What many checkpoints are called, so that their folder tells more; and folders that tell nothing.
WEIGHT_FILES = {"model", "pytorch_model", "open_clip_pytorch_model", "open_clip_model", "weights"}
STATES = {"last", "best", "latest", "final", "checkpoint", "encoder"}
CHECKPOINT_FOLDERS = {"checkpoints", "checkpoint", "ckpts", "ckpt", "weights"}
# Settings that came later, with the value that all runs had before: left out, so that protocols are the same as then.
LATER = {"template": "auto", "stop": "question", "lm_precision": "32", "dual_softmax": 0.0, "rerank": 0}


def protocol_of(experiment: Experiment, trainer: Trainer) -> dict[str, Any]:
    """Everything that defines the score: views, adapter and its settings, few-shot subset."""
    return {
        "name": experiment.task.protocol,
        "views": asdict(experiment.extractor.views),
        "augment": asdict(experiment.augment) if experiment.augment else None,
        "adapter": experiment.adapter_name,
        "settings": {key: value for key, value in recorded(experiment.settings).items() if key != "lm"},
        **({"transductive": True} if experiment.adapter.transductive else {}),
        **experiment.adapter.frozen,  # a language model by its weights, wherever it lies
        **({"shots": trainer.shots} if trainer.shots else _prescribed_shots(experiment.task)),
        **({"share": trainer.share} if trainer.share < 1 else {}),
    }


def _prescribed_shots(task: Task) -> dict[str, Any]:
    return {"shots": task.shots, "shots_prescribed": True} if task.shots else {}


def encoder_record(
    experiment: Experiment, config: Config, findings: Sequence[Finding], trained_on: Mapping[str, str] | None
) -> dict[str, Any]:
    """The encoder's part of the record."""
    runner, file = experiment.encoder, Path(config.options.ckpt).expanduser()
    features = {"features": runner.module.record} if isinstance(runner.module, FeatureFiles) else {}
    training = checkpoint.training_progress(file) if config.module is None else {}
    return {
        "name": encoder_name(config.options),
        "ckpt": config.options.ckpt,
        "sha256": runner.sha256,
        "architecture": type(runner.module).__name__,
        "clip": asdict(runner.module.clip) if runner.module.clip.frames else {},
        "parameters": sum(p.numel() for p in runner.module.parameters()),
        "settings": {**config.encoder, "precision": runner.precision, "batch": runner.batch, **features},
        "canary": [finding._asdict() for finding in findings],
        **({"training": training} if training else {}),
        **({} if trained_on is None else {"trained_on": trained_on}),
    }


def recorded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an adapter as protocol and record have them: without the usual values of later ones."""
    return {key: value for key, value in settings.items() if key not in LATER or value != LATER[key]}


def adapter_record(
    adapter: Adapter,
    name: str,
    settings: Mapping[str, Any],
    task: Task,
    trained_on: Sequence[str] = (),
    **more: int | None,
) -> dict[str, Any]:
    """The adapter's part of the record, with the tasks that loaded weights were trained on, and the language model."""
    language_model = adapter.describe_language_model(task.test[0])
    return {
        "name": name,
        "settings": {**settings, **adapter.frozen},
        "trainable_parameters": sum(value.numel() for value in trained_adapter.adapter_state(adapter).values()),
        **({"trained_on": [*trained_on]} if trained_on else {}),
        **({} if language_model is None else {"language_model": language_model}),
        **({"canary": [finding._asdict() for finding in adapter.findings]} if adapter.findings else {}),
        **more,
    }


def place(folder: Path | None) -> str:
    """Where an adapter came from; what evalkit ships is named within it, not by where it is installed."""
    home = Path(evalkit.__file__).parent
    if folder is None or not folder.is_relative_to(home):
        return str(folder or "")
    return str(folder.relative_to(home.parent))


def encoder_name(options: Options) -> str:
    """The encoder's name in a run: `encoder.name=`, or derived from the checkpoint, safe for any file system.

    A folder gives its name. A file of weights that all models call alike gives its folder's; one of training,
    checkpoints/last.ckpt or epoch=9.ckpt, the run's folder and its own.
    """
    path = Path(options.ckpt.removeprefix(PREFIX)).expanduser()
    if options.encoder_name or not path.is_file():
        return path_name(options.encoder_name or path.name or options.ckpt)
    folders = [name for name in reversed(path.absolute().parent.parts) if name.lower() not in CHECKPOINT_FOLDERS]
    if path.stem.lower() in WEIGHT_FILES:
        return path_name(folders[0])
    return path_name(
        f"{folders[0]}-{path.stem}" if path.suffix == ".ckpt" or path.stem.lower() in STATES else path.stem
    )


def path_name(name: str) -> str:
    """A name made safe for any file system."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name).strip(".") or "encoder"


def shared_with_train(task: Task, identified: bool) -> dict[str, Any]:
    """The test videos that train or val has, too, as the record holds them; empty where there are none.

    Args:
        task: that was fitted and tested.
        identified: the run knows its videos by their bytes, so that copies under other names are found; else by path.
    """
    train = [*task.train, *task.val]
    by_path = not identified or len({example.video for example in (*train, *task.test)}) > AT_HAND
    pairs = shared_videos({"train": train, "test": task.test}, by_path)
    if not pairs:
        return {}
    examples = [*train, *task.test]
    names = dict(zip((example.video for example in examples), relative_names(examples), strict=True))
    first = [{"train": names[in_train], "test": names[in_test]} for _, in_train, _, in_test in pairs[:MOST_PAIRS]]
    return {"videos": len({in_test for *_, in_test in pairs}), "first": first}


def training_data_of(config: Config) -> dict[str, str] | None:
    """The data sets that the encoder was trained on, and what was used of each; None if unknown.

    Raises:
        UserError: `trained_on=` is wrong.
    """
    if word := config.options.trained_on:
        return training_data.parse(word)
    return None if config.module is not None else _of_checkpoint(config.options.ckpt)


def tell_seen(task: str, trained_on: Mapping[str, str] | None) -> None:
    """Notes that the encoder was trained on data of the task."""
    if seen := training_data.seen(task, trained_on or {}):
        logger.info(f"the encoder was trained on {training_data.in_words(seen)}, whose videos task {task} has")


def _of_checkpoint(ckpt: str, via: tuple[Path, ...] = ()) -> dict[str, str] | None:
    """The training data of a checkpoint; for an encoder trained by `evalkit adapt`, including that task."""
    folder = encoders.folder_of(ckpt)
    if folder is None or ckpt == "demo":
        return presets.trained_on(ckpt)
    if (folder / "encoder.json").is_file():  # an adapter's folder, which only points to the frozen encoder
        file = folder.resolve() / "encoder.json"
        return _of_checkpoint(read_pointer(file, via)["ckpt"], (*via, file))
    for file in sorted(folder.glob("adapters/*/adapter.json")):
        if isinstance(stored := checkpoint.read_json(file).get("trained_on"), dict):
            return training_data.read(stored)
    return None
