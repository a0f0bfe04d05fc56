"""How often each text of a split has each sequence of one to four words, counted once for BLEU and CIDEr."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

N = 4

Ints = npt.NDArray[np.int64]


class Counts(NamedTuple):
    """The n-grams of one length in many texts: one entry for each text and each of its n-grams, sorted by both.

    Attributes:
        text: (K,), the number of the text.
        gram: (K,), the number of the n-gram, the same in all texts.
        often: (K,), how often it is there.
    """

    text: Ints
    gram: Ints
    often: Ints


@dataclass(frozen=True)
class Grams:
    """N generated texts and their M references.

    Attributes:
        item: (M,), whose reference each one is, rising.
        words: (N,), words in each generated text.
        reference_words: (M,), words in each reference.
        generated: for 1 to 4 words: the n-grams of the generated texts.
        references: the same of the references.
    """

    item: Ints
    words: Ints
    reference_words: Ints
    generated: Sequence[Counts]
    references: Sequence[Counts]


def count(generated: Sequence[str], references: Sequence[Sequence[str]]) -> Grams:
    """The n-grams of tokenized texts (N,) and of each one's references."""
    split = [text.split() for text in (*generated, *(text for several in references for text in several))]
    number: dict[str, int] = {}
    words = np.array([number.setdefault(word, len(number)) for one in split for word in one], np.int64)
    lengths = np.array([len(one) for one in split], np.int64)
    n = len(generated)
    text = np.repeat(np.arange(len(split)), lengths)
    left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(words))  # words up to the end of the text, itself too
    found: tuple[list[Counts], list[Counts]] = ([], [])
    grams = words
    for length in range(1, N + 1):
        if length > 1:  # an n-gram is the one that is shorter by a word, and one more word; both have numbers
            here = np.flatnonzero(left >= length)
            longer = np.full(len(words), -1)
            longer[here] = np.unique(grams[here] * len(number) + words[here + length - 1], return_inverse=True)[1]
            grams = longer
        here = np.flatnonzero(left >= length)
        kinds = int(grams.max(initial=0)) + 1
        keys, counts = np.unique(text[here] * kinds + grams[here], return_counts=True)
        middle = np.searchsorted(keys, n * kinds)
        for one, chosen, first in zip(found, (slice(middle), slice(middle, None)), (0, n), strict=True):
            one.append(Counts(keys[chosen] // kinds - first, keys[chosen] % kinds, counts[chosen]))
    item = np.repeat(np.arange(n), [len(several) for several in references])
    return Grams(item, lengths[:n], lengths[n:], *found)


def look_up(counts: Counts, text: Ints, gram: Ints) -> Ints:
    """Where the entries of these texts and n-grams (K,) stand in counts; -1 where there is none."""
    kinds = 1 + max(counts.gram.max(initial=0), gram.max(initial=0))
    keys, wanted = counts.text * kinds + counts.gram, text * kinds + gram
    at = np.searchsorted(keys, wanted)
    there = at < len(keys)
    there[there] = keys[at[there]] == wanted[there]
    return np.where(there, at, -1)
