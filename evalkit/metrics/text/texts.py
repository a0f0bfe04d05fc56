"""Checked text predictions and targets: generated texts and references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalkit.errors import UserError
from evalkit.metrics.classification import is_failed


def generated(metric: str, predictions: Sequence[Any]) -> list[str]:
    """The text of each prediction: empty for a failed one (None or NaN), the first text for a target in its place.

    Raises:
        UserError: a prediction is not text.
    """
    return ["" if is_failed(p) else _texts(metric, "prediction", p)[0] for p in predictions]


def references(metric: str, targets: Sequence[Any]) -> list[tuple[str, ...]]:
    """The references of each prediction; a target is one text or several.

    Raises:
        UserError: a target is neither.
    """
    return [_texts(metric, "target", target) for target in targets]


def _texts(metric: str, role: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(text, str) for text in value):
        return tuple(value)
    raise UserError(f"{metric}: {role} {repr(value)[:60]} is not text; wanted a text or a list of texts")
