"""Results in the formats of others: one file here per format, found by its name.

A format is a module with `def files(runs: Sequence[Run]) -> Iterator[tuple[str, str]]`: the path of each file in the
folder of the export, and its text. Runs come newest first. Names in paths go through `part`, so that a result that came
from elsewhere cannot choose where it is written. Intervals, numbers of examples, controls and the protocol's hash go
where the format has room; what has no place in it is told.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evalkit.errors import UserError, suggest
from evalkit.results.rows import Row
from evalkit.results.scores import is_rank, measure, resolve, task_files
from evalkit.weights.presets import cards

from .._runs import Run, collect

logger = logging.getLogger("evalkit")


def formats() -> dict[str, str]:
    """Every format by name, with the first line of its file."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return {file.stem: (ast.get_docstring(ast.parse(file.read_bytes())) or "").split("\n")[0] for file in files}


def export(words: Sequence[str]) -> int:
    """Writes all runs under a folder in a format; 1 where a run does not validate, which is named and left out.

    Of two runs that would have the same place, such as two of one encoder and task, the newer has it.

    Args:
        words: to=, the name of a format, where a hyphen counts as an underscore; results=, a run or a folder with runs
            in it; out=, the folder to write into; task=, the file of a task of one's own, by which its runs are
            scored again.

    Raises:
        UserError: a word is wrong; there is no such format, no run, or none that has a place in the format.
    """
    chosen = {"to": "", "results": "results", "out": ""}
    words, files = task_files(words)
    for word in words:
        key, equals, value = word.partition("=")
        if key not in chosen or not equals:
            raise UserError(f"export takes to=, results=, out= and task=, got {word!r}.{suggest(key, chosen)}")
        chosen[key] = value
    name, known = chosen["to"].replace("-", "_"), formats()
    if name not in known:
        raise UserError(f"to={chosen['to']}: there is no such format.{suggest(name, known)} Known: {', '.join(known)}")
    out = Path(chosen["out"] or f"exports/{name}")

    runs, refused = collect(Path(chosen["results"]), files)
    for line in refused:
        logger.warning(f"refused: {line}")
    for run in runs:
        for entry in run.result["scores"]:
            if entry["value"] is None:
                tell(run, f"{entry['metric']} is undefined and left out")
    runs = sorted(runs, key=lambda run: when(run), reverse=True)
    written: set[Path] = set()
    for path, text in importlib.import_module(f"{__name__}.{name}").files(runs):
        file = out / path
        if file not in written:
            written.add(file)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8", newline="\n")
            except OSError as error:
                raise UserError(f"out={out}: cannot write {path}: {error.strerror}") from error
        elif text != file.read_text(encoding="utf-8"):
            logger.warning(f"{path}: an older run has the same place and is left out")
    if runs and not written:
        raise UserError(f"to={name}: none of {len(runs)} runs has a place in it. {known[name]}")
    print(f"{out}: {len(written)} files of {len(runs)} runs")
    return 1 if refused else 0


# --- what formats share ----------------------------------------------------------------------------------------------


def tell(run: Run, what: str) -> None:
    """Says on stderr what of a run has no place."""
    logger.warning(f"{run.name}: {what}")


def defined(run: Run) -> list[Mapping[str, Any]]:
    """The run's scores that are no null, the headline first."""
    return [entry for entry in run.result["scores"] if entry["value"] is not None]


def with_headline(runs: Iterable[Run]) -> Iterator[Run]:
    """The runs whose headline is defined, for formats of which it is the point; the others are told."""
    for run in runs:
        if run.result["scores"] and run.result["scores"][0]["value"] is not None:
            yield run
        else:
            tell(run, "has no headline, and so no place")


def means(run: Run, rows: Sequence[Row]) -> dict[str, npt.NDArray[np.float64]]:
    """What each labeled row of the run scores, 0..1, by metric: of those that are means over examples."""
    found = measure(resolve(run.result["task"]["score"], run.files), rows) if run.result["scores"] else {}
    return {metric: values for metric, values in found.items() if isinstance(values, np.ndarray)}


def part(name: str) -> str:
    """A name as one part of a path that any file system takes."""
    return re.sub(r"[^\w.@+-]", "-", name).strip(".") or "unnamed"


def model(run: Run) -> tuple[str, str]:
    """Organization and name of the encoder: its weights' on the Hugging Face hub, else `local` and its own name.

    A ckpt that reads `organization/name` is taken for one of the hub where there is no such path here.
    """
    name, ckpt = run.result["encoder"]["name"], run.result["encoder"]["ckpt"]
    if ckpt == "demo":
        return "evalkit", part(name)
    hub = _hubs().get(ckpt) or ("" if Path(ckpt).exists() else ckpt.partition("@")[0])
    found = re.fullmatch(r"(\w[\w.-]*)/([\w.-]+)", hub)
    return (part(found[1]), part(found[2])) if found else ("local", part(name))


@functools.cache
def _hubs() -> dict[str, str]:
    return {name: card.hub for name, card in cards().items()}


def fraction(metric: str, value: float | None) -> float | None:
    """A score as most formats have it: a rate in 0..1, a rank as it is."""
    return value if value is None or is_rank(metric) else round(value / 100, 8)


def summary(run: Run) -> dict[str, Any]:
    """What a number needs to be trusted, for formats that take any value: intervals, controls, failures, hashes."""
    record, task, data = run.result, run.result["task"], run.result["data"]
    return {
        "status": record["status"],
        "task_version": task["version"],
        "protocol": task["protocol"],
        "protocol_sha256": task["protocol_sha256"],
        "fingerprint": data["fingerprint"],
        "weights_sha256": record["encoder"]["sha256"],
        "scores": record["scores"],
        "chance": record["chance"],
        "controls": record["controls"],
        "n_expected": data["n_expected"],
        "n_failed": data["n_failed"],
        "command": record["provenance"]["command"],
        "git_commit": record["provenance"]["git_commit"],
    }


def as_json(value: Any) -> str:
    """A file of JSON."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def as_lines(values: Iterable[Any]) -> str:
    """A file with a line of JSON for each value."""
    return "".join(json.dumps(value, allow_nan=False) + "\n" for value in values)


def when(run: Run, what: str = "finished") -> datetime:
    """When a run started or finished, UTC."""
    return datetime.fromisoformat(run.result["provenance"][what])
