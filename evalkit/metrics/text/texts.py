"""Predictions and targets of text, checked: what is generated, and what people wrote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from evalkit.errors import UserError


def generated(metric: str, predictions: Sequence[Any]) -> list[str]:
    """The text of each prediction; nothing for a failed one (None or NaN), the first text of a target in its place.

    Raises:
        UserError: a prediction is no text.
    """
    return ["" if failed(one) else _texts(metric, "prediction", one)[0] for one in predictions]


def references(metric: str, targets: Sequence[Any]) -> list[tuple[str, ...]]:
    """The texts that each prediction is compared with: a target is one text, or several.

    Raises:
        UserError: a target is neither.
    """
    return [_texts(metric, "target", one) for one in targets]


def failed(prediction: Any) -> bool:
    """Whether there is no prediction: None, or NaN."""
    return prediction is None or (isinstance(prediction, float) and math.isnan(prediction))


def _texts(metric: str, what: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(text, str) for text in value):
        return tuple(value)
    raise UserError(f"{metric}: {what} {repr(value)[:60]} is no text; wanted a text or a list of texts")
