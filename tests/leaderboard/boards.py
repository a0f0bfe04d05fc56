"""Results for a board, and what a board holds."""

import csv
import importlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evalkit.metrics.classification import accuracy
from evalkit.results import run_folder
from evalkit.results.rows import Row
from evalkit.results.scores import scores
from tests.records import result_of

board = importlib.import_module("evalkit.leaderboard.board")

Edit = Callable[[dict[str, Any]], object]


def record_of(rows: Sequence[Row], task: str, encoder: str, score: Callable[..., Any]) -> dict[str, Any]:
    """The record of a run of a task without published numbers."""
    record = result_of(rows, score)
    record["task"] |= {"name": task, "published": {}}
    record["encoder"] |= {"name": encoder, "ckpt": encoder}
    return record


def put(
    results: Path,
    rows: Sequence[Row],
    task: str = "egoschema@mini",
    encoder: str = "demo",
    day: int = 1,
    edit: Edit = lambda record: None,
    score: Callable[..., Any] = accuracy,
) -> Path:
    """Writes a run."""
    record = record_of(rows, task, encoder, score)
    record["provenance"]["finished"] = f"2026-02-{day:02d}T00:00:59+00:00"
    edit(record)
    return run_folder.write(results / encoder / task / f"run-{day}", record, rows, f"task: {task}\n")


def put_seed(
    results: Path,
    rows: Sequence[Row],
    seed: int,
    day: int,
    edit: Edit = lambda record: None,
    score: Callable[..., Any] = accuracy,
) -> None:
    """Writes a run of a seed."""

    def of_seed(record: dict[str, Any]) -> None:
        record["provenance"]["seed"] = seed
        edit(record)
        record["scores"] = scores(score, rows, record["provenance"]["seed"])

    put(results, rows, day=day, edit=of_seed, score=score)


def right(numbers: Sequence[int], n: int) -> list[Row]:
    """Rows of n examples, each of its own video, of which those with these numbers are right."""
    return [Row(f"q{i}", f"v{i}", target=1, prediction=int(i in numbers)) for i in range(n)]


def texts(n: int) -> list[Row]:
    """Rows of n captions, each of its own video, that have some words of what is right."""
    words = ["a", "red", "ball", "rolls", "up", "to", "the", "left", "and", "then", "down"]
    return [Row(f"q{i}", f"v{i}", target=" ".join(words[i:]), prediction=" ".join(words[:-i])) for i in range(1, n + 1)]


def page(results: Path) -> str:
    return str(board.render_markdown(*board.collect(results)))


def cells(results: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(board.render_csv(board.collect(results)[0]))))


def lines(text: str, begin: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(begin)]


def hits(n: int, of: int) -> list[Row]:
    """Rows of top-5 answers, n of which have the right one first."""
    return [Row(f"q{i}", f"v{i}", target=1, prediction=[1, 2] if i < n else [2, 1]) for i in range(of)]
