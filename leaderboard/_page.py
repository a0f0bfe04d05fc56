"""The board as one html file that needs no network: it sorts, filters, plots, and opens every run to its samples.

What is drawn at once is JSON in it. The samples of each task, and what each run says of them, are packed beside that,
each once, and unpacked by the browser when a run is opened. Nothing in the file depends on when it was made.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml

from evalkit import plugins
from evalkit.api import Task
from evalkit.config import keys
from evalkit.config.values import convert
from evalkit.datasets import published
from evalkit.results import run_folder
from evalkit.runtime.progress import track
from evalkit.video.decode import open_video
from evalkit.video.timeline import DecodeError

from ._columns import MINI, Cell, Column, printed, sections, tables
from ._foreign import Score
from ._runs import Run

TEMPLATE = Path(__file__).with_name("page.html")
MOST = 20_000_000  # bytes of a page with thumbnails, of which there are as many as that leaves room for
WIDTH = 96  # of a thumbnail, in pixels
LONGEST = 600  # letters of a text that was predicted, or would have been right
BEST = 5  # classes of a prediction that scores all of them


def html(
    runs: Sequence[Run], refused: Sequence[str] = (), others: Sequence[Score] = (), videos: Path | None = None
) -> str:
    """The board as a page for a browser.

    Args:
        runs: what validates.
        refused: a line for each run that does not.
        others: what other tools measured.
        videos: a folder with the samples' videos: the middle frame of each that is found there by its name is shown, as
            far as there is room; None for no pictures.
    """
    columns = tables(runs)
    cells: list[dict[str, Any]] = []
    samples: dict[str, dict[str, Any]] = {}  # of each task, by a name that is made of them
    files: dict[str, dict[str, Path]] = {}  # their videos, where the task says which they are
    packed: dict[str, str] = {}
    every = [(place, column, cell) for place, column in enumerate(columns) for cell in column.cells]
    for number, (place, column, cell) in enumerate(track(every, "page", len(every))):
        lines = _lines(cell.run)
        task = _task(cell.run)
        asked = _asked(task, lines)
        name = f"samples-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]}"
        samples[name] = asked
        if task is not None:
            files[name] = {line["video"]: one.video for line, one in zip(lines, task.test, strict=True)}
        packed[f"run-{number}"] = _pack(_answered(cell.run, lines))
        cells.append({"column": place, "samples": name, **_cell(column, cell)})
    if videos is not None:
        room = MOST - sum(map(len, packed.values())) - sum(len(_pack(one)) for one in samples.values())
        packed |= _pictures(samples, files, videos, room)
    packed |= {name: _pack(one) for name, one in samples.items()}
    board = {
        "columns": [_column(column) for column in columns],
        "cells": cells,
        "sections": _sections(columns),
        "refused": refused,
        "others": [[one.encoder, one.task, one.split, one.metric, one.value, one.source] for one in others],
    }
    scripts = (f'<script type="text/plain" id="{name}">{text}</script>' for name, text in packed.items())
    before, _, after = TEMPLATE.read_text(encoding="utf-8").partition("PACKED")
    return "".join([before.replace("BOARD", _json(board)), "\n".join(scripts), after])


# --- what is drawn at once -------------------------------------------------------------------------------------------


def _sections(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The board's sections, and before them all that is no miniature where that is several."""
    found = [(title.partition(":")[0], members) for title, members in sections(columns)]
    if len(found) - any(members[0].task.endswith(MINI) for _, members in found) > 1:
        found.insert(0, ("All but miniatures", [column for column in columns if not column.task.endswith(MINI)]))
    place = {id(column): i for i, column in enumerate(columns)}
    return [{"title": title, "columns": [place[id(column)] for column in members]} for title, members in found]


def _column(column: Column) -> dict[str, Any]:
    asked = (column.task, column.metric, column.how)
    values = published.rows(*asked, column.split)
    numbers: dict[str, published.Number] = {}
    for n in published.published_numbers():
        if (n.task, n.metric, n.adaptation) == asked and values.get(n.row) == n.value:
            numbers.setdefault(n.row, n)
    told = {key: getattr(column, key) for key in ("task", "split", "protocol", "how", "metric", "marks")}
    return {**told, "printed": [_number(number) for number in numbers.values()]}


