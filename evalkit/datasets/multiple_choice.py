"""Questions with choices: the published files, and one example per question."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from evalkit.api import Example, Task
from evalkit.datasets.files import LabeledRow, error_context, find_videos, first_existing, read_table, video_file
from evalkit.metrics.classification import accuracy

NEXTQA = ("video", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4")
KINDS = {"C": "causal", "T": "temporal", "D": "descriptive"}  # by the first letter of NExT-QA's types


def multiple_choice_task(found: LabeledRow, **words: Any) -> Task:
    """A task of multiple choice, scored by its accuracy.

    Args:
        found: the examples; a target is an index into the example's choices.
        words: what else `evalkit.api.Task` takes.
    """
    return Task(
        test=found.test,
        train=found.train,
        score=accuracy,
        chance=fmean(100 / len(example.choices) for example in found.test),
        prepare_videos=found.prepare_videos,
        **words,
    )


def read_nextqa(root: Path, *names: str) -> list[Example]:
    """The questions of one of NExT-QA's csv files, by the video's name and the question's number in it.

    Videos are found by their names in any folder, so that the file that says where VidOR has them is not needed.

    Args:
        root: folder with the csv and the videos.
        names: of the csv under it; the first that is there.

    Raises:
        UserError: there is none, or names file and line of a row that is not as published.
    """
    videos = find_videos(root)
    found: dict[str, Example] = {}
    for where, row in read_table(first_existing(root, *names), NEXTQA):
        with error_context(where):
            name = f"{row['video']}_{row['qid']}"
            if name in found:
                raise ValueError(f"question {name} stands there twice")
            found[name] = Example(
                name,
                video_file(videos, root / "NExTVideo", row["video"]),
                range(5).index(int(row["answer"])),
                text=row["question"],
                choices=tuple(row[f"a{i}"] for i in range(5)),
                kind=KINDS[row["type"][:1]],
            )
    return list(found.values())
