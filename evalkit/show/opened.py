"""A run read for looking at: its rows, what each scores, what controls said, and the task's texts where they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.api import Example, Task
from evalkit.config.config import Config
from evalkit.errors import UserError, on_screen
from evalkit.metrics.bootstrap import AdditiveScore
from evalkit.results import evidence
from evalkit.results.rows import Row
from evalkit.results.run_folder import PREDICTIONS, RESULT, as_line, file_sha256, folder_of, load, load_rows
from evalkit.results.schema import violations
from evalkit.results.scores import Measured, lower_is_better, measure, resolve
from evalkit.show.rebuilt import config_of, task_of

# What is asked of a sample, and so what can be shown of its answer.
KINDS = ("class", "classes", "question", "retrieval", "text", "other")
MOST_OPTIONS = 100  # of a question whose options are not here


@dataclass(frozen=True)
class Opened:
    """A run and what is known of its samples.

    Attributes:
        folder: of the run.
        record: its result.json.
        rows: its predictions, in order.
        metric: by which a sample has a value of its own; empty where no metric is of single samples.
        values: by it, of each row, in the metric's unit; None where there is none.
        controls: by example id what each control predicted.
        task: with the run's own test examples; None where they are not here.
        config: of the task alone; None where it cannot be made.
        remarks: a line for each part that cannot be shown, and why.
    """

    folder: Path
    record: Mapping[str, Any]
    rows: Sequence[Row]
    metric: str
    values: Sequence[float | None]
    controls: Mapping[str, Mapping[str, Any]]
    task: Task | None = None
    config: Config | None = None
    remarks: Sequence[str] = field(default_factory=tuple)

    @cached_property
    def place(self) -> dict[str, int]:
        """Where each sample's row stands, by its id."""
        return {row.id: place for place, row in enumerate(self.rows)}

    @cached_property
    def examples(self) -> dict[str, Example]:
        """The task's test examples by id; empty where they are not here."""
        return {example.id: example for example in self.task.test} if self.task else {}

    @cached_property
    def kind(self) -> str:
        """What is asked of the samples, one of `KINDS`."""
        answered = (row for row in self.rows if row.prediction is not None)
        kinds = {_kind(row, self.examples.get(row.id)) for row in answered}
        return kinds.pop() if len(kinds) == 1 else "other"

    def kind_of(self, row: Row) -> str:
        """What is asked of one sample: as of the others, unless what is expected of it is of no such type."""
        return self.kind if _fits(self.kind, row.target) else "other"

    def is_right(self, row: Row) -> bool | None:
        """Whether a sample is answered rightly; None where that cannot be said: it has no answer, or more or less."""
        value, target = row.prediction, row.target
        if value is None or target is None:
            return False if target is not None else None
        if self.kind in ("class", "question"):
            return bool(self.answer(value) == target)
        if self.kind == "retrieval":
            return bool(value["t2v"] == 1)
        known = self.values[self.place[row.id]]
        return known == 100.0 if self.whole and known is not None else None

    @cached_property
    def whole(self) -> bool:
        """Whether each sample is right or wrong by the metric, and nothing between."""
        return bool(self.metric) and {value for value in self.values if value is not None} <= {0.0, 100.0}

    def answer(self, value: Any) -> Any:
        """What a prediction says in the first place: the likeliest class of several, else the whole of it."""
        if self.kind == "classes" and value and is_numbers(value):
            return max(range(len(value)), key=lambda number: value[number])
        return value[0] if self.kind == "class" and isinstance(value, list) and value else value

    def name(self, number: Any) -> str:
        """A class by its name, or by its number where that is not known."""
        classes = self.task.classes if self.task else ()
        return classes[number] if type(number) is int and 0 <= number < len(classes) else str(number)


