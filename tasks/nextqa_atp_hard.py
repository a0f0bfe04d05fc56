"""NExT-QA's ATP-Hard: causal and temporal questions that one frame does not answer
(https://arxiv.org/abs/2206.01720).
"""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Data, Example, Task, Views
from evalkit.datasets import published
from evalkit.datasets.files import LabeledSplits, class_number, find_file, parsing_errors_at, read_lines
from evalkit.datasets.multiple_choice import multiple_choice_task, read_nextqa
from evalkit.mini import questions

ADAPTER = "zero_shot"
HARD = "nextqa-atphard.csv"


DATA = Data(
    source="https://github.com/StanfordVL/atp-video-language",
    license="MIT (annotations)",
    files={
        "nextqa-atphard.csv": "VideoCon's 2,269 rows of val.csv; or atp-hard-ct4.txt beside val.csv, numbers of "
        "its rows",
        "videos/VIDEO.mp4": "the videos, in any folder there",
    },
    sizes={"test": 2_269},
)


def task(root: Path = Path("data/nextqa"), mini: bool = False) -> Task:
    """Chooses among five answers by the similarity of text and video: zero-shot.

    Files: nextqa-atphard.csv as VideoCon publishes it (2,269 rows of NExT-QA's val.csv), or atp-hard-ct4.txt as its
    makers do (the numbers of rows of val.csv, the first is 0) beside val.csv; and the videos as tasks/nextqa.py has
    them. Frames are sampled uniformly from the whole video. How VideoPrism puts question and answer into one sentence
    is not published: here the question stands before the answer (adapter.question=).

    Args:
        root: folder with the files and the videos.
        mini: the questions of egoschema's miniature that turn on motion or order.
    """
    return multiple_choice_task(
        questions.whole(("motion", "order")) if mini else LabeledSplits([], _hard(root), ()),
        mini,
        views=Views("uniform"),
        controls=("shuffled", "single_frame"),
        split="val",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
        published=published.rows("nextqa_atp_hard", "accuracy", "zero-shot"),
    )


def _hard(root: Path) -> list[Example]:
    file = find_file(root, HARD, "atp-hard-ct4.txt")
    if file.name == HARD:
        return read_nextqa(root, HARD)
    questions_of_val = read_nextqa(root, "val.csv", "dataset/nextqa/val.csv")
    chosen: dict[int, Example] = {}
    for where, line in read_lines(file):
        for number in line.replace(",", " ").split():
            with parsing_errors_at(where):
                row = class_number(number, len(questions_of_val))
                chosen[row] = questions_of_val[row]
    return list(chosen.values())
