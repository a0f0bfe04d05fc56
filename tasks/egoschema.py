"""EgoSchema: multiple choice about three-minute first-person videos (https://arxiv.org/abs/2308.09126)."""

from __future__ import annotations

import csv
import functools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.api import Example, Task
from evalkit.datasets import captions
from evalkit.errors import UserError
from evalkit.metrics.classification import accuracy
from evalkit.mini import language
from evalkit.mini.captions import TEST, TRAIN
from evalkit.mini.library import Films, three_minutes

logger = logging.getLogger("evalkit")

ADAPTER = "multiple_choice"
OPTIONS = 5


def task(
    root: Path = Path("data/egoschema"),
    mini: bool = False,
    subset: bool = True,
    allow_holes: bool = False,
) -> Task:
    """Chooses one of five answers about a three-minute first-person video.

    Files as https://github.com/egoschema/EgoSchema gives them: questions.json, or a csv with the columns video_name,
    question, a0 .. a4; subset_answers.json with the answers of 500; videos/<q_uid>.mp4. The 4,531 questions without a
    public answer get predictions and never a score. Frames are taken uniformly over the whole video. Accuracy depends
    by ten points and more on how options are scored, so the scorer is part of the protocol. Zero-shot only: there is
    no train split, but the miniature has one.

    Args:
        root: folder with the official files.
        mini: three-minute films of the mini world in place of the real videos.
        subset: only the 500 questions with a public answer; false means all 5,031.
        allow_holes: write submission files even where a question has no answer.
    """
    films: list[Films] = []
    if mini:
        (test, test_films), (train, train_films) = _mini("test", TEST), _mini("train", TRAIN)
        films = [test_films, train_films]
    else:
        test, train = _official(root, subset), []
    return Task(
        test=test,
        score=accuracy,
        train=train,
        controls=("blind", "shuffled", "single_frame", "option_order"),
        chance=100 / OPTIONS,
        split="mini" if mini else "subset" if subset else "full",
        license="Ego4D license; generated (Apache-2.0) for the miniature",
        source="https://github.com/egoschema/EgoSchema",
        published={} if mini else PUBLISHED,
        prepare_videos=functools.partial(_provide, films) if mini else None,
        submission=None if mini else functools.partial(submission, allow_holes=allow_holes),
    )


# LongViViT, Table 3: the 500 questions with a public answer, which are what is scored with either setting of `subset`.
PUBLISHED = {"ImageViT": 40.8, "ShortViViT": 47.9, "LongViViT": 56.8, "blind Bard": 27.0}


def submission(predictions: Mapping[str, Any], folder: Path, allow_holes: bool = False) -> list[Path]:
    """Writes the forms that the validation server (JSON) and the Kaggle competition (CSV) take; none with holes."""
    answered = {uid: int(answer) for uid, answer in predictions.items() if answer is not None}
    if len(answered) < len(predictions) and not allow_holes:
        missing = len(predictions) - len(answered)
        logger.warning(
            f"no submission written: {missing} of {len(predictions)} questions have no answer; "
            "data.allow_holes=true writes one without them"
        )
        return []
    files = [folder / "submission.json", folder / "submission.csv"]
    files[0].write_text(json.dumps(answered, indent=1) + "\n", encoding="utf-8")
    with files[1].open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("q_uid", "answer"), *answered.items()])
    return files


def _mini(split: str, n: int) -> tuple[list[Example], Films]:
    questions = language.questions(split, n)
    films = three_minutes(split, n)
    examples = [
        Example(
            id=f"{split}-{i:04d}",
            video=path,
            target=question.answer,
            text=captions.QUESTION,
            choices=tuple(map(str, question.options)),
            kind=question.kind,
        )
        for i, (question, path) in enumerate(zip(questions, films.paths, strict=True))
    ]
    return examples, films


def _provide(films: Sequence[Films], examples: Sequence[Example]) -> None:
    for one in films:
        one.prepare_videos(examples)


def _official(root: Path, subset: bool) -> list[Example]:
    if not root.is_dir():
        raise UserError(
            f"data.root={root} does not exist: wanted the folder with questions.json, subset_answers.json and videos/ "
            "from https://github.com/egoschema/EgoSchema (mini=true needs none)"
        )
    answers = _answers(root / "subset_answers.json")
    questions = _questions(root)
    if subset:
        if not answers:
            raise UserError(f"{root} has no subset_answers.json: add it, or say data.subset=false")
        if absent := [uid for uid in answers if uid not in questions]:
            raise UserError(
                f"{root}: {len(absent)} of {len(answers)} answered questions are missing, first {absent[0]}"
            )
        questions = {uid: questions[uid] for uid in answers}
    return [
        Example(uid, root / "videos" / f"{uid}.mp4", answers.get(uid), text=text, choices=choices)
        for uid, (text, choices) in questions.items()
    ]


def _questions(root: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    file = root / "questions.json"
    tables = sorted(root.glob("*.csv"))
    if file.is_file():
        rows = _json(file, list)
        names, question = ("q_uid", "question", *(f"option {i}" for i in range(OPTIONS))), "question"
    elif tables:
        file = tables[0]
        try:
            with file.open(newline="", encoding="utf-8-sig") as lines:
                rows = list(csv.DictReader(lines))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"cannot read {file}: {error}") from error
        names, question = ("video_name", "question", *(f"a{i}" for i in range(OPTIONS))), "question"
    else:
        raise UserError(f"{root} has neither questions.json nor a csv of the questions")
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for number, row in enumerate(rows, 1):
        if absent := [name for name in names if not (isinstance(row, dict) and isinstance(row.get(name), str))]:
            raise UserError(f"{file}, question {number}: no {absent[0]!r}; wanted {', '.join(names)}")
        if row[names[0]] in found:
            raise UserError(f"{file}, question {number}: {row[names[0]]} stands there twice")
        found[row[names[0]]] = (row[question], tuple(row[name] for name in names[2:]))
    return found


def _answers(file: Path) -> dict[str, int]:
    if not file.is_file():
        return {}
    answers: dict[str, int] = _json(file, dict)
    for uid, answer in answers.items():
        if type(answer) is not int or not 0 <= answer < OPTIONS:
            raise UserError(f"{file}: the answer of {uid} is {answer!r}; wanted a number from 0 to {OPTIONS - 1}")
    return answers


def _json(file: Path, kind: type) -> Any:
    try:
        value: Sequence[Any] | Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    if not isinstance(value, kind):
        raise UserError(f"cannot read {file}: wanted a JSON {kind.__name__}, found a {type(value).__name__}")
    return value
