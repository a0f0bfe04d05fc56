"""EgoSchema: multiple choice about three-minute first-person videos (https://arxiv.org/abs/2308.09126)."""

from __future__ import annotations

import csv
import functools
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.api import Data, Example, Task
from evalkit.datasets.files import LabeledSplits, check_root, read_json, read_table
from evalkit.datasets.open_questions import Row, json_rows
from evalkit.datasets.videos import find_videos, video_file
from evalkit.errors import UserError, counted
from evalkit.metrics import accuracy
from evalkit.mini import questions

logger = logging.getLogger("evalkit")

ADAPTER = "multiple_choice"
OPTIONS = 5
ALL, ANSWERED = 5_031, 500  # questions, and those with a public answer


DATA = Data(
    source="https://github.com/egoschema/EgoSchema",
    license="Ego4D license",
    files={
        "questions.json": "[{q_uid, question, option 0, ..., option 4}]; or a csv with the columns video_name, "
        "question, a0, ..., a4",
        "subset_answers.json": "{q_uid: 0 to 4}, 500 of them",
        "videos/Q_UID.mp4": "the videos, three minutes each",
    },
    sizes={"test": ANSWERED},
)


def task(
    root: Path = Path("data/egoschema"),
    mini: bool = False,
    subset: bool = True,
    allow_holes: bool = False,
) -> Task:
    """Chooses one of five answers about a three-minute first-person video.

    Files as https://github.com/egoschema/EgoSchema gives them: questions.json, or a csv with the columns video_name,
    question, a0 .. a4; subset_answers.json with the answers of 500; videos/<q_uid>.mp4. The 4,531 questions without a
    public answer get predictions and never a score. Frames are sampled uniformly from the whole video. Accuracy depends
    by ten points and more on how options are scored, so the scorer is part of the protocol. Zero-shot only: there is no
    train split, but the miniature has one.

    Args:
        root: folder with the official files.
        mini: three-minute films of the mini world in place of the real videos.
        subset: only the 500 questions with a public answer; false means all 5,031.
        allow_holes: write submission files even where a question has no answer.
    """
    splits = _mini() if mini else LabeledSplits([], _official(root, subset), ())
    return Task(
        test=splits.test,
        score=accuracy,
        train=splits.train,
        controls=("blind", "shuffled", "single_frame", "option_order"),
        chance=100 / OPTIONS,
        sizes={} if mini else DATA.sizes if subset else {"test": ALL},
        split="mini" if mini else "subset" if subset else "full",
        license=f"{DATA.license}; generated (Apache-2.0) for the miniature",
        source=DATA.source,
        published={} if mini else PUBLISHED,
        prepare_videos=splits.prepare_videos,
        submission=None if mini else functools.partial(submission, allow_holes=allow_holes),
    )


# LongViViT, Table 3: the 500 questions with a public answer, which are what is scored with either setting of `subset`.
PUBLISHED = {"ImageViT": 40.8, "ShortViViT": 47.9, "LongViViT": 56.8, "blind Bard": 27.0}


def submission(predictions: Mapping[str, Any], folder: Path, allow_holes: bool = False) -> list[Path]:
    """Writes the files that the validation server (JSON) and the Kaggle competition (csv) take.

    Returns:
        The files; none if a question has no answer and holes are not allowed.
    """
    answered = {uid: int(answer) for uid, answer in predictions.items() if answer is not None}
    if len(answered) < len(predictions) and not allow_holes:
        missing = len(predictions) - len(answered)
        logger.warning(
            f"no submission written: {missing} of {counted(len(predictions), 'question')} without an answer; "
            "data.allow_holes=true writes one without them"
        )
        return []
    files = [folder / "submission.json", folder / "submission.csv"]
    files[0].write_text(json.dumps(answered, indent=1) + "\n", encoding="utf-8")
    with files[1].open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("q_uid", "answer"), *answered.items()])
    return files


def _mini() -> LabeledSplits:
    splits = questions.whole()
    # Four digits, as in recorded results, whose fingerprints hash the ids.
    train, test = (
        [replace(example, id=f"{split}-{i:04d}") for i, example in enumerate(examples)]
        for split, examples in (("train", splits.train), ("test", splits.test))
    )
    return splits._replace(train=train, test=test)


def _official(root: Path, subset: bool) -> list[Example]:
    check_root(
        root,
        "the folder with questions.json, subset_answers.json and videos/ from https://github.com/egoschema/EgoSchema",
    )
    answers = _answers(root / "subset_answers.json")
    by_uid = _questions(root)
    if absent := [uid for uid in answers if uid not in by_uid]:
        raise UserError(f"{root}: {len(absent)} of {len(answers)} answered questions are missing, first {absent[0]}")
    if not subset and len(by_uid) == ALL and len(answers) not in (0, ANSWERED, ALL):
        raise UserError(
            f"{root / 'subset_answers.json'}: answers to {len(answers)} questions; published are {ANSWERED}: download "
            "the file again, or remove it to predict without a score"
        )
    if subset:
        if not answers:
            raise UserError(f"{root} has no subset_answers.json: add it, or say data.subset=false")
        by_uid = {uid: by_uid[uid] for uid in answers}
    videos = find_videos(root / "videos")
    return [
        Example(uid, video_file(videos, root / "videos", uid), answers.get(uid), text=text, choices=choices)
        for uid, (text, choices) in by_uid.items()
    ]


def _questions(root: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Question and options by id."""
    rows: Iterator[tuple[str, Row]]
    file, tables = root / "questions.json", sorted(root.glob("*.csv"))
    if file.is_file():
        columns = ("q_uid", "question", *(f"option {i}" for i in range(OPTIONS)))
        rows = json_rows(file)
    elif tables:
        columns = ("video_name", "question", *(f"a{i}" for i in range(OPTIONS)))
        rows = read_table(tables[0], columns)
    else:
        raise UserError(f"data.root={root} has neither questions.json nor a csv of the questions")
    by_uid: dict[str, tuple[str, tuple[str, ...]]] = {}
    for where, row in rows:
        if absent := [name for name in columns if not (isinstance(row, dict) and isinstance(row.get(name), str))]:
            raise UserError(f"{where}: no {absent[0]!r}; wanted {', '.join(columns)}")
        uid, text, *options = (row[name] for name in columns)
        if uid in by_uid:
            raise UserError(f"{where}: {uid} appears twice")
        by_uid[uid] = text, tuple(options)
    return by_uid


def _answers(file: Path) -> dict[str, int]:
    if not file.is_file():
        return {}
    answers = read_json(file, dict)
    for uid, answer in answers.items():
        if type(answer) is not int or not 0 <= answer < OPTIONS:
            raise UserError(f"{file}: the answer of {uid} is {answer!r}; wanted a number from 0 to {OPTIONS - 1}")
    return answers
