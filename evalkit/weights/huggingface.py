"""transformers' models: fetched from the hub, loaded strictly, with the clip that their preprocessor's files state."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evalkit.api import Clip
from evalkit.errors import UserError, in_line, one_line, suggest
from evalkit.weights import checkpoint

# Mean and std of most vision models; frames and size are each model's own.
IMAGENET = Clip(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

# Weights by a model's own names, from elsewhere than its folder; None means the folder's.
Weights = Mapping[str, Tensor] | None

# Files that are fetched; flax, tensorflow and onnx copies, pictures and training states are not.
_FILES = ["*.json", "*.safetensors", "pytorch_model*.bin", "*.model", "*.txt", "*.npz"]


def fetch(name: str) -> Path:
    """Fetch a model from the Hugging Face hub, on first use, and return its local folder.

    Args:
        name: `organization/model`, or `organization/model@revision`.

    Raises:
        UserError: there is no such model, or the hub cannot be reached and the model is not in the local cache.
    """
    from huggingface_hub import snapshot_download

    model, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(model, revision=revision or None, allow_patterns=_FILES, etag_timeout=10))
    except Exception as error:  # the hub's, the network's, the disk's
        raise UserError(
            f"{name}: no such file or folder here, and the hub does not give it: {one_line(error, 200)}. Give a local "
            f"folder, or fetch it where there is a network: hf download {model}"
        ) from error


def is_hub_name(word: str) -> bool:
    """Whether a word looks like `organization/model`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", word) is not None and not word.startswith(".")


def load(model: Any, folder: Path, left_out: str = "", weights: Weights = None, **settings: Any) -> Any:
    """Load a transformers model from its folder, every weight in place, float32, in evaluation mode.

    Args:
        model: the class, such as transformers.CLIPModel.
        folder: with config.json and the weights; pickled weights are read without running code.
        weights: by their names in the model, in place of the folder's own.
        left_out: pattern of weights that the file may hold and the encoder has no use for: heads, decoders.
        settings: for `from_pretrained`.

    Raises:
        UserError: weights are missing, unexpected or of another shape, or the files cannot be read.
    """
    given = {} if weights is None else {"state_dict": dict(weights), "config": read_config(folder)}
    try:
        with _quietly():  # its report of what it could not place is our error
            module, info = model.from_pretrained(
                folder if weights is None else None,
                **given,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                **settings,
            )
    except pickle.UnpicklingError as error:
        raise UserError(
            f"refused {folder}: its weights are damaged, or a pickle that can run code when loaded. Save them again "
            "with save_pretrained, as safetensors"
        ) from error
    except Exception as error:  # its own, safetensors', json's
        raise UserError(f"cannot read {folder} as {model.__name__}: {one_line(error)}") from error
    unexpected = [name for name in info["unexpected_keys"] if not (left_out and re.match(left_out, name))]
    checkpoint.raise_problems(
        [
            *(f"missing {name}" for name in sorted(info["missing_keys"])),
            *(f"unexpected {name}" for name in sorted(unexpected)),
            *(
                f"{name} is {tuple(shape)}, wanted {tuple(wanted)}"
                for name, shape, wanted in sorted(info["mismatched_keys"])
            ),
            *info["error_msgs"],
        ],
        folder,
    )
    return module.eval()


def read_config(folder: Path, **changes: Any) -> Any:
    """Read the configuration in a folder with transformers; code from the folder is never run.

    Raises:
        UserError: transformers cannot read it, or does not know its kind.
    """
    from transformers import AutoConfig

    refuse_code(folder, str(folder))
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **changes)
    except Exception as error:
        raise UserError(f"cannot read {folder / 'config.json'}: {one_line(error)}") from error
    refuse_kernels(config, str(folder))
    return config


def refuse_code(folder: Path, name: str) -> None:
    """Refuse a model whose class is Python code in its own folder or repository (`auto_map`).

    Raises:
        UserError: it is one, and transformers has no model of its kind.
    """
    from transformers import CONFIG_MAPPING

    values = checkpoint.read_json(folder / "config.json")
    kind = values.get("model_type")
    if "auto_map" in values and kind not in list(CONFIG_MAPPING.keys()):
        raise UserError(
            f"{name} is a model whose code lies beside its weights (auto_map in its config.json), which evalkit never "
            f"runs: wanted a kind that transformers has itself, and {str(kind)[:60]!r} is none"
        )


