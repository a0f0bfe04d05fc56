"""ActivityNet-QA: questions that people wrote about videos of two minutes (https://arxiv.org/abs/1906.02467)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Example, Task
from evalkit.datasets import open_questions
from evalkit.datasets.files import error_context, find_videos, first_existing, read_table, video_file
from evalkit.datasets.open_questions import IG_VLM, Questions, Row
from evalkit.metrics.text.exact_match import exact_match
from evalkit.mini.answers import one_step

ADAPTER = "captioner"
# By the number in its files; the first three are about these, the others free, by what is answered.
KINDS = ("motion", "spatial", "temporal", "yes-no", "color", "object", "location", "number", "other")


def task(root: Path = Path("data/activitynet_qa"), mini: bool = False) -> Task:
    """Answers questions about motion, place, time and content of a video, by exact match as its own scorer.

    Files: test_q.json and test_a.json as published, and those of train and val, which may be missing; or IG-VLM's
    ActivityNet_QA.csv, which is test, three of whose questions begin with a number that is not theirs; the videos as
    v_<id>.mp4 in any folder there. Where a language model judges the answers, numbers are not comparable.

    Args:
        root: folder with the files and the videos.
        mini: ten-second films of the mini world, asked for color, shape and action.
    """
    return open_questions.open_question_task(
        one_step() if mini else _read(root),
        score=exact_match,
        split="mini" if mini else "test",
        sizes={} if mini else {"train": 32_000, "val": 18_000, "test": 8_000},
        license="generated (Apache-2.0)" if mini else "Apache-2.0 (annotations)",
        source="https://github.com/MILVLG/activitynet-qa",
    )


def _read(root: Path) -> Questions:
    videos = find_videos(root)

    def tell(row: Row, answer: Row) -> Example:
        stem = f"v_{row['video_name'].removeprefix('v_')}"
        kind = KINDS[range(len(KINDS)).index(int(answer["type"]))]
        return open_questions.question(
            row["question_id"], video_file(videos, root / "videos", stem), row["question"], [answer["answer"]], kind
        )

    def of(split: str) -> list[Example]:
        known = {}
        for where, row in open_questions.entries(first_existing(root, f"{split}_a.json")):
            with error_context(where):
                known[row["question_id"]] = row
        return open_questions.read(
            open_questions.entries(root / f"{split}_q.json"), lambda row: tell(row, known[row["question_id"]])
        )

    file = first_existing(root, "test_q.json", "ActivityNet_QA.csv")
    if file.suffix == ".csv":
        return Questions(
            open_questions.read(read_table(file, IG_VLM), lambda row: tell(row, {**row, "type": row["question_type"]}))
        )
    train, val = (of(split) if (root / f"{split}_q.json").is_file() else [] for split in ("train", "val"))
    return Questions(of("test"), train, val if train else [])
