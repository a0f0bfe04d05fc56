"""WordNet 3.0 from its database files: senses of a word, its base forms, and Wu-Palmer similarity.

The database is in the folder that EVALKIT_WORDNET names, else Debian's (apt install wordnet-base), else nltk's
(nltk.download("wordnet")). The rules are those of nltk 3.5; nltk 3.10 differs across parts of speech. File formats:
https://wordnet.princeton.edu/documentation/wndb5wn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from evalkit.errors import UserError

_DEBIAN = Path("/usr/share/wordnet")
_INSTALL_HINT = "name the folder with data.noun in EVALKIT_WORDNET, or apt install wordnet-base"
_PARTS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_ENDINGS = {
    "n": (
        *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z")),
        *(("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
    ),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}


class Sense(NamedTuple):
    """A synset: its part of speech (n, v, a, r) and its offset in that part's file."""

    part: str
    offset: int


_ROOT = Sense("v", -1)


class WordNet:
    """The database in one folder.

    Raises:
        UserError: the folder lacks a file, or a file is not WordNet's.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._data = {part: (folder / f"data.{name}").read_bytes() for part, name in _PARTS.items()}
            self._senses = {part: dict(_index(folder / f"index.{name}")) for part, name in _PARTS.items()}
            self._exceptions = {part: dict(_exceptions(folder / f"{name}.exc")) for part, name in _PARTS.items()}
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{folder}: no WordNet database ({error}); {_INSTALL_HINT}") from error
        self._higher: dict[Sense, tuple[Sense, ...]] = {}

    def first(self, word: str) -> Sense | None:
        """The first sense of a word in any form: noun, else verb, else adjective, else adverb; None if unknown."""
        for part in _PARTS:
            for form in self.forms(word.lower(), part):
                return Sense(part, self._senses[part][form][0])
        return None

    def forms(self, word: str, part: str) -> list[str]:
        """The base forms of a word as a part of speech, itself first if it is one; empty if there is none."""
        known = self._senses[part]
        if word in self._exceptions[part]:
            return [form for form in dict.fromkeys([word, *self._exceptions[part][word]]) if form in known]
        forms = self._shorter([word], part)
        bases = [form for form in dict.fromkeys([word, *forms]) if form in known]
        while not bases and forms:
            forms = self._shorter(forms, part)
            bases = [form for form in dict.fromkeys(forms) if form in known]
        return bases

    def _shorter(self, forms: list[str], part: str) -> list[str]:
        return [form[: -len(old)] + new for form in forms for old, new in _ENDINGS[part] if form.endswith(old)]

    def similarity(self, a: Sense, b: Sense) -> float:
        """Wu and Palmer's similarity of two senses, in 0..1; 0 without a common hypernym.

        Verbs have a root above all of them, which only the first sense's part of speech decides: of a verb and a noun
        it is above 0, of a noun and a verb 0.
        """
        root = a.part == "v"
        ours, theirs = self._distances(a, root), self._distances(b, root)
        common = [sense for sense in ours if sense in theirs]
        if not common:
            return 0.0
        deepest = max(self._depth(sense, min) for sense in common)
        lowest = min((sense for sense in common if self._depth(sense, min) == deepest), key=self._name)
        if self._depth(a, min) == deepest and a in theirs:
            lowest = a
        depth = self._depth(lowest, max) + 1
        # The shortest way from a sense to that one may go above it and down again.
        down = self._distances(lowest, root and lowest != _ROOT)
        ways = [min(up[sense] + down[sense] for sense in down if sense in up) for up in (ours, theirs)]
        return 2 * depth / (sum(ways) + 2 * depth)

    def _distances(self, sense: Sense, root: bool) -> dict[Sense, int]:
        """Steps to each hypernym, to the sense itself, and with `root` to the root of verbs."""
        steps = {sense: 0}
        queue = [sense]
        for current in queue:
            for higher in self._above(current):
                if higher not in steps:
                    steps[higher] = steps[current] + 1
                    queue.append(higher)
        if root:
            steps[_ROOT] = max(steps.values()) + 1
        return steps

    def _depth(self, sense: Sense, of: Callable[[Iterable[int]], int]) -> int:
        """Steps to the top along the shortest way (min) or the longest (max)."""
        higher = self._above(sense)
        return 1 + of(self._depth(hypernym, of) for hypernym in higher) if higher else 0

    def _above(self, sense: Sense) -> tuple[Sense, ...]:
        """The direct hypernyms of a sense, and what it is an instance of."""
        if sense == _ROOT:
            return ()
        if sense not in self._higher:
            fields = self._line(sense)
            at = 4 + 2 * int(fields[3], 16)
            links = [fields[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(fields[at]))]
            self._higher[sense] = tuple(
                Sense(part, int(offset)) for kind in ("@", "@i") for symbol, offset, part, _ in links if symbol == kind
            )
        return self._higher[sense]

    def _name(self, sense: Sense) -> str:
        """Its first word and which of that word's senses it is; senses that are equally deep come in this order."""
        if sense == _ROOT:
            return "*ROOT*"
        word = self._line(sense)[4].lower().partition("(")[0]
        return f"{word}.{sense.part}.{self._senses[sense.part][word].index(sense.offset) + 1:02}"

    def _line(self, sense: Sense) -> list[str]:
        data = self._data[sense.part]
        return data[sense.offset : data.index(b"\n", sense.offset)].decode("ascii").partition(" | ")[0].split()


def wordnet() -> WordNet:
    """The installed database, read once.

    Raises:
        UserError: there is none.
    """
    if named := os.environ.get("EVALKIT_WORDNET"):
        return _read(Path(named))
    nltk = [Path(folder) for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep) if folder] + [
        Path.home() / "nltk_data"
    ]
    places = [_DEBIAN, *(folder / "corpora" / "wordnet" for folder in nltk)]
    for place in places:
        if (place / "data.noun").is_file():
            return _read(place)
    raise UserError(f"WordNet 3.0 is not found in {', '.join(map(str, places))}; {_INSTALL_HINT}")


@cache
def _read(folder: Path) -> WordNet:
    return WordNet(folder)


def _index(file: Path) -> Iterator[tuple[str, list[int]]]:
    """Yields each word of an index file with the offsets of its senses, the most frequent first."""
    for line in file.read_text("ascii").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            yield fields[0], [int(offset) for offset in fields[-int(fields[2]) :]]


def _exceptions(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields each irregular form with its base forms."""
    for line in file.read_text("ascii").splitlines():
        form, *words = line.split()
        yield form, words
