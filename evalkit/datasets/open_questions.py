"""Open questions: the published files, and one example per question, whose target is the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evalkit.api import Example, Task, Views
from evalkit.datasets.captions import caption
from evalkit.datasets.files import error_context, find_videos, first_existing, read_json, read_table, video_file

Row = Mapping[str, Any]
Split = Literal["val", "test"]

# VideoPrism (https://arxiv.org/abs/2402.13217, appendix G): the likeliest of the most frequent answers of one token.
CLOSED = {"answers": "closed", "vocabulary": 250}
KINDS = ("what", "who", "how", "when", "where")  # of MSRVTT-QA and MSVD-QA
IG_VLM = ("video_name", "question", "answer", "question_id", "question_type")  # its csv files have these in common


class Questions(NamedTuple):
    """Questions about videos, split as in `evalkit.api.Task`."""

    test: Sequence[Example]
    train: Sequence[Example] = ()
    val: Sequence[Example] = ()
    prepare_videos: Callable[[Sequence[Example]], None] | None = None


def open_question_task(found: Questions, **words: Any) -> Task:
    """A task of answering in one's own words; frames are taken uniformly over the whole video.

    Args:
        found: the questions.
        words: what else `evalkit.api.Task` takes.
    """
    return Task(
        test=found.test,
        train=found.train,
        val=found.val,
        views=Views("uniform"),
        controls=("blind", "shuffled"),
        prepare_videos=found.prepare_videos,
        **words,
    )


def question(name: Any, path: Path, asked: Any, answers: Sequence[Any], kind: str = "") -> Example:
    """A question about a video, and the answers of which any is right.

    Raises:
        ValueError: one of them is no text, or empty.
    """
    texts = tuple(caption(answer, "answer") for answer in answers)
    return Example(str(name), path, texts, text=caption(asked, "question"), kind=kind)


def read(rows: Iterable[tuple[str, Row]], tell: Callable[[Row], Example]) -> list[Example]:
    """The questions of a file.

    Args:
        rows: where each row stands, and the row.
        tell: a row -> its question.

    Raises:
        UserError: names the place of a row that is not as published, or whose question stands there twice.
    """
    found: dict[str, Example] = {}
    for where, row in rows:
        with error_context(where):
            one = tell(row)
            if one.id in found:
                raise ValueError(f"question {one.id} stands there twice")
            found[one.id] = one
    return list(found.values())


def entries(file: Path) -> Iterator[tuple[str, Row]]:
    """Where each entry of a json list stands (file and number), and the entry."""
    return ((f"{file}, question {number}", entry) for number, entry in enumerate(read_json(file, list), 1))


def read_msr_qa(root: Path, split: Split, csv: str, name: Callable[[Any], str]) -> Questions:
    """Questions as MSRVTT-QA and MSVD-QA are published: train_qa.json, val_qa.json and test_qa.json.

    Without a file of training there is no train split; without one of val a tenth of train is chosen on. Questions of
    val may also be IG-VLM's csv. A question's kind is its first word, as in the paper, where it is one of `KINDS`.

    Args:
        root: folder with the files, and the videos in any folder there.
        split: what is tested on.
        csv: the name of IG-VLM's file.
        name: a video's name, by its number in the json.

    Raises:
        UserError: there is no file of the split, or a row is not as published.
    """
    videos = find_videos(root)

    def tell(number: Any, stem: str, row: Row) -> Example:
        first = row["question"].split()[0]
        kind = first if first in KINDS else ""
        return question(number, video_file(videos, root / "videos", stem), row["question"], [row["answer"]], kind)

    def of(file: Path) -> list[Example]:
        if file.name == csv:
            return read(read_table(file, IG_VLM), lambda row: tell(row["question_id"], row["video_name"], row))
        return read(entries(file), lambda row: tell(row["id"], name(row["video_id"]), row))

    test = of(first_existing(root, f"{split}_qa.json", *([csv] if split == "val" else [])))
    train, val = (of(file) if (file := root / f"{part}_qa.json").is_file() else [] for part in ("train", "val"))
    return Questions(test, train, val if train and split == "test" else [])
