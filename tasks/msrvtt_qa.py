"""MSRVTT-QA: questions generated from MSR-VTT's captions (https://github.com/xudejing/video-question-answering)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Data, Task
from evalkit.datasets import open_questions, published
from evalkit.datasets.open_questions import CLOSED, Split
from evalkit.metrics import exact_match
from evalkit.mini.answers import one_step

ADAPTER = "captioner"
SIZES = {"train": 158_581, "val": 12_278, "test": 72_821}
PROMPT = (
    "question: who is talking to his family? answer: man. "
    "question: what is a woman doing? answer: talk. "
    "question: {question} answer:"
)


DATA = Data(
    source="https://github.com/xudejing/video-question-answering",
    license="none stated; research use",
    files={
        "train_qa.json": "[{id, video_id, question, answer}]; may be missing with adapter.answers=open",
        "val_qa.json": "the same; also MSRVTT_QA.csv of IG-VLM, which is val",
        "test_qa.json": "the same",
        "videos/videoNUMBER.mp4": "the videos, in any folder there",
    },
    sizes=SIZES,
)


def task(root: Path = Path("data/msrvtt_qa"), mini: bool = False, split: Split = "test") -> Task:
    """Answers questions about videos of MSR-VTT with the likeliest of 250 single-token answers.

    Files: train_qa.json, val_qa.json and test_qa.json as published; of val also IG-VLM's MSRVTT_QA.csv; the
    videos as video<number>.mp4, in any folder there. An answer that is none of the 250 counts as wrong. VideoPrism
    (https://arxiv.org/abs/2402.13217, appendix G) puts two questions of training and their answers before each.
    Without train_qa.json there are no answers to choose from: adapter.answers=open says any.

    Args:
        root: folder with the files and the videos.
        mini: generated ten-second films with questions about color and shape.
        split: test, which papers report, or val.
    """
    return open_questions.open_question_task(
        one_step(2) if mini else open_questions.read_msr_qa(root, split, "MSRVTT_QA.csv", "video{}".format),
        mini,
        score=exact_match,
        settings=CLOSED if mini else {**CLOSED, "prompt": PROMPT},
        split=split,
        sizes={**SIZES, "test": SIZES[split]},
        license=DATA.license,
        source=DATA.source,
        published={} if split == "val" else published.rows("msrvtt_qa", "accuracy", "zero-shot"),
    )
