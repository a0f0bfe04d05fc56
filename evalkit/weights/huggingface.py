"""transformers' models: fetched from the hub, and loaded strictly."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from evalkit.errors import UserError, in_line, one_line, suggest
from evalkit.weights import checkpoint, peft_adapters, strict

# Weights by a model's own names, from elsewhere than its folder; None means the folder's.
Weights = Mapping[str, Tensor] | None

# Files that are fetched; flax, tensorflow and onnx copies, pictures and training states are not.
_FILES = ["*.json", "*.safetensors", "pytorch_model*.bin", "*.model", "*.txt", "*.npz"]


def fetch(name: str) -> Path:
    """Fetch a model from the Hugging Face hub, on first use, and return its local folder.

    Args:
        name: `organization/model`, or `organization/model@revision`.

    Raises:
        UserError: there is no such model, or the hub cannot be reached and the model is not in the local cache; or it
            is an adapter of PEFT.
    """
    from huggingface_hub import constants, snapshot_download

    model, _, revision = name.partition("@")
    try:
        folder = Path(snapshot_download(model, revision=revision or None, allow_patterns=_FILES, etag_timeout=10))
    except Exception as error:  # the hub's, the network's, the disk's
        told = f", and the hub does not give it: {one_line(error, 200)}. Give"
        if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE") == "1":
            told = ", nor in the cache of the hub, and HF_HUB_OFFLINE is set: unset it, give"
        mend = f"a local folder, or fetch it where there is a network: hf download {model}"
        raise UserError(f"{name}: no such file or folder here{told} {mend}") from error
    peft_adapters.refuse_folder(folder, name)
    return folder


def is_cached(name: str) -> bool:
    """Whether a model of the hub, with all of its weights, is in the local cache; `name` as of `fetch`."""
    from huggingface_hub import try_to_load_from_cache

    model, _, revision = name.partition("@")
    config = try_to_load_from_cache(model, "config.json", revision=revision or None)
    return isinstance(config, str) and checkpoint.is_whole(Path(config).parent)


def is_hub_name(word: str) -> bool:
    """Whether a word looks like `organization/model`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", word, re.ASCII) is not None and not word.startswith(".")


def load(
    model: Any,
    folder: Path,
    left_out: str = "",
    weights: Weights = None,
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Any:
    """Load a transformers model from its folder, every weight in place, in evaluation mode.

    Args:
        model: the class, such as transformers.CLIPModel.
        folder: with config.json and the weights; pickled weights are read without running code.
        weights: by their names in the model, in place of the folder's own.
        left_out: pattern of weights that the file may hold and the encoder has no use for: heads, decoders.
        dtype: of the weights in memory.
        settings: for the class.

    Raises:
        UserError: weights are missing, unexpected or of another shape, or the files cannot be read.
    """
    if weights is None:
        peft_adapters.refuse_folder(folder, str(folder))
    config, given = read_config(folder), {} if weights is None else {"state_dict": dict(weights)}
    files = [file for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern)]
    stored = sum(value.nbytes for value in weights.values()) if weights else sum(file.stat().st_size for file in files)
    try:
        with quietly():  # its report of what it could not place is our error
            make = getattr(model, "from_config", model)
            strict.refuse_oversized(lambda: make(config, **settings), stored, folder / "config.json")
            module, info = model.from_pretrained(
                folder if weights is None else None,
                **given,
                config=config,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                **settings,
            )
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"refused {folder}: its file of weights {checkpoint.held_code(error)}. Save the weights again "
            "with save_pretrained, as safetensors"
        ) from error
    except Exception as error:  # its own, safetensors', json's
        raise UserError(f"cannot read {folder} as {model.__name__}: {one_line(error)}") from error
    unexpected = [name for name in info["unexpected_keys"] if not (left_out and re.match(left_out, name))]
    peft_adapters.refuse_names(unexpected, folder)
    advice = ""
    if weights is not None or len(files) == 1:
        prefix, file = getattr(weights, "prefix", ""), files[0] if weights is None else None
        advice = strict.prefix_advice(info["missing_keys"], unexpected, prefix, file)
    strict.raise_problems(
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
        advice,
    )
    strict.check_finite(dict(module.named_parameters()), folder)
    return module.eval()


def read_config(folder: Path, **changes: Any) -> Any:
    """Read the configuration in a folder with transformers; code from the folder is never run.

    Raises:
        UserError: transformers cannot read it, or does not know its kind.
    """
    from transformers import AutoConfig

    values = checkpoint.read_json(folder / "config.json")
    refuse_code(values, folder)
    try:
        refuse_huge(values)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **changes)
    except Exception as error:
        raise UserError(f"cannot read {folder / 'config.json'}: {one_line(error)}") from error
    refuse_kernels(config, str(folder))
    return config


def refuse_huge(values: Mapping[str, Any], least: int = -(2**31)) -> None:
    """Refuse a configuration with implausibly large numbers, before building a model.

    Args:
        values: the configuration.
        least: the smallest whole number that it may hold.

    Raises:
        ValueError: it has more layers than 1,000, or a whole number above 2 to the 31st or below `least`.
    """
    waiting: list[tuple[str, Any]] = [("", values)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{place}.{name}".removeprefix("."), entry) for name, entry in value.items()]
        elif isinstance(value, int) and not least <= value <= (1000 if re.search("layers|depth", place) else 2**31):
            raise ValueError(f"{place[:80]}={str(value)[:30]}: no model has so {'few' if value < least else 'many'}")


def refuse_code(values: Mapping[str, Any], folder: Path) -> None:
    """Refuse a model whose class is Python code in its own folder or repository (`auto_map`).

    Args:
        values: the configuration.
        folder: that holds it, for the message.

    Raises:
        UserError: it is one, and transformers has no model of its kind.
    """
    from transformers import CONFIG_MAPPING

    kind = values.get("model_type")
    if "auto_map" in values and not (isinstance(kind, str) and kind in CONFIG_MAPPING):
        raise UserError(
            f"{folder} is a model whose code lies beside its weights (auto_map in its config.json), which evalkit "
            f"never runs: wanted a kind that transformers has itself, and {str(kind)[:60]!r} is none"
        )


@contextmanager
def without_code() -> Iterator[None]:
    """Context in which other packages cannot run code that comes with a model.

    open_clip hands transformers what a model's open_clip_config.json has as `tokenizer_kwargs`, which may say that its
    code is trusted; older versions of timm read pickles that run code.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    def distrusting(read: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *words, **settings: read(*words, **{**settings, "trust_remote_code": False})

    with ExitStack() as stack:
        for reader, name in (
            (AutoConfig, "from_pretrained"),
            (AutoTokenizer, "from_pretrained"),
            (AutoModel, "from_pretrained"),
            (AutoModel, "from_config"),
        ):
            stack.enter_context(patch.object(reader, name, distrusting(getattr(reader, name))))
        stack.enter_context(patch.dict(os.environ, {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}))
        yield


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

    with quietly():
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


@contextmanager
def quietly() -> Iterator[None]:
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
