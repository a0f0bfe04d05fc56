"""What the encoder of a run was trained on: by the user's words, its preset, or what `evalkit adapt` wrote down."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from evalkit import encoders
from evalkit.config.config import Config
from evalkit.datasets import training_data
from evalkit.encoders._spec import read_pointer
from evalkit.weights import checkpoint, presets

logger = logging.getLogger("evalkit")


def training_data_of(config: Config) -> dict[str, str] | None:
    """What of which data sets the encoder was trained on; None where that is not known.

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
    """What a checkpoint was trained on; of an encoder that `evalkit adapt` trained, also the task of that."""
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