def open_run(path: Path, words: Sequence[str] = (), files: Sequence[Path] = ()) -> Opened:
    """Reads a run; what is not here, of its task or score function, is left out and told in `remarks`.

    Args:
        path: the run's folder or its result.json.
        words: key=value of the user's, such as data.root=, in place of those of the run.
        files: of tasks of the user's own. What a run names of others is not imported.

    Raises:
        UserError: there is no run, it is damaged, or it is no result of this version's schema.
    """
    record, folder = load(path), folder_of(path)
    if (version := record.get("schema")) != 1:
        raise UserError(f"{folder}: {RESULT} is of schema {str(version)[:20]}, and this evalkit reads schema 1")
    if problems := violations(record):
        raise UserError(f"{folder}: {RESULT}: {problems[0]}")
    rows, remarks = load_rows(path), []
    if not rows:
        raise UserError(f"{folder}: {PREDICTIONS} is empty: there is no sample to show")
    if len({row.id for row in rows}) < len(rows):
        raise UserError(f"{folder}: {PREDICTIONS} has two rows with one id; `evalkit validate` says more")
    if file_sha256(folder / PREDICTIONS) != record["data"]["predictions_sha256"]:
        remarks.append(f"{PREDICTIONS} was changed since the run: `evalkit validate {folder}` says more")
    metric = ""
    values: list[float | None] = [None] * len(rows)
    try:
        metric, values = _by_sample(
            measure(resolve(record["task"].get("quick_score") or record["task"]["score"], files), rows), rows
        )
    except Exception as error:  # whatever a score function raises of rows that it did not expect
        remarks.append(f"no sample has a score of its own: {as_line(error)}")
    task = config = None
    try:
        config = config_of(folder, words, files, task_alone=True)
        task = task_of(config, record)
    except UserError as error:
        remarks.append(f"without the task's names, texts and videos: {error}")
    return Opened(
        folder, record, rows, metric, values, evidence.controls(folder), task, config, [*map(on_screen, remarks)]
    )


def _by_sample(measured: Measured, rows: Sequence[Row]) -> tuple[str, list[float | None]]:
    """The first metric that says something of a single sample, and what that is of each row."""
    for metric, score in measured.items():
        if isinstance(score, AdditiveScore):
            with np.errstate(divide="ignore", invalid="ignore"):
                each = np.asarray(score.of(score.parts), np.float64)
        elif isinstance(score, np.ndarray):
            each = 100 * score
        else:
            continue
        of_labeled = iter(each.tolist())
        values = [None if row.target is None else next(of_labeled) for row in rows]
        return metric, [None if value is None or math.isnan(value) else value for value in values]
    return "", [None] * len(rows)


def _kind(row: Row, example: Example | None) -> str:
    """Which of `KINDS` a row is of, by the types of all that is shown of it: others may have written it."""
    value, kind = row.prediction, "other"
    if isinstance(value, dict):
        kind = "retrieval" if is_numbers([value.get("t2v"), value.get("v2t")]) else "other"
    elif isinstance(value, str):
        kind = "text"
    elif type(value) is int:
        told = {"log_likelihood", "cosines", "similarity", "said"} & set(row.detail or {})
        options = len(example.choices) if example else MOST_OPTIONS if told else 0
        of_options = [value, row.target if type(row.target) is int else 0]
        kind = "class" if not options else "question" if all(0 <= n < options for n in of_options) else "other"
    elif value and is_numbers(value):
        one_class = type(row.target) in (int, type(None)) and all(type(item) is int for item in value)
        kind = "class" if one_class else "classes"
    return kind if _fits(kind, row.target) else "other"


def _fits(kind: str, target: Any) -> bool:
    """Whether a target is as samples of a kind have them."""
    several = target if isinstance(target, list) else [target]
    if target is None or kind == "other":
        return True
    if kind == "retrieval":
        return isinstance(target, str) or several != []
    kinds = {"text": str}.get(kind, int)
    return (kind in ("classes", "text") or target is not several) and all(type(one) is kinds for one in several)


def is_numbers(value: Any) -> bool:
    """Whether it is a list of numbers."""
    return isinstance(value, list) and all(type(item) in (int, float) for item in value)


def worst_first(opened: Opened) -> list[Row]:
    """The answered samples with a value of their own, the worst first."""
    upward = 1 if not lower_is_better(opened.metric) else -1
    known = [
        (upward * value, place, row)
        for place, (row, value) in enumerate(zip(opened.rows, opened.values, strict=True))
        if value is not None and row.prediction is not None
    ]
    return [row for *_, row in sorted(known, key=lambda entry: entry[:2])]
