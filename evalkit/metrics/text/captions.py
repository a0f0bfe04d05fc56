"""Caption metrics: CIDEr, BLEU, ROUGE-L and METEOR, as pycocoevalcap 1.2 with its PTB tokenizer.

Corpus scores and per-caption scores equal pycocoevalcap's to 1e-6. A failed caption is scored as an empty one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evalkit.metrics.bootstrap import PERCENT, AdditiveScore, Table, mean
from evalkit.metrics.classification import is_failed
from evalkit.metrics.text import meteor
from evalkit.metrics.text.bleu import bleu, parts
from evalkit.metrics.text.cider import LIMITS, cider
from evalkit.metrics.text.ngrams import Grams, N, count
from evalkit.metrics.text.rouge import rouge_l
from evalkit.metrics.text.texts import generated, references
from evalkit.metrics.text.tokenizer import tokenized
from evalkit.runtime.notes import remark


def captions(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float | list[float]]:
    """`CIDEr` (CIDEr-D), `BLEU-4` to `BLEU-1` and `ROUGE-L` of captions; needs no Java.

    Args:
        predictions: one text of each; None for a failed one, which is scored as an empty caption.
        targets: a text, or several, of which each is a reference.

    Raises:
        UserError: a prediction or a target is not text.
    """
    return scored(*_tokenized("captions", predictions, targets), [is_failed(prediction) for prediction in predictions])


def captions_meteor(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float | list[float]]:
    """`captions` and `METEOR` 1.5, which needs video-evalkit[captions].

    Raises:
        UserError: as `captions`, and if METEOR cannot run.
    """
    meteor.start()
    ours, theirs = _tokenized("captions_meteor", predictions, targets)
    return {
        **scored(ours, theirs, [is_failed(prediction) for prediction in predictions]),
        "METEOR": meteor.meteor(ours, theirs),
    }


def scored(
    ours: Sequence[str], theirs: Sequence[Sequence[str]], missing: Sequence[bool]
) -> dict[str, float | list[float]]:
    """CIDEr, BLEU and ROUGE-L of tokenized texts, with one space between words.

    CIDEr is NaN if the split has one caption: document frequencies are undefined then.

    Args:
        ours: (N,) generated.
        theirs: (N,), the references of each.
        missing: (N,), whether it failed: it matches no reference, not even an empty one.
    """
    grams = count(ours, theirs)
    metrics: dict[str, float | list[float]] = {"CIDEr": _cider(grams, theirs)}
    metrics |= _bleus(parts(grams))
    each = zip(ours, theirs, missing, strict=True)
    metrics["ROUGE-L"] = [0.0 if is_missing else rouge_l(text, several) for text, several, is_missing in each]
    return metrics


def _cider(grams: Grams, theirs: Sequence[Sequence[str]]) -> AdditiveScore:
    """CIDEr, with a note where no caption could have any: an n-gram that all references have says nothing."""
    n = len(theirs)
    if n < 2:
        return undefined(n)
    values = cider(grams)
    if not values.all():
        perfect = cider(count([several[0] for several in theirs], theirs))
        if (weightless := int((perfect == 0).sum())) and (values[perfect == 0] == 0).all():
            remark(
                f"CIDEr is 0 whatever is said of {weightless:,} of {n:,} examples: it weighs words by how few "
                "examples' references have them, and these have only words that all have, or none; BLEU and ROUGE-L "
                "do not"
            )
    return mean(values, LIMITS)


def _bleus(parts: Table) -> dict[str, AdditiveScore]:
    """`BLEU-4` to `BLEU-1` of a corpus, from the summands of each caption (N, 10)."""

    def of(n: int) -> Callable[[Table], Table]:
        return lambda sums: 100 * bleu(sums)[..., n - 1]

    return {f"BLEU-{n}": AdditiveScore(parts, of(n), PERCENT) for n in range(N, 0, -1)}


def undefined(n: int) -> AdditiveScore:
    """CIDEr of n examples with one caption in all: NaN, with a warning."""
    remark("CIDEr of one caption is undefined (it needs document frequencies); score more")
    return mean(np.full(n, math.nan))


def _tokenized(metric: str, predictions: Sequence[Any], targets: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    theirs = [[tokenized(text) for text in several] for several in references(metric, targets)]
    return [tokenized(text) for text in generated(metric, predictions)], theirs
