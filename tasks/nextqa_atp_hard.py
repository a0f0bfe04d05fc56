"""NExT-QA's ATP-Hard: causal and temporal questions that one frame does not answer
(https://arxiv.org/abs/2206.01720).
"""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Example, Task, Views
from evalkit.datasets import published
from evalkit.datasets.files import LabeledRow, error_context, first_existing, read_lines
from evalkit.datasets.multiple_choice import multiple_choice_task, read_nextqa
from evalkit.mini import questions

ADAPTER = "zero_shot"
HARD = "nextqa-atphard.csv"


def task(root: Path = Path("data/nextqa"), mini: bool = False) -> Task:
    """Chooses the answer, of five, whose words are nearest to the video: zero-shot.

    Files: nextqa-atphard.csv as VideoCon publishes it (2,269 rows of NExT-QA's val.csv), or atp-hard-ct4.txt as its
    makers do (the numbers of rows of val.csv, the first is 0) beside val.csv; and the videos as tasks/nextqa.py has
    them. Frames are taken uniformly over the whole video. How VideoPrism puts question and answer into one sentence is
    not published: here the question stands before the answer (adapter.question=).

    Args:
        root: folder with the files and the videos.
        mini: the questions of egoschema's miniature that turn on motion or order.
    """
    return multiple_choice_task(
        questions.whole(("motion", "order")) if mini else LabeledRow([], _hard(root), ()),
        views=Views("uniform"),
        controls=("shuffled", "single_frame"),
        split="mini" if mini else "val",
        sizes={} if mini else {"test": 2_269},
        license="generated (Apache-2.0)" if mini else "MIT (annotations)",
        source="https://github.com/StanfordVL/atp-video-language",
        published={} if mini else published.rows("nextqa_atp_hard", "accuracy", "zero-shot"),
    )


def _hard(root: Path) -> list[Example]:
    file = first_existing(root, HARD, "atp-hard-ct4.txt")
    if file.name == HARD:
        return read_nextqa(root, HARD)
    every = read_nextqa(root, "val.csv", "dataset/nextqa/val.csv")
    chosen: dict[int, Example] = {}
    for where, line in read_lines(file):
        for number in line.replace(",", " ").split():
            with error_context(where):
                row = range(len(every)).index(int(number))
                chosen[row] = every[row]
    return list(chosen.values())
