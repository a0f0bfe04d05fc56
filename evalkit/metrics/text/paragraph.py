"""Paragraphs by the rule of MART's para-evaluate.py, which VLTinT's numbers follow: all that is no letter is a space.

There is no PTB tokenizer: captions of one paragraph in lower case are split at spaces. BLEU, METEOR, ROUGE-L and CIDEr
are then pycocoevalcap's. Lei et al. 2020, https://github.com/jayleicn/recurrent-transformer (densevid_eval).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from evalkit.metrics.bootstrap import mean
from evalkit.metrics.text import meteor
from evalkit.metrics.text.captions import scored
from evalkit.metrics.text.texts import failed, generated, references

_END = re.compile(r"[.!?]+(?:\s+|$)")


def paragraph(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float | list[float]]:
    """How near paragraphs are to what people wrote: `ROUGE-L`, `CIDEr`, `BLEU-4` to `BLEU-1`; and `R@4`, repetition.

    The headline is what LongViViT prints. R@4 is the share of a paragraph's 4-grams, none across the end of a sentence,
    that are there already: the lower the better. It is the mean over all paragraphs; a failed one is all repetition.

    Args:
        predictions: one text of each, whose sentences end with a full stop; None for a failed one.
        targets: a text, or several, of which each is a reference.

    Raises:
        UserError: a prediction or a target is no text.
    """
    return _scored("paragraph", predictions, targets)[0]


@meteor.beside(paragraph)
def paragraph_meteor(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float | list[float]]:
    """What `paragraph` gives, and `METEOR` 1.5, which needs evalkit[captions].

    Raises:
        UserError: as `paragraph`, and where METEOR cannot run.
    """
    meteor.start()
    found, ours, theirs = _scored("paragraph_meteor", predictions, targets)
    return {**found, "METEOR": meteor.meteor(ours, theirs)}


def letters(text: str) -> str:
    """A text's words by this rule, one space between two."""
    return " ".join(re.sub("[^a-zA-Z]", " ", text).lower().split())


def repetition(text: str, n: int = 4) -> float:
    """The share, in 0..1, of a text's n-grams that repeat one before them; words as they are, commas aside."""
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
    lost = [failed(one) for one in predictions]
    found = scored(ours, theirs, lost)
    repeated = mean([1.0 if no else repetition(text) for text, no in zip(texts, lost, strict=True)])
    return {"ROUGE-L": found.pop("ROUGE-L"), **found, "R@4": repeated}, ours, theirs
