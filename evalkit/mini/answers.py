"""The mini world for open questions: ten-second films of one thing, and what is asked of them."""

from __future__ import annotations

from dataclasses import replace

from evalkit.api import Example
from evalkit.datasets.open_questions import QuestionSplits
from evalkit.mini import classes, language

KINDS = ("colour", "shape", "action")  # what language.inquiries asks for, in its order


def one_step(kinds: int = len(KINDS)) -> QuestionSplits:
    """The films of `classes.one_step`, and the first so many kinds of questions about each."""
    asked = [_asked(k) for k in range(kinds)]
    return QuestionSplits(
        [one for of in asked for one in of.test], [one for of in asked for one in of.train], (), asked[0].prepare_videos
    )


def _asked(k: int) -> QuestionSplits:
    found = classes.one_step(lambda step: language.inquiries(step)[k][1])
    text = language.inquiries(language.clips("kinetics400", 1)[0].steps[0])[k][0]

    def ask(one: Example) -> Example:
        return replace(one, id=f"{one.id}-{KINDS[k]}", text=text, target=(found.classes[one.target],), kind=KINDS[k])

    return QuestionSplits([ask(one) for one in found.test], [ask(one) for one in found.train], (), found.prepare_videos)
