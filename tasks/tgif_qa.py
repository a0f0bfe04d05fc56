"""TGIF-QA's FrameQA: questions about a frame of an animated GIF (https://arxiv.org/abs/1704.04497)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Data, Example, Task
from evalkit.datasets import open_questions
from evalkit.datasets.files import class_number, find_file, read_table
from evalkit.datasets.open_questions import IG_VLM, QuestionSplits
from evalkit.datasets.videos import find_videos, video_file
from evalkit.metrics import exact_match
from evalkit.mini.answers import one_step

ADAPTER = "captioner"
COLUMNS = ("gif_name", "question", "answer", "type", "vid_id")
KINDS = ("object", "number", "color", "location")  # by the number in its files


DATA = Data(
    source="https://github.com/YunseokJANG/tgif-qa",
    license="none stated; research use",
    files={
        "Test_frameqa_question.csv": "columns gif_name, question, answer, type, vid_id and others, with tabs; or "
        "TGIF_FrameQA.csv of IG-VLM, which is test",
        "Train_frameqa_question.csv": "the same; may be missing",
        "gifs/GIF_NAME.gif": "the GIFs, in any folder there",
    },
    sizes={"test": 13_691},
)


def task(root: Path = Path("data/tgif_qa"), mini: bool = False) -> Task:
    """Answers questions about animated GIFs with one word: object, number, color or location.

    Files: Test_frameqa_question.csv and Train_frameqa_question.csv as published, with tabs, the latter of which may be
    missing; or IG-VLM's TGIF_FrameQA.csv, which is test without the blank before each question mark; the GIFs as
    <gif_name>.gif in any folder there. Its other three tasks (action, transition, count) are not here.

    Args:
        root: folder with the files and the GIFs.
        mini: generated ten-second films with questions about color, shape and action.
    """
    return open_questions.open_question_task(
        one_step() if mini else _read(root),
        mini,
        score=exact_match,
        split="test",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )


def _read(root: Path) -> QuestionSplits:
    gifs = find_videos(root)

    def parse(name: str, gif: str, kind: str, row: open_questions.Row) -> Example:
        kind_name = KINDS[class_number(kind, len(KINDS))]
        path = video_file(gifs, root / "gifs", gif, ".gif")
        return open_questions.question(name, path, row["question"], [row["answer"]], kind_name)

    def read(file: Path) -> list[Example]:
        if file.name == "TGIF_FrameQA.csv":
            rows = read_table(file, (*IG_VLM, "video_id"))
            return open_questions.read_questions(
                rows, lambda row: parse(row["video_id"], row["video_name"], row["question_type"], row)
            )
        rows = read_table(file, COLUMNS, delimiter="\t")
        return open_questions.read_questions(rows, lambda row: parse(row["vid_id"], row["gif_name"], row["type"], row))

    test = read(find_file(root, "Test_frameqa_question.csv", "TGIF_FrameQA.csv"))
    train = root / "Train_frameqa_question.csv"
    return QuestionSplits(test, read(train) if train.is_file() else [])
