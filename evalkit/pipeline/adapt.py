"""`evalkit adapt`: trains an adapter on a task's train split and saves it in a folder that `ckpt=` accepts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit import encoders
from evalkit.config.config import Config
from evalkit.datasets import training_data
from evalkit.errors import UserError
from evalkit.pipeline import preflight
from evalkit.pipeline.described import training_data_of
from evalkit.pipeline.runner import tracked
from evalkit.pipeline.setup import Experiment, frozen_parts, prepare
from evalkit.pipeline.training.fit import fit_adapter
from evalkit.results.schema import plain
from evalkit.runtime import notes
from evalkit.runtime.atomic import hidden_beside, rename
from evalkit.runtime.filesystem import check_writable
from evalkit.runtime.ranks import ALONE, Ranks
from evalkit.weights import trained_adapter


def adapt(config: Config, ranks: Ranks = ALONE) -> Path:
    """Trains the adapter; the folder holds what it learned, and the encoder.

    The encoder is written whole where it was trained into a new one, else as a pointer to its checkpoint with the hash
    of its weights.

    Args:
        config: of the adaptation.
        ranks: this process's place among those that share it: each encodes its share, and the first trains and writes.

    Raises:
        UserError: the folder is taken, or the task has no train split.
    """
    out = config.options.out
    if _is_taken(out):
        raise UserError(f"out={out} exists and is not empty; nothing is overwritten: name another folder")
    check_writable(out.absolute().parent, f"out={out}")  # now rather than after hours
    with prepare(config, ranks) as experiment:
        _adapt(config, experiment, out)
        ranks.wait()
    return out


def _is_taken(out: Path) -> bool:
    """Whether there is a file, or something in the folder."""
    return out.exists() and (not out.is_dir() or any(out.iterdir()))


def _adapt(config: Config, experiment: Experiment, out: Path) -> None:
    if not experiment.task.train:
        raise UserError(f"task {experiment.name} has no train split to adapt on; adapt on another task")
    if experiment.adapter.saves_encoder:
        _spec(config)  # fails now rather than after hours
    elif not trained_adapter.adapter_state(experiment.adapter):
        raise UserError(
            f"adapter {experiment.adapter_name} learns no weights that could be written: evalkit run takes it as it is"
        )
    if experiment.settings.get("epochs") == 0:
        raise UserError("adapter.epochs=0: nothing would be learned that could be written; give 1 or more")
    if experiment.ranks.first and config.options.canary and not experiment.retuned:
        preflight.check_encoder(experiment, config)
    experiment.ranks.wait()
    with tracked(config, experiment, datetime.now(UTC)) as experiment.trackers:
        selection, fit_s = fit_adapter(experiment, config.trainer, config.options.seed)
        if experiment.ranks.first:
            _write(config, experiment, selection, out)
            costs = {f"cost/training/{key}": value for key, value in (experiment.training or {}).items()}
            numbers = {"fit/val_kept": selection["val_score"], "cost/fit_s": fit_s, **costs}
            folder = trained_adapter.adapter_folder(out, experiment.adapter_name)
            experiment.trackers.end(numbers, [folder / "adapter.json"])


def _write(config: Config, experiment: Experiment, selection: Mapping[str, Any], out: Path) -> None:
    """Writes the trained adapter; returns its folder and a line that says which epoch was kept."""
    with hidden_beside(out) as hidden:
        hidden.mkdir()
        record = {
            "adapter": experiment.adapter_name,
            "settings": experiment.settings,
            "task": experiment.name,
            "tasks": _tasks(experiment),
            "classes": len(experiment.task.classes),
            "selection": selection,
            "cost": {"training": experiment.training},
            "config": config.to_yaml(),
            "frozen": frozen_parts(experiment.adapter, experiment.task, experiment.encoder.sha256),
        }
        if experiment.adapter.saves_encoder:
            used = {"contrastive": "captions", "masked_distillation": "videos"}.get(experiment.adapter_name, "labels")
            record["trained_on"] = {**(training_data_of(config) or {}), **dict.fromkeys(_tasks(experiment), used)}
        trained_adapter.save_adapter(
            experiment.adapter, trained_adapter.adapter_folder(hidden, experiment.adapter_name), record
        )
        if experiment.adapter.saves_encoder:
            encoders.save_encoder(experiment.encoder.module, _spec(config), hidden)
        else:
            local = Path(config.options.ckpt).expanduser()
            pointer = {
                "ckpt": str(local.absolute()) if local.exists() else config.options.ckpt,
                "seed": config.options.seed,
                "settings": plain(config.encoder),
                "sha256": experiment.encoder.sha256,
            }
            (hidden / "encoder.json").write_text(json.dumps(pointer, indent=2) + "\n", encoding="utf-8")
        try:
            rename(hidden, out)
        except OSError as error:
            if not _is_taken(out):
                raise
            raise UserError(f"out={out} was written while this training ran; nothing is overwritten") from error
    chosen = selection["chosen"]
    if notes.are_shown():
        print(f"kept epoch {chosen['epoch']} of {chosen['epochs']}: {selection['val_score']:.1f} on val")
    print(out)


def _tasks(experiment: Experiment) -> list[str]:
    """The tasks that are trained on, of a mixture its own, as `evalkit.datasets.training_data` names them."""
    mini = training_data.MINI if experiment.name.endswith(training_data.MINI) else ""
    return [f"{name}{mini}" for name in experiment.task.mixture or ()] or [experiment.name]


def _spec(config: Config) -> encoders.Spec:
    """The specification of the encoder that was trained, with the settings and the tokenizer that the words gave."""
    return encoders.spec_of(config.options.ckpt, config.encoder.get("tokenizer"), settings=config.encoder)
