"""MSVD-QA: questions generated from MSVD's captions (https://github.com/xudejing/video-question-answering)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from evalkit.api import Data, Task
from evalkit.datasets import open_questions, published
from evalkit.datasets.files import find_file, parsing_errors_at, read_lines
from evalkit.datasets.open_questions import CLOSED, Split
from evalkit.metrics import exact_match
from evalkit.mini.answers import one_step

ADAPTER = "captioner"
SIZES = {"train": 30_933, "val": 6_415, "test": 13_157}
PROMPT = (
    "question: who is using a wrench on a pipe fitting? answer: man. "
    "question: who breaks an egg into a bowl? answer: woman. "
    "question: {question} answer:"
)


DATA = Data(
    source="https://github.com/xudejing/video-question-answering",
    license="none stated; research use",
    files={
        "train_qa.json": "[{id, video_id, question, answer}]; may be missing with adapter.answers=open",
        "val_qa.json": "the same; also MSVD_QA.csv of IG-VLM, which is val",
        "test_qa.json": "the same",
        "youtube_mapping.txt": "lines `<YouTube's name>_<start>_<end> vid<number>`",
        "videos/NAME.avi": "the videos, in any folder there, <YouTube's name>_<start>_<end>.avi",
    },
    sizes=SIZES,
)


def task(root: Path = Path("data/msvd_qa"), mini: bool = False, split: Split = "test") -> Task:
    """Answers questions about videos of MSVD with the likeliest of 250 single-token answers.

    Files: train_qa.json, val_qa.json, test_qa.json and youtube_mapping.txt as published; of val also IG-VLM's
    MSVD_QA.csv; the videos by their names in that mapping, <YouTube's name>_<start>_<end>.avi, in any folder there. An
    answer that is none of the 250 counts as wrong. VideoPrism (https://arxiv.org/abs/2402.13217, appendix G) puts two
    questions of training and their answers before each. Without train_qa.json there are no answers to choose from:
    adapter.answers=open says any.

    Args:
        root: folder with the files and the videos.
        mini: generated ten-second films with questions about color and shape.
        split: test, which papers report, or val.
    """
    return open_questions.open_question_task(
        one_step(2) if mini else open_questions.read_msr_qa(root, split, "MSVD_QA.csv", _names(root)),
        mini,
        score=exact_match,
        settings=CLOSED if mini else {**CLOSED, "prompt": PROMPT},
        split=split,
        sizes={**SIZES, "test": SIZES[split]},
        license=DATA.license,
        source=DATA.source,
        published={} if split == "val" else published.rows("msvd_qa", "accuracy", "zero-shot"),
    )


def _names(root: Path) -> Callable[[Any], str]:
    """A function of a video's number in the json to its name; the mapping is read when it is first needed."""

    @cache
    def names() -> dict[str, str]:
        by_number = {}
        for where, line in read_lines(find_file(root, "youtube_mapping.txt")):
            with parsing_errors_at(where):
                name, number = line.split()
                by_number[number] = name
        return by_number

    return lambda number: names()[f"vid{number}"]
