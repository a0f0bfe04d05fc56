"""Files of attentive classifiers that V-JEPA's authors trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from evalkit.errors import UserError, counted
from evalkit.weights import checkpoint

QUERIES = ("verb", "noun", "action")  # of V-JEPA 2's classifiers of EPIC-KITCHENS, in their order
# Of V-JEPA 1's classifiers alone: its query's attention has a map of its output, which its forward pass does not use.
UNUSED_OF_V_JEPA_1 = tuple(f"pooler.cross_attention_block.xattn.proj.{kind}" for kind in ("weight", "bias"))


def released_weights(file: Path, index: int | None, classes: int) -> dict[str, Tensor]:
    """The weights of a classifier in a file that the authors' training wrote; V-JEPA 2's has one per point of its grid.

    That of EPIC-KITCHENS has three queries, each with a linear map of its own; it is as many classifiers, of which the
    one with as many classes as the task counts.

    Args:
        file: with `classifiers`, a list of state dicts, or of V-JEPA 1 `classifier`, one.
        index: which of them; None where there is one.
        classes: of the task.

    Raises:
        UserError: the file is missing, damaged or another; or which of its classifiers is meant is not known.
    """
    if not file.is_file():
        raise UserError(f"adapter.probe={file}: no such file")
    state = checkpoint.read_pickle(file)
    held = state if isinstance(state, dict) else {}
    heads = held.get("classifiers", [held["classifier"]] if "classifier" in held else None)
    if not isinstance(heads, list) or not heads or not all(isinstance(head, dict) for head in heads):
        raise UserError(
            f"adapter.probe={file}: wanted `classifiers`, a list, as V-JEPA 2's evaluations write it, or `classifier`, "
            "one, as V-JEPA 1's do"
        )
    if (len(heads) > 1) if index is None else (index not in range(len(heads))):
        which = "add" if index is None else f"adapter.head_index={index} is none; use"
        raise UserError(
            f"adapter.probe={file} holds {len(heads)} classifiers: {which} adapter.head_index=0 to {len(heads) - 1}"
        )
    weights = {name.removeprefix("module."): value for name, value in heads[index or 0].items()}
    if "action_classifier.weight" in weights:
        return _of_one_query(weights, classes, file)
    of_file = len(weights["linear.weight"]) if "linear.weight" in weights else classes
    if of_file != classes:
        raise UserError(
            f"adapter.probe={file} tells {of_file:,} classes apart, and this task has {classes:,}: give a classifier "
            "that was trained on its data set, or leave adapter.probe= out to train one"
        )
    return weights


def _of_one_query(weights: Mapping[str, Tensor], classes: int, file: Path) -> dict[str, Tensor]:
    """Of a classifier with a query each for verb, noun and action, that of so many classes.

    Raises:
        UserError: there is none, or the file is not whole.
    """
    named = [name for name in QUERIES if f"{name}_classifier.weight" in weights]
    counts = {name: len(weights[f"{name}_classifier.weight"]) for name in named}
    queries = weights.get("pooler.query_tokens")
    if queries is None or queries.ndim != 3 or queries.shape[1] != len(named) or classes not in counts.values():
        told = ", ".join(counted(count, name) for name, count in counts.items())
        raise UserError(
            f"adapter.probe={file} tells {told} apart, and this task has {classes:,} classes: data.what= says which "
            "are anticipated, and the lists of data.root= are to be those that the authors had"
        )
    name = next(name for name, count in counts.items() if count == classes)
    place = named.index(name)
    others = tuple(f"{other}_classifier." for other in named if other != name)
    kept = {key.replace(f"{name}_classifier.", "linear."): value for key, value in weights.items()}
    kept["pooler.query_tokens"] = queries[:, place : place + 1]
    return {key: value for key, value in kept.items() if not key.startswith(others)}
