"""Weights on disk: read safely, loaded strictly, named by a hash of their content."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evalkit.errors import UserError
from evalkit.runtime import bounded


def read_weights(path: Path, *, prefix: str = "", trust: bool = False) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors file, or a .pt / .pth / .ckpt / .bin file.

    Args:
        path: the file.
        prefix: only the tensors whose names start so, the prefix removed; `model.encoder.` takes the encoder out of a
            training checkpoint.
        trust: see `read_pickle`.

    Raises:
        UserError: the file is missing, damaged, of another kind, a pickle that would run code, or has no such prefix.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    state: Any
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"cannot read weights {path}: {_line(error)}") from error
    elif path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        state = read_pickle(path, trust=trust)
        state = state.get("state_dict", state) if isinstance(state, dict) else state
    else:
        raise UserError(f"cannot read weights {path}: {path.suffix or 'no'} ending, wanted .safetensors, .pt or .pth")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"cannot read weights {path}: it holds no state_dict (a mapping of names to tensors)")
    if not prefix:
        return state
    selected = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if selected and all(name.startswith(".") for name in selected):
        raise UserError(f"encoder.prefix={prefix}: every name goes on with a dot. Did you mean {prefix}.?")
    if not selected:
        known = sorted({f"{name.split('.', 2)[0]}.{name.split('.', 2)[1]}." for name in state if name.count(".") > 1})
        raise UserError(
            f"encoder.prefix={prefix}: no weight of {path} starts so. Found: {', '.join(known[:10]) or 'no prefixes'}"
        )
    return selected


def read_pickle(path: Path, *, trust: bool = False) -> Any:
    """Read a .pt file without running code from it; `trust` reads any pickle, which can run code.

    Raises:
        UserError: the file is damaged, or a pickle that would run code and is not trusted.
    """
    try:
        bounded.check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol: it loads or is refused
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"refused {path}: it is damaged, or a pickle that can run code when loaded. Save only its state_dict, best "
            "as safetensors; trust=true loads it all the same, if you trust who made it"
        ) from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise UserError(f"cannot read weights {path}: {type(error).__name__}: {_line(error)}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        UserError: the file is missing or no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {_line(error)}") from error
    if not isinstance(value, dict):
        raise UserError(f"cannot read {path}: wanted a JSON object, found a {type(value).__name__}")
    return value


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], source: object) -> None:
    """Copy weights into a module; every name and shape must fit. Half precision becomes the module's own dtype.

    Raises:
        UserError: names what is missing, unexpected or of another shape: the first ten and the count.
    """
    check_names(module.state_dict(), weights, source)
    module.load_state_dict(dict(weights))


def check_names(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: object) -> None:
    """Check that names and shapes of weights are those wanted.

    Raises:
        UserError: names what is missing, unexpected or of another shape: the first ten and the count.
    """
    problems = [f"missing {name}" for name in wanted if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in wanted]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    raise_problems(problems, source)


def raise_problems(problems: Sequence[str], source: object) -> None:
    """Raise UserError listing the first ten problems, if any.

    Args:
        problems: one line each.
        source: the file or folder of the weights, for the message.

    Raises:
        UserError: there are problems; it lists the first ten and their number.
    """
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(f"weights of {source} do not fit the model ({len(problems)}): {'; '.join(problems[:10])}{more}")


def save(module: nn.Module, path: Path, dtype: torch.dtype | None = None) -> None:
    """Write a module's weights as safetensors; floats are cast to `dtype`, if it is given."""
    state = {
        name: (value.to(dtype) if dtype and value.is_floating_point() else value).cpu().contiguous()
        for name, value in module.state_dict().items()
    }
    save_file(state, path)


def sha256(module: nn.Module) -> str:
    """SHA-256 of a module's weights: names, dtypes, shapes and content, independent of order and file format."""
    return digest(module.state_dict())


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights by name, as `sha256` of a module that holds them."""
    sha = hashlib.sha256()
    for name, value in sorted(weights.items()):
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
