"""TGIF-QA's FrameQA: questions about animated GIFs that a frame may answer (https://arxiv.org/abs/1704.04497)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Example, Task
from evalkit.datasets import open_questions
from evalkit.datasets.files import find_videos, first_existing, read_table
from evalkit.datasets.open_questions import IG_VLM, Questions
from evalkit.metrics.text.exact_match import exact_match
from evalkit.mini.answers import one_step

ADAPTER = "captioner"
OWN = ("gif_name", "question", "answer", "type", "vid_id")
KINDS = ("object", "number", "color", "location")  # by the number in its files


def task(root: Path = Path("data/tgif_qa"), mini: bool = False) -> Task:
    """Answers questions about animated GIFs with one word: object, number, color or location.

    Files: Test_frameqa_question.csv and Train_frameqa_question.csv as published, with tabs, the latter of which may be
    missing; or IG-VLM's TGIF_FrameQA.csv, which is test without the blank before each question mark; the GIFs as
    <gif_name>.gif in any folder there. Its other three tasks (action, transition, count) are not here.

    Args:
        root: folder with the files and the GIFs.
        mini: ten-second films of the mini world, asked for color, shape and action.
    """
    return open_questions.open_question_task(
        one_step() if mini else _read(root),
        score=exact_match,
        split="mini" if mini else "test",
        sizes={} if mini else {"test": 13_691},
        license="generated (Apache-2.0)" if mini else "none stated; research use",
        source="https://github.com/YunseokJANG/tgif-qa",
    )


def _read(root: Path) -> Questions:
    gifs = find_videos(root)

    def tell(name: str, gif: str, kind: str, row: open_questions.Row) -> Example:
        known = KINDS[range(len(KINDS)).index(int(kind))]
        path = gifs.get(gif, root / "gifs" / f"{gif}.gif")
        return open_questions.question(name, path, row["question"], [row["answer"]], known)

    def of(file: Path) -> list[Example]:
        if file.name == "TGIF_FrameQA.csv":
            rows = read_table(file, (*IG_VLM, "video_id"))
            return open_questions.read(
                rows, lambda row: tell(row["video_id"], row["video_name"], row["question_type"], row)
            )
        rows = read_table(file, OWN, delimiter="\t")
        return open_questions.read(rows, lambda row: tell(row["vid_id"], row["gif_name"], row["type"], row))

    test = of(first_existing(root, "Test_frameqa_question.csv", "TGIF_FrameQA.csv"))
    train = root / "Train_frameqa_question.csv"
    return Questions(test, of(train) if train.is_file() else [])
