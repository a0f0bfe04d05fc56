"""BLEU-1 to BLEU-4 as pycocoevalcap 1.2 computes them: over the corpus, the closest reference's length, no smoothing.

Papineni et al. 2002, https://aclanthology.org/P02-1040; reference code: https://github.com/salaniz/pycocoevalcap.
"""

from __future__ import annotations

import numpy as np

from evalkit.metrics.bootstrap import Table
from evalkit.metrics.text.ngrams import Grams, N, look_up

_TINY, _SMALL = 1e-15, 1e-9  # avoid division by 0, as in the reference; visible if a caption has no match


def parts(grams: Grams) -> Table:
    """Summands of corpus BLEU (N, 10): words, words of the closest reference, n-grams, clipped matches."""
    items = len(grams.words)
    # Of two references that are equally close, the shorter: the smallest of (distance, length).
    order = np.lexsort((grams.reference_words, abs(grams.reference_words - grams.words[grams.item]), grams.item))
    closest = grams.reference_words[order][np.searchsorted(grams.item, np.arange(items))]
    totals = [np.maximum(grams.words - n, 0) for n in range(N)]
    matches = []
    for ours, theirs in zip(grams.generated, grams.references, strict=True):
        # Clipped by the reference that has the n-gram most often.
        at = look_up(ours, grams.item[theirs.text], theirs.gram)
        most = np.zeros(len(ours.gram), np.int64)
        np.maximum.at(most, at[at >= 0], theirs.often[at >= 0])
        matches.append(np.bincount(ours.text, np.minimum(ours.often, most), minlength=items))
    return np.stack([grams.words, closest, *totals, *matches], 1).astype(np.float64)


def bleu(sums: Table) -> Table:
    """BLEU-1 to BLEU-4 (..., 4) in 0..1, of one caption's parts or of their sum over captions (..., 10)."""
    words, closest = sums[..., :1], sums[..., 1:2]
    precision = (sums[..., 2 + N :] + _TINY) / (sums[..., 2 : 2 + N] + _SMALL)
    ratio = (words + _TINY) / (closest + _SMALL)
    brevity = np.exp(np.minimum(0, 1 - 1 / ratio))
    return np.asarray(precision.cumprod(-1) ** (1 / np.arange(1, N + 1)) * brevity)
