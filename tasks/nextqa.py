"""NExT-QA: five-way multiple choice about cause and time (https://arxiv.org/abs/2105.08276)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from evalkit.api import Data, Task, Views
from evalkit.datasets.files import LabeledSplits
from evalkit.datasets.multiple_choice import multiple_choice_task, read_nextqa
from evalkit.mini import questions

ADAPTER = "multiple_choice"
SIZES = {"val": 4_996, "test": 8_564}
# Of val, from its own repository: the best model that it was published with, and people.
PUBLISHED = {"HGA": 49.74, "human": 88.38}


DATA = Data(
    source="https://github.com/doc-doc/NExT-QA",
    license="MIT (annotations)",
    files={
        "val.csv": "columns video, question, answer, qid, type, a0, ..., a4 and others; also in dataset/nextqa/",
        "test.csv": "the same, with data.split=test",
        "NExTVideo/1106/VIDEO.mp4": "the videos, in any folder there",
    },
    sizes={"test": SIZES["val"]},
)


def task(root: Path = Path("data/nextqa"), mini: bool = False, split: Literal["val", "test"] = "val") -> Task:
    """Chooses one of five answers to a question about cause, time or content of an everyday video.

    Files as published: val.csv or test.csv, here or in dataset/nextqa/, and the videos as <video>.mp4 in any folder
    there, such as NExTVideo/1106/. Scores are also given for causal, temporal and descriptive questions, as its own
    scorer does. Frames are sampled uniformly from the whole video. The train split is not read.

    Args:
        root: folder with the csv files and the videos.
        mini: the films of egoschema's miniature, and its questions.
        split: val, which most papers report, or test.
    """
    return multiple_choice_task(
        questions.whole()
        if mini
        else LabeledSplits([], read_nextqa(root, f"{split}.csv", f"dataset/nextqa/{split}.csv"), ()),
        mini,
        views=Views("uniform"),
        controls=("blind", "shuffled", "single_frame", "option_order"),
        split=split,
        sizes={"test": SIZES[split]},
        license=DATA.license,
        source=DATA.source,
        published=PUBLISHED if split == "val" else {},
    )
