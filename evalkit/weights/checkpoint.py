"""Weights on disk: read safely, written, named by a hash of their content."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evalkit.errors import UserError, printable
from evalkit.runtime import bounded
from evalkit.weights import peft_adapters

logger = logging.getLogger("evalkit")

# Of a training state: where weights lie, the first that is there; and what holds tensors that are no weights.
PARTS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights")
_NO_WEIGHTS = re.compile(r"opt$|optim|sched|scaler|callbacks|loops|rng|hyper", re.IGNORECASE)
_DEEPEST = 4
MAX_JSON_BYTES = 100_000_000  # of a configuration


class Weights(dict[str, Tensor]):
    """Weights by name, as `read_weights` gives them.

    Attributes:
        prefix: that was taken off their names.
    """

    prefix = ""


def read_weights(path: Path, *, prefix: str = "", trust: bool = False, lora: bool = False) -> Weights:
    """Read tensors by name from a .safetensors file, or a .pt / .pth / .ckpt / .bin file.

    Args:
        path: the file.
        prefix: only the tensors whose names start so, the prefix removed; `model.encoder.` takes the encoder out of a
            training checkpoint. It may start with the part of the training state that holds them: `state_dict_ema.`
            `+vision.` adds it to all names, for a model that wraps what was saved.
        trust: see `read_pickle`.
        lora: what LoRA adds may lie beside the weights: who reads them adds it.

    Raises:
        UserError: the file is missing, damaged, of another kind, a pickle that would run code, or has no such prefix;
            it holds several sets of weights, none of which goes before; or an adapter of PEFT that is not merged.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    state: Any
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"cannot read weights {path}: {_line(error)}") from error
    elif path.suffix in (".pt", ".pth", ".ckpt", ".bin", ".tar"):
        state = read_pickle(path, trust=trust)
        state = state.state_dict() if isinstance(state, nn.Module) else state
    else:
        raise UserError(f"cannot read weights {path}: {path.suffix or 'no'} ending, wanted .safetensors, .pt or .pth")
    sets = weight_sets(state)
    if not sets:
        raise UserError(f"cannot read weights {path}: it holds no state_dict (a mapping of names to tensors)")
    taken = _first_set(sets)
    prefix, _, added = prefix.partition("+")
    names = sets.get(taken, {})
    if prefix and not any(name.startswith(prefix) for name in names):  # it may say which set, too
        names = {f"{part}.{name}": value for part, weights in sets.items() for name, value in weights.items()}
    elif not prefix:
        names = choose_set(sets, path)
    if not lora:
        peft_adapters.refuse_names(names, path)
    for name, value in names.items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            kind = "quantized" if value.is_quantized else "without content" if value.is_meta else "sparse"
            raise UserError(f"cannot read weights {path}: {name[:200]} is {kind}; save the model with dense tensors")
    if not prefix:
        return Weights({added + name: value for name, value in names.items()})
    found = {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}
    selected = Weights({added + name: value for name, value in found.items()})
    selected.prefix = prefix
    if found and all(name.startswith(".") for name in found):
        raise UserError(f"encoder.prefix={prefix}: every name goes on with a dot. Did you mean {prefix}.?")
    if not selected:
        names = sets.get(taken, names)
        known = sorted({f"{name.split('.', 2)[0]}.{name.split('.', 2)[1]}." for name in names if name.count(".") > 1})
        raise UserError(
            f"encoder.prefix={prefix[:200]}: no weight of {path} starts so. Found: "
            f"{', '.join(known[:10]) or 'no prefixes'}"
        )
    return selected


def weight_sets(state: Any, part: str = "") -> dict[str, dict[str, Tensor]]:
    """The sets of weights in what a file holds, by the keys that lead to them, joined by dots; empty for the whole."""
    if not isinstance(state, Mapping) or part.count(".") >= _DEEPEST:
        return {}
    if state and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        return {part: dict(state)}
    sets: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if isinstance(name, str) and not _NO_WEIGHTS.search(name):
            sets |= weight_sets(value, f"{part}.{name}".removeprefix("."))
    return sets


