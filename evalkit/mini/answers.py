"""The mini world for open questions: ten-second films of one thing, and questions about them."""

from __future__ import annotations

from dataclasses import replace

from evalkit.api import Example
from evalkit.datasets.open_questions import QuestionSplits
from evalkit.mini import classes, language

KINDS = ("colour", "shape", "action")  # what language.inquiries asks for, in its order


def one_step(kinds: int = len(KINDS)) -> QuestionSplits:
    """The films of `classes.one_step`, and the first so many kinds of questions about each."""
    splits = [_questions(k) for k in range(kinds)]
    test = [example for kind in splits for example in kind.test]
    train = [example for kind in splits for example in kind.train]
    return QuestionSplits(test, train, (), splits[0].prepare_videos)


def _questions(k: int) -> QuestionSplits:
    labeled = classes.one_step(lambda step: language.inquiries(step)[k][1])
    text = language.inquiries(language.clips("kinetics400", 1)[0].steps[0])[k][0]

    def ask(example: Example) -> Example:
        target = (labeled.classes[example.target],)
        return replace(example, id=f"{example.id}-{KINDS[k]}", text=text, target=target, kind=KINDS[k])

    return QuestionSplits(list(map(ask, labeled.test)), list(map(ask, labeled.train)), (), labeled.prepare_videos)