def _number(number: published.Number) -> dict[str, Any]:
    return {key: getattr(number, key) for key in ("row", "source", "table", "value", "note")}


def _cell(column: Column, cell: Cell) -> dict[str, Any]:
    record, beside = cell.run.result, printed(column, cell)
    data, cost = record["data"], record["cost"]
    unknown = {"value": None, "ci95": [None, None], "bounds": [None, None], "n": data["n_expected"], "n_clusters": None}
    score = cell.score or unknown
    forwards = cost["encoder_forwards"]
    return {
        "name": cell.run.name,
        "encoder": cell.encoder,
        "mark": cell.mark,
        "ranks": cell.ranks,
        "times": cell.of.times,
        "seeds": len(cell.of.runs),
        "sd": cell.of.sd,
        **{key: score[key] for key in unknown},
        "failed": cell.of.worst.result["data"]["n_failed"],
        "chance": record["chance"],
        "device": record["provenance"]["device"],
        "cost": {
            "clip_s": cost["encode_s"] / forwards if forwards else None,
            "encode_s": None if cost["cache_hits"] else cost["encode_s"],  # what the store had was paid for elsewhere
            "parameters": record["encoder"]["parameters"],
            "flops": record["adapter"].get("trainable_flops"),
            "memory": cost["peak_memory_bytes"],
        },
        "beside": beside and {**_number(beside.number), "difference": beside.difference, "verdict": beside.verdict},
    }


# --- what is drawn when a run is opened ------------------------------------------------------------------------------


def _lines(run: Run) -> list[dict[str, Any]]:
    """The rows as they stand in the file; `collect` has checked them, which takes ten times as long as to read them."""
    text = (run.folder / run_folder.PREDICTIONS).read_text(encoding="utf-8")
    rows = ",".join(text.split("\n")[:-1])
    lines: list[dict[str, Any]] = json.loads(f"[{rows}]")  # at once, in half the time
    return lines


