"""Counts of 1- to 4-grams of all texts of a split, shared by BLEU and CIDEr."""

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
        text: (K,), index of the text.
        gram: (K,), index of the n-gram, shared by all texts.
        often: (K,), its count in the text.
    """

    text: Ints
    gram: Ints
    often: Ints


@dataclass(frozen=True)
class Grams:
    """N generated texts and their M references.

    Attributes:
        item: (M,), index of the text that each is a reference of, ascending.
        words: (N,), words in each generated text.
        reference_words: (M,), words in each reference.
        generated: n-gram counts of the generated texts, for n of 1 to 4.
        references: n-gram counts of the references.
    """

    item: Ints
    words: Ints
    reference_words: Ints
    generated: Sequence[Counts]
    references: Sequence[Counts]


def count(generated: Sequence[str], references: Sequence[Sequence[str]]) -> Grams:
    """Counts the n-grams of tokenized texts (N,) and of the references of each."""
    tokens = [text.split() for text in (*generated, *(text for several in references for text in several))]
    number: dict[str, int] = {}
    words = np.array(
        [number.setdefault(word, len(number)) for words_of_text in tokens for word in words_of_text], np.int64
    )
    lengths = np.array([len(words_of_text) for words_of_text in tokens], np.int64)
    n = len(generated)
    text = np.repeat(np.arange(len(tokens)), lengths)
    left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(words))  # words to the end of the text, inclusive
    counted: tuple[list[Counts], list[Counts]] = ([], [])
    grams = words
    for length in range(1, N + 1):
        if length > 1:  # an n-gram is the index of its (n-1)-gram and of its last word
            here = np.flatnonzero(left >= length)
            longer = np.full(len(words), -1)
            longer[here] = np.unique(grams[here] * len(number) + words[here + length - 1], return_inverse=True)[1]
            grams = longer
        here = np.flatnonzero(left >= length)
        kinds = int(grams.max(initial=0)) + 1
        keys, counts = np.unique(text[here] * kinds + grams[here], return_counts=True)
        middle = np.searchsorted(keys, n * kinds)
        for group, chosen, first in zip(counted, (slice(middle), slice(middle, None)), (0, n), strict=True):
            group.append(Counts(keys[chosen] // kinds - first, keys[chosen] % kinds, counts[chosen]))
    item = np.repeat(np.arange(n), [len(several) for several in references])
    return Grams(item, lengths[:n], lengths[n:], *counted)


def look_up(counts: Counts, text: Ints, gram: Ints) -> Ints:
    """Positions in counts of these texts and n-grams (K,); -1 if absent."""
    kinds = 1 + max(counts.gram.max(initial=0), gram.max(initial=0))
    keys, wanted = counts.text * kinds + counts.gram, text * kinds + gram
    at = np.searchsorted(keys, wanted)
    present = at < len(keys)
    present[present] = keys[at[present]] == wanted[present]
    return np.where(present, at, -1)