def refuse_kernels(config: Any, name: str) -> None:
    """Refuse attention kernels from the hub (`organization/kernel`), which transformers would fetch and run.

    Raises:
        UserError: the configuration, or that of a part of the model, names such.
    """
    parts = [config, *(getattr(config, part, None) for part in getattr(config, "sub_configs", {}))]
    for key in ("attn_implementation", "experts_implementation"):
        for part in parts:
            value = getattr(part, f"_{key}", None)
            if isinstance(value, str) and "/" in value:
                raise UserError(
                    f"{name}: its config.json asks for {key} {value[:60]!r}, code from the hub, which evalkit never "
                    "runs: take it out of config.json"
                )


def make_config(model_type: str, values: dict[str, Any]) -> Any:
    """Make a configuration of transformers from its own names and values; the others are the family's defaults.

    Raises:
        TypeError: there is no such name, which transformers itself would keep and not use.
        ValueError: transformers does not take a value.
    """
    from transformers import AutoConfig

    with _quietly():
        _refuse_strangers(AutoConfig.for_model(model_type), values, "")
        try:
            return AutoConfig.for_model(model_type, **values)
        except Exception as error:  # its own checks of types raise errors of their own
            raise ValueError(in_line(error)) from error


def _refuse_strangers(default: Any, values: dict[str, Any], place: str) -> None:
    known = {*default.to_dict(), *default.attribute_map}
    for name, value in values.items():
        if name not in known:
            raise TypeError(f"unknown setting {place}{name}.{suggest(name, known)}")
        part = getattr(default, name, None)
        if hasattr(part, "to_dict") and isinstance(value, dict):  # a tower's own configuration
            _refuse_strangers(part, value, f"{place}{name}.")


def read_clip(folder: Path, default: Clip, shift: float = 0.0) -> Clip:
    """Read the clip that the preprocessor files of a folder state; what they do not state is as in `default`.

    Args:
        folder: with preprocessor_config.json, video_preprocessor_config.json or processor_config.json.
        default: of the family, with the frames and the size of the model's configuration.
        shift: added after scaling, where the file does not say; ViViT's processor subtracts 1.

    Raises:
        UserError: a file states something that no clip can express.
    """
    values = _preprocessor(folder)
    cut = values.get("do_center_crop", "crop_size" in values)
    size = values.get("crop_size") if cut else values.get("size")
    if isinstance(size, dict):
        if size.get("height") != size.get("width"):
            raise UserError(f"the preprocessor's file in {folder} states a size of {size}: wanted a square")
        size = size.get("height", size.get("shortest_edge"))
    mean, std = default.mean, default.std
    low, high = default.value_range
    try:
        if not values.get("do_normalize", True):
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        elif "image_mean" in values and "image_std" in values:
            mean, std = _three(values["image_mean"]), _three(values["image_std"])
            if not all(value > 0 for value in std):
                raise ValueError(f"image_std={list(std)} is not above 0")
        if not values.get("do_rescale", True):
            low, high = 0.0, 255.0
        elif "rescale_factor" in values:
            low = shift if "offset" not in values else -1.0 if values["offset"] else 0.0
            high = 255 * float(values["rescale_factor"]) + low
        scaled = values.get("size")
        squash = isinstance(scaled, dict) and "height" in scaled and not cut
        resize = "squash" if squash else "crop" if isinstance(scaled, dict) else default.resize
        return replace(
            default, size=int(size or default.size), mean=mean, std=std, value_range=(low, high), resize=resize
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"the preprocessor's file in {folder} states no clip: {error}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence transformers' messages and progress bars."""
    from transformers.utils import logging

    talk: Any = logging  # its functions are not typed
    verbosity, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity_error()
    talk.disable_progress_bar()
    try:
        yield
    finally:
        talk.set_verbosity(verbosity)
        if bars:
            talk.enable_progress_bar()


def _preprocessor(folder: Path) -> dict[str, Any]:
    for name in ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            values = checkpoint.read_json(folder / name)
            nested = values.get("video_processor") or values.get("image_processor") or values
            if nested is not values or "size" in nested or "image_mean" in nested:
                return {key: value for key, value in nested.items() if value is not None}
    return {}


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = [float(value) for value in values]
    return red, green, blue
