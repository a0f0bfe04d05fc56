"""Multiple-choice questions about the films of EgoSchema's miniature."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from evalkit.api import Example
from evalkit.datasets import captions
from evalkit.datasets.files import LabeledSplits
from evalkit.mini import language, library
from evalkit.mini.captions import TEST, TRAIN
from evalkit.mini.language import Kind, Question
from evalkit.mini.library import Films

FEW = 20


def whole(kinds: Sequence[Kind] = language.KINDS) -> LabeledSplits:
    """Three-minute films and five stories each, which differ in one of these kinds alone."""

    def ask(name: str, path: Path, question: Question) -> Iterator[Example]:
        if question.kind in kinds:
            choices = tuple(map(str, question.options))
            yield Example(name, path, question.answer, None, captions.QUESTION, choices, question.kind)

    return _splits(ask, TRAIN, TEST)


def steps() -> LabeledSplits:
    """The six steps of a few of these films as videos of their own; all that happens in the film is to choose from."""

    def ask(name: str, path: Path, question: Question) -> Iterator[Example]:
        sentences = [str(step) for step in question.story.steps]
        choices = tuple(dict.fromkeys(sentences))
        for i, (span, sentence) in enumerate(zip(question.story.times(), sentences, strict=True)):
            yield Example(f"{name}_{i}", path, choices.index(sentence), span, choices=choices)

    return _splits(ask, FEW, FEW)


def _splits(ask: Callable[[str, Path, Question], Iterator[Example]], train: int, test: int) -> LabeledSplits:
    """The examples of so many films of each split."""
    films: list[Films] = []
    splits: dict[str, list[Example]] = {}
    for split, n in (("train", train), ("test", test)):
        questions = language.questions(split, n)
        films.append(library.three_minutes(split, n))
        filmed = zip(films[-1].paths, questions, strict=True)
        splits[split] = [
            example for path, question in filmed for example in ask(f"{split}-{path.stem}", path, question)
        ]

    def prepare_videos(examples: Sequence[Example]) -> None:
        for part in films:
            part.prepare_videos(examples)

    return LabeledSplits(splits["train"], splits["test"], (), prepare_videos)
