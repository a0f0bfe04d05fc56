"""What an adapter learned, on disk: `adapters/NAME/{adapter.json, adapter.safetensors}` in a checkpoint's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from evalkit.errors import UserError
from evalkit.plugins import display_name
from evalkit.weights import checkpoint


def adapter_folder(folder: Path, adapter: str) -> Path:
    """Where an adapter's files lie in a checkpoint's folder; `adapter` is a name, or the file of one's own."""
    return folder / "adapters" / display_name(adapter)


def adapter_state(adapter: nn.Module) -> dict[str, torch.Tensor]:
    """Trainable parameters, without those of an encoder, which is a checkpoint of its own.

    An adapter whose file should hold something else has `adapter_state()` itself, and `load_adapter_state(weights)`
    where these are not parameters of its own.
    """
    if own := getattr(adapter, "adapter_state", None):
        parameters = own()
    else:
        trainable = {name: value for name, value in adapter.named_parameters() if value.requires_grad}
        parameters = {name: value for name, value in trainable.items() if not name.startswith("encoder.")}
    return {name: value.detach().cpu().contiguous() for name, value in parameters.items()}


def saves_encoder(adapter: object) -> bool:
    """Whether what it trained of the encoder is a new checkpoint, for `ckpt=`, and not part of what it learned."""
    return bool(getattr(adapter, "trains_encoder", False)) and not hasattr(adapter, "adapter_state")


def save_adapter(adapter: nn.Module, folder: Path, record: Mapping[str, Any]) -> None:
    """Writes what an adapter learned and how it came to be, with the hashes of its frozen parts.

    Float32 becomes half precision; what is float64 was solved for, and stays.
    """
    folder.mkdir(parents=True)
    weights = {n: v if v.dtype == torch.float64 else v.half() for n, v in adapter_state(adapter).items()}
    save_file(weights, folder / "adapter.safetensors")
    record = {**record, "frozen": {**getattr(adapter, "frozen", {}), **record.get("frozen", {})}}
    (folder / "adapter.json").write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")


def adapter_settings(folder: Path) -> dict[str, Any]:
    """The settings that an adapter was trained with; they hold until the user says otherwise."""
    return dict(checkpoint.read_json(folder / "adapter.json")["settings"])


def restore_adapter(adapter: nn.Module, folder: Path, frozen: Mapping[str, str] | None = None) -> None:
    """Puts back what an adapter learned.

    Args:
        adapter: untrained, with the settings that were used for training.
        folder: its files.
        frozen: hashes of what it belongs to that is not its own: the encoder, the classes.

    Raises:
        UserError: the files are damaged, the shapes differ, or a frozen part is not the one it was trained with.
    """
    record = checkpoint.read_json(folder / "adapter.json")
    trained_with = record.get("frozen", {})
    for part, digest in {**getattr(adapter, "frozen", {}), **(frozen or {})}.items():
        if (known := trained_with.get(part, digest)) != digest:
            raise UserError(
                f"{folder} was trained with {part} {str(known)[:12]}, not with {digest[:12]}: train it again"
            )
    weights = checkpoint.read_weights(folder / "adapter.safetensors")
    own = adapter_state(adapter)
    checkpoint.check_names(own, weights, folder)
    if load_adapter_state := getattr(adapter, "load_adapter_state", None):
        load_adapter_state(weights)
        return
    parameters = dict(adapter.named_parameters())
    with torch.no_grad():
        for name in own:
            parameters[name].copy_(weights[name])
