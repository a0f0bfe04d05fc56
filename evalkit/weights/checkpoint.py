"""Weights on disk: read safely, loaded strictly, named by a hash of their content."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evalkit.errors import UserError
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


def shared_prefix(wanted: Collection[str], names: Collection[str]) -> str:
    """The common prefix of the wanted names in a file; empty if there is none or they are missing."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        for k in range(1, len(parts)):
            if ".".join(parts[k:]) in wanted:
                start = ".".join(parts[:k]) + "."
                counts[start] = counts.get(start, 0) + 1
    prefix = max(counts, key=lambda start: (counts[start], -len(start)), default="")
    return prefix if counts.get(prefix, 0) * 2 > len(wanted) else ""


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


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], source: object) -> None:
    """Copy weights into a module; every name and shape must fit. Half precision becomes the module's own dtype.

    Raises:
        UserError: names what is missing, unexpected or of another shape: the first ten and the count.
    """
    check_names(module.state_dict(), weights, source)
    check_finite({name: weights[name] for name, _ in module.named_parameters() if name in weights}, source)
    module.load_state_dict(dict(weights))


def check_finite(weights: Mapping[str, Tensor], source: object) -> None:
    """Check that weights are numbers.

    Raises:
        UserError: one is NaN or infinite; it names the first such tensor.
    """
    for name, value in weights.items():
        if not value.is_floating_point():
            continue
        finite = torch.isfinite(value.float() if value.element_size() == 1 else value)  # torch does not say it of FP8
        if not bool(finite.all()):
            bad = int((~finite).sum())
            raise UserError(
                f"weights of {source}: {name} holds {bad:,} of {value.numel():,} values that are NaN or infinite: its "
                "training went wrong, or the file is damaged"
            )


def check_names(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: object) -> None:
    """Check the names and shapes of weights, and that floating-point weights are stored as floats.

    Raises:
        UserError: names what is missing, unexpected, of another shape or no floats: the first ten and the count.
    """
    problems = [f"missing {name}" for name in wanted if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in wanted]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    problems += [
        f"{name} holds {str(weights[name].dtype).removeprefix('torch.')}, wanted floats"
        for name in wanted
        if name in weights and wanted[name].is_floating_point() and not weights[name].is_floating_point()
    ]
    peft_adapters.refuse_names((name for name in weights if name not in wanted), source)
    advice = ""
    if isinstance(weights, Weights):
        advice = prefix_advice([name for name in wanted if name not in weights], weights, weights.prefix)
    raise_problems(problems, source, advice)


def prefix_advice(missing: Collection[str], names: Collection[str], given: str = "", file: Path | None = None) -> str:
    """Advice on a prefix shared by the names that are missing; empty if there is none.

    Args:
        missing: names of the model.
        names: of the weights.
        given: prefix that was taken off already.
        file: of the weights, where the user named its folder.
    """
    key = f"{f'ckpt={file} ' if file else ''}encoder.prefix="
    if prefix := shared_prefix(missing, names):
        return f"; give {key}{given}{prefix} (all names that the model wants start with {prefix} there)"
    if prefix := shared_prefix(names, missing):
        return f"; give {key}{given}+{prefix} (the model's names start with {prefix}, and those in the file do not)"
    return ""


def raise_problems(problems: Sequence[str], source: object, advice: str = "") -> None:
    """Raise UserError if there are problems, listing ten: missing and unexpected names in turn.

    Args:
        problems: one line each.
        source: the file or folder of the weights, for the message.
        advice: what to do, before the ten.

    Raises:
        UserError: there are problems; it lists ten and their number.
    """
    counts: Counter[str] = Counter()

    def turn(problem: str) -> int:
        kind = problem.partition(" ")[0]
        counts[kind if kind in ("missing", "unexpected") else ""] += 1
        return counts[kind if kind in ("missing", "unexpected") else ""]

    if problems:
        listed = "; ".join(problem[:200] for problem in sorted(problems, key=turn)[:10])
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(f"weights of {source} do not fit the model ({len(problems)}){advice}: {listed}{more}")


def refuse_oversized(make: Callable[[], Any], stored: int, source: object) -> None:
    """Refuse a model that is far larger than its weights file, before allocating memory.

    Args:
        make: makes the model.
        stored: bytes of its weights, at least one for each value; 0 where there are none.
        source: the file or folder that describes it, for the message.

    Raises:
        UserError: it has more than twice as many values as its weights have bytes, and ten million.
    """
    with torch.device("meta"):
        values = sum(value.numel() for value in make().state_dict().values())
    if stored and values > 2 * stored + 10_000_000:  # weights that are not there are told when they are read
        raise UserError(f"{source} describes a model of {values:,} values, and its weights have {stored:,} bytes")


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


def attention_heads(path: Path, dim: int, depth: int, published: Mapping[tuple[int, int], int], given: int) -> int:
    """The attention heads of the model in a file that does not state them: those given, else those of its size.

    Args:
        path: the file.
        dim: its width.
        depth: its layers.
        published: heads by width and depth.
        given: `encoder.heads`; 0 for none.

    Raises:
        UserError: none are given and no such size is published, or the width is not a multiple of those given.
    """
    if given and dim % given:
        raise UserError(f"encoder.heads={given}: {path} is {dim} wide, which is not a multiple of that")
    if heads := given or published.get((dim, depth), 0):
        return heads
    depths = sorted(layers for width, layers in published if width == dim)
    known = f" ({' or '.join(map(str, depths))} layers are: get the file again if it lacks some)" if depths else ""
    raise UserError(
        f"{path} is {dim} wide and {depth} layers deep, no published size{known}, and does not say how many attention "
        "heads it has: encoder.heads="
    )