def choose_set(sets: Mapping[str, dict[str, Tensor]], path: Path) -> dict[str, Tensor]:
    """The default set of weights in a file; logs which sets are ignored.

    Raises:
        UserError: none goes before the others.
    """
    taken = _first_set(sets)
    others = [part for part in sets if part != taken]
    advice = "; ".join(f"encoder.prefix={part}. takes {part}" for part in others[:5])
    if taken not in sets:
        raise UserError(f"{path} holds several sets of weights: {', '.join(sets)[:300]}. {advice}")
    if others:
        logger.warning(f"{path}: took {taken}, and not {', '.join(others)[:300]}. {advice}")
    return sets[taken]


def _first_set(sets: Collection[str]) -> str:
    if len(sets) == 1:
        return next(iter(sets))
    return next((part for part in PARTS if part in sets), "none of them")


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
            f"refused {path}: it {held_code(error)}. {_without_objects(path)}; trust=true loads it all the same, if "
            "you trust who made it"
        ) from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise UserError(f"cannot read weights {path}: {type(error).__name__}: {_line(error)}") from error


def held_code(error: pickle.UnpicklingError) -> str:
    """What a refused pickle holds, by the class or function that torch names; nothing of it is imported."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    what = f"holds {printable(named[1][:200])}, which" if named else "is damaged, or a pickle that"
    return f"{what} can run code when loaded"


def _without_objects(path: Path) -> str:
    """How to save what a pickle holds beside objects: of Lightning's, whose weights have a name, by a command."""
    if path.suffix != ".ckpt":
        return "Save only its state_dict, best as safetensors"
    read, kept = (json.dumps(str(file)) for file in (path, path.with_name(f"{path.stem}-weights.ckpt")))
    program = f'import torch; w = torch.load({read}, "cpu", weights_only=False)["state_dict"]; torch.save(w, {kept})'
    return f"If you trust it, save only its weights: python -c {shlex.quote(program)}"


def is_whole(folder: Path) -> bool:
    """Whether a folder holds weights, and all files of weights that an index in it names."""
    named = {name for index in folder.glob("*.index.json") for name in read_json(index)["weight_map"].values()}
    held = {file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".npz")}
    return bool(held) and named <= held


def read_outline(path: Path, *, trust: bool = False) -> dict[str, Tensor]:
    """Names and shapes of a file's default set of weights; values are not read.

    Empty where the file cannot be read: who reads it in earnest says why.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                shapes = {name: file.get_slice(name).get_shape() for name in file.offset_keys()}
            return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        bounded.check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mapped = zipfile.is_zipfile(path)  # so that no value is read
            sets = weight_sets(torch.load(path, map_location="meta", weights_only=not trust, mmap=mapped))
    except Exception:  # a damaged pickle raises almost anything
        return {}
    return sets.get(_first_set(sets), {}) if sets else {}


# Where training checkpoints say how far they are; Lightning's names first.
PROGRESS = {"epoch": ("epoch",), "step": ("global_step", "step", "iteration", "iter")}


def training_progress(path: Path) -> dict[str, int]:
    """`epoch` and `step` as a training checkpoint states them, without its tensors; empty where it states none."""
    if path.suffix not in (".pt", ".pth", ".ckpt", ".bin", ".tar") or not path.is_file():
        return {}
    try:
        bounded.check_archive(path)
        state = torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except Exception:  # whatever its pickle holds: it was read, or refused, as weights before
        return {}
    state = state if isinstance(state, dict) else {}
    found = {name: next((state[key] for key in keys if key in state), None) for name, keys in PROGRESS.items()}
    return {name: value for name, value in found.items() if type(value) is int and value >= 0}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        UserError: the file is missing or no JSON object.
    """
    try:
        value = json.loads(bounded.read_bytes(path, MAX_JSON_BYTES).decode())
    except RecursionError as error:
        raise UserError(f"cannot read {path}: it is nested too deeply") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {_line(error)}") from error
    if not isinstance(value, dict):
        raise UserError(f"cannot read {path}: wanted a JSON object, found a {type(value).__name__}")
    return value


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
