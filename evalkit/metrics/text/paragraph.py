"""Paragraph metrics by the rule of MART's para-evaluate.py, as VLTinT's numbers: all but letters become spaces.

There is no PTB tokenizer: captions of one paragraph in lower case are split at spaces. BLEU, METEOR, ROUGE-L and CIDEr
are then pycocoevalcap's. Lei et al. 2020, https://github.com/jayleicn/recurrent-transformer (densevid_eval).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from evalkit.metrics.bootstrap import PERCENT, mean
from evalkit.metrics.classification import is_failed
from evalkit.metrics.text import meteor
from evalkit.metrics.text.captions import scored
from evalkit.metrics.text.texts import generated, references

_END = re.compile(r"[.!?]+(?:\s+|$)")


def paragraph(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float | list[float]]:
    """`ROUGE-L`, `CIDEr`, `BLEU-4` to `BLEU-1` of paragraphs, and their repetition `R@4`.

    The headline is LongViViT's. R@4 is the share of a paragraph's 4-grams within sentences that repeat an earlier one,
    averaged over all paragraphs: lower is better. A failed paragraph counts as 100 %.

    Args:
        predictions: one text of each, whose sentences end with a full stop; None for a failed one.
        targets: a text, or several, of which each is a reference.

    Raises:
        UserError: a prediction or a target is not text.
    """
    return _scored("paragraph", predictions, targets)[0]


def paragraph_meteor(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float | list[float]]:
    """`paragraph` and `METEOR` 1.5, which needs video-evalkit[captions].

    Raises:
        UserError: as `paragraph`, and if METEOR cannot run.
    """
    meteor.start()
    metrics, ours, theirs = _scored("paragraph_meteor", predictions, targets)
    return {**metrics, "METEOR": meteor.meteor(ours, theirs)}


def letters(text: str) -> str:
    """A text in lower case with only letters, one space between words."""
    return " ".join(re.sub("[^a-zA-Z]", " ", text).lower().split())


def repetition(text: str, n: int = 4) -> float:
    """The share, in 0..1, of a text's n-grams that repeat an earlier one; commas are ignored."""
    seen: Counter[tuple[str, ...]] = Counter()
    for sentence in _END.split(text):
        words = sentence.replace(",", " ").split()
        seen.update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return 1 - len(seen) / seen.total() if seen else 0.0


def _scored(
    metric: str, predictions: Sequence[Any], targets: Sequence[Any]
) -> tuple[dict[str, float | list[float]], list[str], list[list[str]]]:
    texts = generated(metric, predictions)
    ours = [letters(text) for text in texts]
    theirs = [[letters(text) for text in several] for several in references(metric, targets)]
    missing = [is_failed(prediction) for prediction in predictions]
    metrics = scored(ours, theirs, missing)
    each = zip(texts, missing, strict=True)
    repeated = mean([1.0 if is_missing else repetition(text) for text, is_missing in each], PERCENT)
    return {"ROUGE-L": metrics.pop("ROUGE-L"), **metrics, "R@4": repeated}, ours, theirs
