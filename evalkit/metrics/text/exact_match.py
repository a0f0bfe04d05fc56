"""Exact match of open answers, as MSRVTT-QA, MSVD-QA, ActivityNet-QA and TGIF-FrameQA are scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalkit.metrics.classification import is_failed
from evalkit.metrics.text.texts import generated, references


def exact_match(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, list[float]]:
    """Exact match in lower case, stripped: `accuracy`. Articles, plurals, numbers and full stops are not normalized.

    Args:
        predictions: one text of each; None for a failed one.
        targets: the right answer, or several, any of which is right.

    Raises:
        UserError: a prediction or a target is not text.
    """
    theirs = [{_normalized(text) for text in several} for several in references("exact_match", targets)]
    ours = [_normalized(text) for text in generated("exact_match", predictions)]
    missing = [is_failed(prediction) for prediction in predictions]
    each = zip(ours, theirs, missing, strict=True)
    return {"accuracy": [float(text in answers and not is_missing) for text, answers, is_missing in each]}


def _normalized(text: str) -> str:
    return text.strip().lower()
