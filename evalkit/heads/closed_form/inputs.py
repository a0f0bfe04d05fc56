"""Checks and conversions of features and targets for closed-form probes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.errors import UserError


def blocks(x: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
    """Yield rows of x in float64, at most `rows` at a time, with the index of the first."""
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows].double()


def as_columns(y: Tensor, n: int, classes: int | None) -> Tensor:
    """Check targets and make them columns (N, T), float64."""
    if y.ndim == 1:
        check_labels(y, n, classes)
        return F.one_hot(y, int(classes or 0)).double()
    if y.ndim != 2 or len(y) != n:
        raise UserError(f"targets of shape {tuple(y.shape)} do not fit {n} examples; give (N,) class indices or (N, T)")
    if not torch.isfinite(y).all():
        raise UserError("targets hold NaN or infinity; every target must be a finite number")
    return y.double()


def check_labels(y: Tensor, n: int, classes: int | None) -> None:
    """Check that y holds n class indices.

    Raises:
        UserError: it is of another shape or dtype, or an index is not in 0..classes - 1.
    """
    if y.ndim != 1 or len(y) != n or y.is_floating_point():
        raise UserError(
            f"targets of shape {tuple(y.shape)} and dtype {y.dtype} do not fit {n} examples; "
            "give (N,) class indices or (N, T) columns"
        )
    if classes is None or classes < 1:
        raise UserError(f"classes={classes}: class indices need the number of classes, 1 or more")
    outside = y[(y < 0) | (y >= classes)]
    if len(outside):
        raise UserError(f"target {int(outside[0])} is not a class index in 0..{classes - 1}")


def check_binary(columns: Tensor) -> None:
    """Check that target columns hold 0 and 1 only.

    Raises:
        UserError: they do not.
    """
    wrong = columns[(columns != 0) & (columns != 1)]
    if len(wrong):
        raise UserError(
            f"target {float(wrong[0]):g} in columns is neither 0 nor 1; give 0 and 1, or class indices (N,)"
        )


def check_features(x: Tensor, which: str) -> None:
    """Check that features are (N, D), float, finite and not empty.

    Raises:
        UserError: they are not; it says `which` features, and the first row that is not finite.
    """
    if x.ndim != 2 or not x.is_floating_point() or 0 in x.shape:
        raise UserError(
            f"{which} features of shape {tuple(x.shape)} and dtype {x.dtype}; give (N, D), float, not empty"
        )
    bad = [start + int(i) for start, rows in blocks(x, 8192) for i in (~torch.isfinite(rows)).any(1).nonzero()[:1]]
    if bad:
        raise UserError(
            f"{which} features hold NaN or infinity, first in row {bad[0]}; find what the encoder saw there"
        )


def check_grid(values: Sequence[float], name: str, low: float = 0.0, high: float = math.inf) -> None:
    """Check that a grid has values, each finite, above 0, and from `low` to `high`.

    Raises:
        UserError: it does not.
    """
    wrong = [value for value in values if not (low <= value <= high and 0 < value < math.inf)]
    if wrong or not len(values):
        wanted = f"from {low:g} to {high:g}" if low else "above 0"
        raise UserError(f"{name}={wrong[0] if wrong else 'nothing'} is not a finite number {wanted}; give one or more")
