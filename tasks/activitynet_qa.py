"""ActivityNet-QA: human-written questions about two-minute videos (https://arxiv.org/abs/1906.02467)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Data, Example, Task
from evalkit.datasets import open_questions
from evalkit.datasets.files import class_number, find_file, parsing_errors_at, read_table
from evalkit.datasets.open_questions import IG_VLM, QuestionSplits, Row
from evalkit.datasets.videos import find_videos, video_file
from evalkit.metrics import exact_match
from evalkit.mini.answers import one_step

ADAPTER = "captioner"
# By the number in its files; the first three are about these, the others free, by what is answered.
KINDS = ("motion", "spatial", "temporal", "yes-no", "color", "object", "location", "number", "other")


DATA = Data(
    source="https://github.com/MILVLG/activitynet-qa",
    license="Apache-2.0 (annotations)",
    files={
        "test_q.json": "[{video_name, question, question_id}]; or ActivityNet_QA.csv of IG-VLM, which is test",
        "test_a.json": "[{question_id, answer, type}]",
        "train_q.json, train_a.json": "the same; may be missing",
        "val_q.json, val_a.json": "the same; may be missing",
        "videos/v_ID.mp4": "the videos, in any folder there",
    },
    sizes={"train": 32_000, "val": 18_000, "test": 8_000},
    vanished="the videos are ActivityNet's, on YouTube; which are left is not published with the questions",
)


def task(root: Path = Path("data/activitynet_qa"), mini: bool = False) -> Task:
    """Answers questions about motion, space, time and content of a video, scored by exact match.

    Files: test_q.json and test_a.json as published, and those of train and val, which may be missing; or IG-VLM's
    ActivityNet_QA.csv, which is test, three of whose questions begin with a number that is not theirs; the videos as
    v_<id>.mp4 in any folder there. Where a language model judges the answers, numbers are not comparable.

    Args:
        root: folder with the files and the videos.
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
    videos = find_videos(root)

    def parse(row: Row, answer: Row) -> Example:
        stem = f"v_{row['video_name'].removeprefix('v_')}"
        kind = KINDS[class_number(answer["type"], len(KINDS))]
        return open_questions.question(
            row["question_id"], video_file(videos, root / "videos", stem), row["question"], [answer["answer"]], kind
        )

    def read(split: str) -> list[Example]:
        answers = {}
        for where, row in open_questions.json_rows(find_file(root, f"{split}_a.json")):
            with parsing_errors_at(where):
                answers[row["question_id"]] = row
        return open_questions.read_questions(
            open_questions.json_rows(root / f"{split}_q.json"), lambda row: parse(row, answers[row["question_id"]])
        )

    file = find_file(root, "test_q.json", "ActivityNet_QA.csv")
    if file.suffix == ".csv":
        return QuestionSplits(
            open_questions.read_questions(
                read_table(file, IG_VLM), lambda row: parse(row, {**row, "type": row["question_type"]})
            )
        )
    train, val = (read(split) if (root / f"{split}_q.json").is_file() else [] for split in ("train", "val"))
    return QuestionSplits(read("test"), train, val if train else [])
