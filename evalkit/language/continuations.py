"""Texts after contexts: what a language model is asked, and what it says of them."""

from __future__ import annotations

from typing import NamedTuple


class Continuation(NamedTuple):
    """A text after a context, about one of the videos of a batch (its index; of text alone, which example asks)."""

    video: int
    context: str
    text: str


class Likelihood(NamedTuple):
    """The log-probability of a text, the sum over its tokens, and how many these are; NaN with the reason of a failure.

    Attributes:
        failure: why there is no log-probability; empty where there is one, or where only the model could say.
    """

    logprob: float
    tokens: int
    failure: str = ""


class Generated(NamedTuple):
    """A text that a model generated, and whether it ended the text itself; None with the reason of a failure."""

    text: str | None
    ended: bool = False
    failure: str = ""


class Row(NamedTuple):
    """Token ids of a context and of the text after it; what row of the visual tokens; its place among all."""

    context: list[int]
    text: list[int]
    video: int
    place: int

    @property
    def length(self) -> int:
        return len(self.context) + len(self.text)
