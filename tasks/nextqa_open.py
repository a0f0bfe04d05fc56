"""NExT-QA with open-ended questions about cause and time (https://arxiv.org/abs/2105.08276)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from evalkit.api import Data, Example, Task
from evalkit.datasets import open_questions, published
from evalkit.datasets.files import find_file, read_json, read_table
from evalkit.datasets.multiple_choice import KINDS
from evalkit.datasets.open_questions import QuestionSplits, Row, Split
from evalkit.datasets.videos import find_videos, video_file
from evalkit.errors import UserError
from evalkit.metrics import exact_match, wups, wups_untagged
from evalkit.mini.answers import one_step

ADAPTER = "captioner"
SIZES = {"train": 37_523, "val": 5_343, "test": 9_178}
COLUMNS = ("video", "question", "answer", "qid", "type")
SECOND_ANSWERS, ANSWERED_TWICE = "add_reference_answer_test.json", 4_632
HGA = {"val": 21.48, "test": 25.18}  # the best model that it was published with, from its own repository


DATA = Data(
    source="https://github.com/doc-doc/NExT-OE",
    license="MIT (annotations)",
    files={
        "val.csv": "columns video, question, answer, qid, type; all files also in dataset/nextqa/",
        "test.csv": "the same, with data.split=test",
        "add_reference_answer_test.json": "{video: {qid: second answer}}, with test.csv",
        "train.csv": "as val.csv; may be missing",
        "NExTVideo/1106/VIDEO.mp4": "the videos, in any folder there",
    },
    sizes={"train": SIZES["train"], "test": SIZES["val"]},
    needs={"wups": "mini=false data.tagger=true", "WordNet": "mini=false"},
)


def task(root: Path = Path("data/nextqa_open"), mini: bool = False, split: Split = "val", tagger: bool = True) -> Task:
    """Answers open-ended questions about cause, time or content of everyday videos, scored by WUPS.

    Files as published: val.csv; or test.csv and add_reference_answer_test.json, which has a second answer to half of
    it; train.csv, which may be missing; all here or in dataset/nextqa/; the videos as <video>.mp4 in any folder there.
    For test, val is what is chosen on, else a tenth of train. Answers to yes-or-no and counting questions are right or
    wrong, the others near or far; what that needs, evalkit/metrics/text/wups.py says. While a model is chosen, all are
    near or far. The miniature is scored by exact match, which needs nothing.

    Args:
        root: folder with the files and the videos; not multiple choice's, whose files have the same names.
        mini: generated ten-second films with questions about color, shape and action.
        split: val or test.
        tagger: find base forms by nltk's tagger, as its own scorer does; without it WUPS-untagged is scored, which
            needs WordNet alone and is 0.2 to 0.4 points higher.
    """
    zero_shot = published.rows("nextqa_open", "WUPS", "zero-shot") if split == "test" else {}
    return open_questions.open_question_task(
        one_step() if mini else _read(root, split),
        mini,
        score=exact_match if mini else wups if tagger else wups_untagged,
        split=split,
        sizes={**DATA.sizes, "test": SIZES[split]},
        license=DATA.license,
        source=DATA.source,
        published={} if not tagger else {"HGA": HGA[split], **zero_shot},
    )


def _read(root: Path, split: Split) -> QuestionSplits:
    videos = find_videos(root)
    second_answers = read_json(find_file(root, *_paths(SECOND_ANSWERS)), dict) if split == "test" else {}
    names: set[str] = set()

    def parse(row: Row) -> Example:
        if "a0" in row:
            raise ValueError("a question of multiple choice; wanted the files of https://github.com/doc-doc/NExT-OE")
        name = f"{row['video']}_{row['qid']}"
        name = f"{name}_{row['type']}" if name in names else name  # three numbers stand in train twice
        names.add(name)
        second = second_answers.get(row["video"], {}).get(row["qid"])
        texts = [row["answer"]] if second is None else [row["answer"], second]
        path = video_file(videos, root / "NExTVideo", row["video"])
        return open_questions.question(name, path, row["question"], texts, KINDS[row["type"][:1]])

    def parse_test(row: Row) -> Example:
        example = parse(row)
        return replace(example, target={"kind": row["type"], "answers": example.target})

    def read(part: str, parse: Callable[[Row], Example]) -> list[Example]:
        return open_questions.read_questions(read_table(find_file(root, *_paths(f"{part}.csv")), COLUMNS), parse)

    existing = {part for part in ("train", "val") for name in _paths(f"{part}.csv") if (root / name).is_file()}
    train = read("train", parse) if "train" in existing else []
    test = read(split, parse_test)
    twice = sum(len(example.target["answers"]) == 2 for example in test)
    if split == "test" and len(test) == SIZES["test"] and twice < ANSWERED_TWICE:
        raise UserError(
            f"{find_file(root, *_paths(SECOND_ANSWERS))}: second answers to {twice} questions of test.csv; published "
            f"are {ANSWERED_TWICE}: download the file again"
        )
    return QuestionSplits(test, train, read("val", parse) if train and split == "test" and "val" in existing else [])


def _paths(name: str) -> tuple[str, str]:
    return name, f"dataset/nextqa/{name}"
