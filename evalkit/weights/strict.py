"""Weights against the model that they are for: names, shapes and values must fit, else a line says what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evalkit.errors import UserError
from evalkit.weights import peft_adapters
from evalkit.weights.checkpoint import Weights


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