def _asked(task: Task | None, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is the same for all runs on the same samples; questions, options and names of classes from the task."""
    found: dict[str, Any] = {
        "ids": [line["id"] for line in lines],
        "videos": [line["video"] for line in lines],
        "kinds": [line["kind"] for line in lines],
        "targets": [_shown(line["target"]) for line in lines],
    }
    if task is not None:
        if task.classes:
            found["classes"] = task.classes
        if any(example.text for example in task.test):
            found["texts"] = [example.text[:LONGEST] for example in task.test]
        if any(example.choices for example in task.test):
            found["options"] = [[option[:LONGEST] for option in example.choices] for example in task.test]
    return found


def _answered(run: Run, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What one run says of them, and its record; `values`, 0..1, is None where its headline is of no single sample."""
    record, values = run.result, None
    scored = run.headline.values if record["scores"] else None
    if isinstance(scored, np.ndarray):
        rest = iter(scored.round(3).tolist())
        values = [None if line["target"] is None else f"{next(rest):g}" for line in lines]
    reasons = {one["id"]: one["reason"] for one in record["data"]["failures"]}
    return {
        "result": {**record, "data": {**record["data"], "failures": []}},  # which `failures` has
        "values": values,
        "predictions": [_shown(line["prediction"]) for line in lines],
        "failures": {i: reasons[line["id"]] for i, line in enumerate(lines) if line["id"] in reasons},
    }


def _shown(value: Any) -> Any:
    """A target or prediction: numbers of classes or options as they are, of scores by class the best; else as text."""
    if isinstance(value, int) or (isinstance(value, list) and all(isinstance(one, int) for one in value)):
        return value
    if isinstance(value, list) and len(value) > 2 and all(isinstance(one, float) for one in value):
        best = sorted(range(len(value)), key=lambda i: -value[i])[:BEST]
        return {"best": [[i, f"{value[i]:.2f}"] for i in best]}
    return _text(value)


def _text(value: Any) -> str:
    """In words; of several texts one a line."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return (", " if all(isinstance(one, float) for one in value) else "\n").join(map(_text, value))
    text = "" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _task(run: Run) -> Task | None:
    """The run's task, made again from its configuration; None unless its files are here, and are those that it scored.

    Tasks in a file of their own are not made: a result from elsewhere must not be able to name code that is run.
    """
    name, mini, _ = run.result["task"]["name"].partition(MINI)
    if name not in plugins.names("task"):
        return None
    try:
        given = yaml.safe_load((run.folder / run_folder.CONFIG).read_text(encoding="utf-8"))
        data = {key: value for key, value in given.items() if key.startswith("data.")}
        task, fingerprint = _made(name, bool(mini), json.dumps(data))
    except Exception:  # whatever a task's own code raises where its files are not as it wants them
        return None
    return task if fingerprint == run.result["data"]["fingerprint"] else None


@functools.cache
def _made(name: str, mini: bool, data: str) -> tuple[Task, str]:
    known = keys.known_keys("check", name)
    given = {known[key].parameter: convert(value, known[key].type) for key, value in json.loads(data).items()}
    task = plugins.factory("task", name)(**given, **({"mini": True} if mini else {}))
    return task, run_folder.fingerprint(task.test)


# --- thumbnails ------------------------------------------------------------------------------------------------------


def _pictures(
    samples: Mapping[str, dict[str, Any]], files: Mapping[str, Mapping[str, Path]], folder: Path, room: int
) -> dict[str, str]:
    """The pictures of each task's videos by the name that is put into its samples; a note where some are missing."""
    there: dict[str, list[Path]] = {}
    for path in folder.rglob("*"):
        there.setdefault(path.name, []).append(path)

    def find(video: str, known: Path | None) -> Path | None:
        """The file that the task names; else the only one of that name. Another video is no picture of it."""
        same = [path for path in there.get(Path(video).name, ()) if path.match(video)]
        if known is not None:
            same = [path for path in same if path.resolve() == known.resolve()]
        return same[0] if len(same) == 1 else None

    packed = {}
    for left, (name, asked) in zip(range(len(samples), 0, -1), samples.items(), strict=True):
        pictures: dict[str, str] = {}
        share, full = room // left, False
        wanted = list(dict.fromkeys(asked["videos"]))
        for video in wanted:
            file = find(video, files.get(name, {}).get(video))
            picture = file and _thumbnail(file)
            if picture:
                share -= len(picture) + len(_json(video)) + 4
                full = share < 0
                if full:
                    break
                pictures[video] = picture
        if pictures:
            asked["pictures"] = f"pictures-{name}"
            packed[asked["pictures"]] = _json(pictures)
            room -= len(packed[asked["pictures"]])
        if len(pictures) < len(wanted):
            why = "there is no room for more" if full else "no other was found by its name alone, or decodes"
            asked["note"] = f"{len(pictures):,} of {len(wanted):,} videos have a picture: {why}."
    return packed


@functools.cache
def _thumbnail(path: Path) -> str | None:
    """The middle frame as a small JPEG in base64; None where it does not decode."""
    try:
        video = open_video(path)
        (pixels,) = video.read([len(video.times) // 2])
    except DecodeError:
        return None
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    height = max(2, round(WIDTH * frame.height / frame.width))
    out = io.BytesIO()
    with av.open(out, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=1, options={"qmin": "6", "qmax": "6"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, height, "yuvj420p"
        small = frame.reformat(WIDTH, height, "yuvj420p")
        for packet in (*stream.encode(small), *stream.encode(None)):
            container.mux(packet)
    return base64.b64encode(out.getvalue()).decode()


# --- as text ---------------------------------------------------------------------------------------------------------


def _pack(value: Any) -> str:
    """JSON that the browser is to unpack: compressed, in letters that html leaves alone."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode())).decode()


def _json(value: Any) -> str:
    """JSON that may stand in a script element: no name in it can end the element, or begin another."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
