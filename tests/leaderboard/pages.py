"""Results for a page, and what a page holds."""

import base64
import importlib
import json
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evalkit.api import Task
from evalkit.metrics.classification import accuracy
from evalkit.results import run_folder
from evalkit.results.rows import Row
from tests.leaderboard.boards import Edit, record_of

_page = importlib.import_module("evalkit.leaderboard.page.render")
_runs = importlib.import_module("evalkit.leaderboard.runs")


def put(
    results: Path,
    rows: Sequence[Row],
    task: str = "egoschema@mini",
    encoder: str = "demo",
    edit: Edit = lambda record: None,
    score: Callable[..., Any] = accuracy,
    config: str = "",
) -> Path:
    """Writes a run; its weights are those of its encoder's name."""
    record = record_of(rows, task, encoder, score)
    record["encoder"]["sha256"] = encoder.encode().hex()[:64].ljust(64, "0")
    edit(record)
    folder = results / re.sub(r"\W", "_", f"{encoder} {task}") / "run"
    name, _, mini = task.partition("@")
    return run_folder.write(folder, record, rows, config or f"task: {name}\n" + "mini: true\n" * bool(mini))


def on_data_of(task: Task) -> Edit:
    """Makes a record that of a run on the examples of a task."""

    def edit(record: dict[str, Any]) -> None:
        record["data"]["fingerprint"] = run_folder.fingerprint(task.test)

    return edit


def write(results: Path, videos: Path | None = None) -> str:
    """The page of all runs in a folder, each of which validates."""
    runs, refused = _runs.collect(results)
    assert not refused
    return str(_page.render_page(runs, refused, (), videos))


def script(html: str, name: str) -> str:
    """What a script element holds."""
    (text,) = re.findall(rf'<script [^>]*id="{name}"[^>]*>(.*?)</script>', html, re.DOTALL)
    return str(text)


def drawn(html: str) -> Any:
    """What is drawn at once."""
    return json.loads(script(html, "data"))


def unpacked(html: str, name: str) -> Any:
    """What is drawn when a run is opened."""
    return json.loads(zlib.decompress(base64.b64decode(script(html, name))))


def samples_of(html: str) -> Any:
    """The samples of the first cell's newest run."""
    return unpacked(html, drawn(html)["cells"][0]["runs"][0]["samples"])
