"""Multiple choice: the task, and the reader of NExT-QA."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from evalkit.api import Example, Task
from evalkit.datasets.files import LabeledSplits, class_number, find_file, parsing_errors_at, read_table
from evalkit.datasets.miniature import miniature
from evalkit.datasets.videos import find_videos, video_file
from evalkit.metrics.classification import accuracy

NEXTQA = ("video", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4")
KINDS = {"C": "causal", "T": "temporal", "D": "descriptive"}  # by the first letter of NExT-QA's types


def multiple_choice_task(splits: LabeledSplits, mini: bool = False, **facts: Any) -> Task:
    """A multiple choice task, scored by accuracy.

    Args:
        splits: the examples; a target is an index into the example's choices.
        mini: they are the miniature's.
        facts: other fields of `evalkit.api.Task`.
    """
    return Task(
        test=splits.test,
        train=splits.train,
        score=accuracy,
        chance=fmean(100 / len(example.choices) for example in splits.test) if splits.test else 0.0,
        prepare_videos=splits.prepare_videos,
        **(miniature(facts) if mini else facts),
    )


def read_nextqa(root: Path, *names: str) -> list[Example]:
    """Reads the questions of one of NExT-QA's csv files; an id is the video's name and the question's number.

    Videos are found by name in any folder, so VidOR's map of folders is not needed.

    Args:
        root: folder with the csv and the videos.
        names: of the csv under it; the first that exists is read.

    Raises:
        UserError: there is none, or names file and line of a row that is not as published.
    """
    videos = find_videos(root)
    examples: dict[str, Example] = {}
    for where, row in read_table(find_file(root, *names), NEXTQA):
        with parsing_errors_at(where):
            name = f"{row['video']}_{row['qid']}"
            if name in examples:
                raise ValueError(f"question {name} appears twice")
            examples[name] = Example(
                name,
                video_file(videos, root / "NExTVideo", row["video"]),
                class_number(row["answer"], 5),
                text=row["question"],
                choices=tuple(row[f"a{i}"] for i in range(5)),
                kind=KINDS[row["type"][:1]],
            )
    return list(examples.values())
