"""MSVD-QA: short questions made of the captions of MSVD (https://github.com/xudejing/video-question-answering)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from evalkit.api import Task
from evalkit.datasets import open_questions, published
from evalkit.datasets.files import error_context, first_existing, read_lines
from evalkit.datasets.open_questions import CLOSED, Split
from evalkit.metrics.text.exact_match import exact_match
from evalkit.mini.answers import one_step

ADAPTER = "captioner"
SIZES = {"train": 30_933, "val": 6_415, "test": 13_157}
PROMPT = (
    "question: who is using a wrench on a pipe fitting? answer: man. "
    "question: who breaks an egg into a bowl? answer: woman. "
    "question: {question} answer:"
)


def task(root: Path = Path("data/msvd_qa"), mini: bool = False, split: Split = "test") -> Task:
    """Answers questions about videos of MSVD, as VideoPrism does: the likeliest of 250 answers of one token.

    Files: train_qa.json, val_qa.json, test_qa.json and youtube_mapping.txt as published; of val also IG-VLM's
    MSVD_QA.csv; the videos by their names in that mapping, <YouTube's name>_<start>_<end>.avi, in any folder there. An
    answer that is none of the 250 counts as wrong. VideoPrism (https://arxiv.org/abs/2402.13217, appendix G) puts two
    questions of training and their answers before each. Without train_qa.json there are no answers to choose from:
    adapter.answers=open says any.

    Args:
        root: folder with the files and the videos.
        mini: ten-second films of the mini world, asked for color and shape.
        split: test, which papers report, or val.
    """
    return open_questions.open_question_task(
        one_step(2) if mini else open_questions.read_msr_qa(root, split, "MSVD_QA.csv", _names(root)),
        score=exact_match,
        settings=CLOSED if mini else {**CLOSED, "prompt": PROMPT},
        split="mini" if mini else split,
        sizes={} if mini else {"train": SIZES["train"], "test": SIZES[split]},
        license="generated (Apache-2.0)" if mini else "none stated; research use",
        source="https://github.com/xudejing/video-question-answering",
        published={} if mini or split == "val" else published.rows("msvd_qa", "accuracy", "zero-shot"),
    )


def _names(root: Path) -> Callable[[Any], str]:
    """The video's name, by its number in the json; the file that says it is read when it is first asked for."""

    @cache
    def names() -> dict[str, str]:
        found = {}
        for where, line in read_lines(first_existing(root, "youtube_mapping.txt")):
            with error_context(where):
                name, number = line.split()
                found[number] = name
        return found

    return lambda number: names()[f"vid{number}"]
