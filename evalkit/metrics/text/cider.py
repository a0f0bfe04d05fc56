"""CIDEr-D as pycocoevalcap 1.2's class Cider computes it, which papers print as CIDEr.

Document frequencies are those of all references of the split; counts are clipped, a Gaussian of the difference in
length with sigma 6 multiplies, and the mean over 1- to 4-grams is times 10. Vedantam et al. 2015,
https://arxiv.org/abs/1411.5726; reference code: https://github.com/salaniz/pycocoevalcap.
"""

from __future__ import annotations

import numpy as np

from evalkit.metrics.bootstrap import Table
from evalkit.metrics.text.ngrams import Grams, Ints, N, look_up

SIGMA = 6.0
LIMITS = (0.0, 1000.0)  # of CIDEr in percent


def cider(grams: Grams, split: Ints | None = None) -> Table:
    """CIDEr-D of each caption (N,), in 0..10.

    In a split of one caption it is 0: an n-gram's weight is the logarithm of the number of captions over the number of
    those whose references have it.

    Args:
        grams: of the captions and their references.
        split: (N,), the index of each caption's split; each split has document frequencies of its own. None: one
            split.
    """
    items, item = len(grams.words), grams.item
    split = np.zeros(items, np.int64) if split is None else split
    documents = np.log(np.maximum(np.bincount(split), 1))[split]  # (N,)
    total = np.zeros(len(item))
    for ours, theirs in zip(grams.generated, grams.references, strict=True):
        document = item[theirs.text]
        kinds = 1 + max(ours.gram.max(initial=0), theirs.gram.max(initial=0))
        keys = np.concatenate([split[ours.text] * kinds + ours.gram, split[document] * kinds + theirs.gram])
        known, number = np.unique(keys, return_inverse=True)  # the n-grams of each split
        mine, others = np.split(number, [len(ours.gram)])
        once = np.unique(document * len(known) + others) % max(1, len(known))  # in whichever of its references
        rare = np.log(np.maximum(np.bincount(once, minlength=len(known)), 1))
        my_weight = ours.often * (documents[ours.text] - rare[mine])
        weight = theirs.often * (documents[document] - rare[others])
        my_norm = np.sqrt(np.bincount(ours.text, my_weight**2, minlength=items))
        norm = my_norm[item] * np.sqrt(np.bincount(theirs.text, weight**2, minlength=len(item)))
        at = look_up(ours, document, theirs.gram)
        shared = np.minimum(np.append(my_weight, 0)[at], weight) * weight  # -1, not there, is the 0 at the end
        total += np.bincount(theirs.text, shared, minlength=len(item)) / np.where(norm > 0, norm, 1)
    # The reference takes the number of 2-grams for the length.
    delta = np.maximum(grams.words - 1, 0)[item] - np.maximum(grams.reference_words - 1, 0)
    total *= np.exp(-(delta**2) / (2 * SIGMA**2)) * 10 / N
    return np.asarray(np.bincount(item, total, minlength=items) / np.bincount(item, minlength=items))
