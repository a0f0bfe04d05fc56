"""What a language model's scores and texts come to: an answer, a text that is cut, or a failed example."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from typing import Any, Literal

from evalkit.api import Prediction

Stop = Literal["question", "line", "none"]
_STOPS: dict[Stop, re.Pattern[str]] = {
    "question": re.compile(r"(?:\A|\n)\s*(?:Question|Q)\s*:|\n\s*Question\b"),
    "line": re.compile(r"(?<=\S)\s*\n"),
}

LETTERS = string.ascii_uppercase


def lettered(options: Sequence[str]) -> str:
    """Options in one line, each after its letter: `A: a red ring B: a blue cross`."""
    return " ".join(f"{letter}: {text}" for letter, text in zip(LETTERS, options, strict=False))


def likeliest(
    scores: Sequence[float], answers: Sequence[Any], detail: dict[str, Any], failures: Sequence[str] = ()
) -> Prediction:
    """The answer with the highest score, of equals the first; a failed example where a score is no number.

    Args:
        scores: of each answer; minus infinity is an impossible one.
        answers: as many.
        detail: what else is kept; of a failed example without numbers that JSON cannot hold.
        failures: why answers have no score, empty for those that have one; the first is the example's.
    """
    if reason := next(filter(None, failures), ""):
        return failed(reason, detail)
    broken = [score for score in scores if math.isnan(score) or score == math.inf]
    if not broken and scores and max(scores) > -math.inf:
        return Prediction(answers[scores.index(max(scores))], detail)
    problem = f"{broken[0]} as the score of {len(broken)} of" if broken else "no chance to any of"
    return failed(f"the language model gives {problem} {len(scores)} answers", detail)


def failed(reason: str, detail: dict[str, Any] | None = None) -> Prediction:
    """A failed example, which counts as wrong, with its reason."""
    kept = {key: value for key, value in (detail or {}).items() if _is_finite(value)}
    return Prediction(None, {**kept, "failure": reason})


def cut(text: str, stop: Stop) -> tuple[str, bool]:
    """A text up to where it goes on to something else than the answer, and whether it was cut.

    Args:
        text: what the language model said.
        stop: question ends it before a line that asks the next question, as base models go on; line at the end of its
            first line; none nowhere.
    """
    pattern = _STOPS.get(stop)
    match = pattern.search(text) if pattern else None
    return (text[: match.start()].strip(), True) if match else (text, False)


def _is_finite(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
