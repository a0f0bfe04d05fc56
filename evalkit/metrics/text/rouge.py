"""ROUGE-L by the rule of COCO's caption evaluation: the longest common subsequence, beta 1.2.

The best precision and the best recall are taken over the references separately, so they need not be of one reference.
Other ROUGE-L (google's rouge_score: F1, stemmed) gives other numbers. Lin 2004, https://aclanthology.org/W04-1013.
"""

from __future__ import annotations

from collections.abc import Sequence

BETA = 1.2


def rouge_l(generated: str, references: Sequence[str]) -> float:
    """ROUGE-L of one tokenized text, in 0..1; two empty texts are equal."""
    ours = generated.split(" ")
    precision = recall = 0.0
    for reference in references:
        theirs = reference.split(" ")
        common = _lcs_length(ours, theirs)
        precision = max(precision, common / len(ours))
        recall = max(recall, common / len(theirs))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence, bit-parallel: a row of the dynamic programming table per word of b.

    A 0 bit is where the row is one more than in the column before (Hyyro 2004).
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    row = full = (1 << len(a)) - 1
    for word in b:
        met = row & places.get(word, 0)
        row = (row + met | row - met) & full
    return len(a) - row.bit_count()
