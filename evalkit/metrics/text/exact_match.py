"""Open answers by exact match, as MSRVTT-QA, MSVD-QA, ActivityNet-QA and TGIF-FrameQA are scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalkit.metrics.text.texts import failed, generated, references


def exact_match(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, list[float]]:
    """Whether each answer is the right one, letter for letter in lower case, blanks around it aside: `accuracy`.

    Nothing else is made alike: no article, plural, number or full stop.

    Args:
        predictions: one text of each; None for a failed one.
        targets: the right answer, or several, any of which is right.

    Raises:
        UserError: a prediction or a target is no text.
    """
    theirs = [{_same(text) for text in several} for several in references("exact_match", targets)]
    ours = [_same(text) for text in generated("exact_match", predictions)]
    lost = [failed(one) for one in predictions]
    return {"accuracy": [float(one in right and not no) for one, right, no in zip(ours, theirs, lost, strict=True)]}


def _same(text: str) -> str:
    return text.strip().lower()
