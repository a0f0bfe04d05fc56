"""A trained adapter on disk: `adapters/NAME/{adapter.json, adapter.safetensors}` in a checkpoint's folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from evalkit.errors import UserError
from evalkit.heads.adapter import Adapter
from evalkit.plugins import display_name
from evalkit.weights import checkpoint, strict

_HASH = re.compile("[0-9a-f]{32,}")
# Names of settings in records that were written before they were spelled as they are now.
FORMER_SETTINGS = {"standardise": "standardize"}


def adapter_folder(folder: Path, adapter: str) -> Path:
    """The folder of an adapter's files in a checkpoint's folder; `adapter` is a name, or the file of one's own."""
    return folder / "adapters" / display_name(adapter)


def adapter_state(adapter: Adapter) -> dict[str, torch.Tensor]:
    """The tensors of `Adapter.adapter_state`, detached and contiguous on the CPU."""
    return {name: value.detach().cpu().contiguous() for name, value in adapter.adapter_state().items()}


def save_adapter(adapter: Adapter, folder: Path, record: Mapping[str, Any]) -> None:
    """Writes an adapter's weights and its record, with the hashes of its frozen parts.

    Float32 becomes half precision; what is float64 was solved for, and stays.
    """
    folder.mkdir(parents=True)
    weights = {n: v if v.dtype == torch.float64 else v.half() for n, v in adapter_state(adapter).items()}
    save_file(weights, folder / "adapter.safetensors")
    record = {**record, "frozen": {**adapter.frozen, **record.get("frozen", {})}}
    (folder / "adapter.json").write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")


def adapter_settings(folder: Path) -> dict[str, Any]:
    """The settings that an adapter was trained with; they hold until the user says otherwise.

    Raises:
        UserError: its record is not one that `save_adapter` wrote.
    """
    settings = checkpoint.read_json(folder / "adapter.json").get("settings")
    if not isinstance(settings, dict):
        raise UserError(f"{folder / 'adapter.json'} has no settings, so it is not an adapter that evalkit wrote")
    return {FORMER_SETTINGS.get(str(name), str(name)): value for name, value in settings.items()}


def adapter_tasks(folder: Path) -> list[str]:
    """The tasks whose examples an adapter was trained on, `@mini` of miniatures; none where its record names none."""
    record = checkpoint.read_json(folder / "adapter.json")
    tasks = record.get("tasks", [record.get("task")])
    return [task for task in tasks if isinstance(task, str) and task] if isinstance(tasks, list) else []


def check_classes(folder: Path, digest: str, count: int, task: str) -> None:
    """Checks that a trained adapter, if it is one for classes, is one for these.

    Args:
        folder: its files.
        digest: of the names of the task's classes.
        count: how many they are.
        task: its name.

    Raises:
        UserError: it was trained for others.
    """
    record = checkpoint.read_json(folder / "adapter.json")
    frozen = record.get("frozen")
    if isinstance(frozen, dict) and frozen.get("classes", digest) != digest:
        known = record.get("classes")
        trained = f"{known:,} classes" if isinstance(known, int) else "other classes"
        wanted = f"{count:,}{' others' if known == count else ''}"
        raise UserError(
            f"{folder} was trained for {trained} (task {str(record.get('task'))[:60]}), and task {task} has {wanted}: "
            "train one on it with `evalkit adapt`, or adapter.from=none fits a new one"
        )


def restore_adapter(
    adapter: Adapter, folder: Path, frozen: Mapping[str, str] | None = None, advice: str = "train it again"
) -> None:
    """Loads the weights that `save_adapter` wrote.

    Args:
        adapter: untrained, with the settings that were used for training.
        folder: its files.
        frozen: what it belongs to that is not its own: the encoder and the classes as hashes, windows in words.
        advice: what to do where a frozen part is another.

    Raises:
        UserError: the files are damaged, the shapes differ, a weight is NaN, or a frozen part is not the one it
            was trained with.
    """
    record = checkpoint.read_json(folder / "adapter.json")
    trained_with = record.get("frozen", {})
    if not isinstance(trained_with, dict):
        raise UserError(
            f"{folder / 'adapter.json'}: its frozen is a {type(trained_with).__name__}, wanted hashes by name"
        )
    for part, digest in {**adapter.frozen, **(frozen or {})}.items():
        if (known := trained_with.get(part, digest)) != digest:
            trained, wanted = (
                digest[:12] if _HASH.fullmatch(digest) else digest[:80] for digest in (str(known), digest)
            )
            raise UserError(f"{folder} was trained with {part} {trained}, not with {wanted}: {advice}")
    weights = dict(checkpoint.read_weights(folder / "adapter.safetensors"))
    strict.check_names(adapter_state(adapter), weights, folder)
    strict.check_finite(weights, folder)
    adapter.load_adapter_state(weights)
