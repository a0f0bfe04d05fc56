"""Open questions: the task, examples whose target is the answers, and the reader of MSRVTT-QA and MSVD-QA."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evalkit.api import Example, Task, Views
from evalkit.datasets.captions import clean_text
from evalkit.datasets.files import find_file, parsing_errors_at, read_json, read_table
from evalkit.datasets.miniature import miniature
from evalkit.datasets.videos import find_videos, video_file

Row = Mapping[str, Any]
Split = Literal["val", "test"]

# VideoPrism (https://arxiv.org/abs/2402.13217, appendix G): the likeliest of the most frequent answers of one token.
CLOSED = {"answers": "closed", "vocabulary": 250}
KINDS = ("what", "who", "how", "when", "where")  # of MSRVTT-QA and MSVD-QA
IG_VLM = ("video_name", "question", "answer", "question_id", "question_type")  # its csv files have these in common


class QuestionSplits(NamedTuple):
    """Questions about videos, split as in `evalkit.api.Task`."""

    test: Sequence[Example]
    train: Sequence[Example] = ()
    val: Sequence[Example] = ()
    prepare_videos: Callable[[Sequence[Example]], None] | None = None


def open_question_task(splits: QuestionSplits, mini: bool = False, **facts: Any) -> Task:
    """An open-ended question answering task; frames are sampled uniformly from the whole video.

    Args:
        splits: the questions.
        mini: they are the miniature's.
        facts: other fields of `evalkit.api.Task`.
    """
    return Task(
        test=splits.test,
        train=splits.train,
        val=splits.val,
        views=Views("uniform"),
        controls=("blind", "shuffled"),
        prepare_videos=splits.prepare_videos,
        **(miniature(facts) if mini else facts),
    )


def question(name: Any, path: Path, text: Any, answers: Sequence[Any], kind: str = "") -> Example:
    """The example of a question; any of the answers is right.

    Raises:
        ValueError: the question or an answer is not text, or blank.
    """
    targets = tuple(clean_text(answer, "answer") for answer in answers)
    return Example(str(name), path, targets, text=clean_text(text, "question"), kind=kind)


def read_questions(rows: Iterable[tuple[str, Row]], parse: Callable[[Row], Example]) -> list[Example]:
    """Reads the questions of a file.

    Args:
        rows: the place of each row, and the row.
        parse: makes the example of a row.

    Raises:
        UserError: names the place of a row that is not as published, or whose question appears twice.
    """
    examples: dict[str, Example] = {}
    for where, row in rows:
        with parsing_errors_at(where):
            example = parse(row)
            if example.id in examples:
                raise ValueError(f"question {example.id} appears twice")
            examples[example.id] = example
    return list(examples.values())


def json_rows(file: Path) -> Iterator[tuple[str, Row]]:
    """Yields the place of each entry of a JSON list (file and number), and the entry."""
    return ((f"{file}, question {number}", entry) for number, entry in enumerate(read_json(file, list), 1))


def read_msr_qa(root: Path, split: Split, csv: str, name: Callable[[Any], str]) -> QuestionSplits:
    """Reads MSRVTT-QA or MSVD-QA as published: train_qa.json, val_qa.json and test_qa.json.

    Without a file of training there is no train split; without one of val a tenth of train is chosen on. Questions of
    val may also be IG-VLM's csv. A question's kind is its first word, as in the paper, if it is one of `KINDS`.

    Args:
        root: folder with the files, and the videos in any folder there.
        split: read as test.
        csv: the name of IG-VLM's file.
        name: a video's name, by its number in the json.

    Raises:
        UserError: there is no file of the split, or a row is not as published.
    """
    videos = find_videos(root)

    def parse(number: Any, stem: str, row: Row) -> Example:
        first = row["question"].split()[0]
        kind = first if first in KINDS else ""
        return question(number, video_file(videos, root / "videos", stem), row["question"], [row["answer"]], kind)

    def read(file: Path) -> list[Example]:
        if file.name == csv:
            return read_questions(
                read_table(file, IG_VLM), lambda row: parse(row["question_id"], row["video_name"], row)
            )
        return read_questions(json_rows(file), lambda row: parse(row["id"], name(row["video_id"]), row))

    test = read(find_file(root, f"{split}_qa.json", *([csv] if split == "val" else [])))
    train, val = (read(file) if (file := root / f"{part}_qa.json").is_file() else [] for part in ("train", "val"))
    return QuestionSplits(test, train, val if train and split == "test" else [])
