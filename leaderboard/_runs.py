"""The runs under a folder, validated, with what each of their examples scores: what every view of results starts from.

    runs, refused = collect(Path("results"))

`runs` holds those that validate, in the order of their folders; `refused` one line for each that does not. A run's
`result` is what result.json holds, its `rows` what predictions.jsonl holds; rows and scores are read when they are
first asked for.

To validate is to score again, which takes far longer than to show what is there. So what validated is remembered in
the cache, by the bytes of the run and of the code that scored it: any change of either, and it is validated again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import evalkit
from evalkit import cache, result
from evalkit.progress import track
from evalkit.rows import Row
from evalkit.scores import measure, resolve
from evalkit.statistics import Summed, numbered


class Headline(NamedTuple):
    """What each labelled example scores by the headline's metric, to compare runs on the same examples.

    Attributes:
        values: (N,) in 0..1, or a score that is made of sums; None where the metric is neither.
        clusters: (N,), the number of each example's video.
    """

    values: npt.NDArray[np.float64] | Summed | None
    clusters: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Run:
    """A result that validates.

    Attributes:
        folder: where it lies.
        name: the same within the folder of all results, with slashes; it is what a board calls it.
        result: what result.json holds.
        known: the headline, where it is known without reading the rows.
    """

    folder: Path
    name: str
    result: dict[str, Any]
    known: Headline | None

    @cached_property
    def rows(self) -> list[Row]:
        """All test examples, in order."""
        return result.load_rows(self.folder)

    @cached_property
    def headline(self) -> Headline:
        """What each labelled example scores; the result has scores."""
        return self.known or _headline(self.result, self.rows)


def collect(results: Path) -> tuple[list[Run], list[str]]:
    """The runs at or under a folder that validate, and a line for each that does not: its name, and what is wrong.

    Raises:
        UserError: there is no run.
    """
    home = results if results.is_dir() else results.parent
    found = [(folder, _verdict(folder)) for folder in result.runs(results)]
    runs, refused = [], []
    for folder, verdict in track(found, "results", len(found)):
        name = folder.relative_to(home).as_posix() if folder != home else folder.name
        try:
            known, record = _recalled(verdict), result.load(folder)
        except (OSError, ValueError):  # never validated, or what was kept of it is damaged
            problems, record, rows = result.check(folder)
            if problems:
                more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
                refused.append(f"{name}: {problems[0].removeprefix(f'{folder}: ')}{more}")
                continue
            known = _headline(record, rows) if record["scores"] else None
            if record["task"]["score"].startswith("evalkit."):  # other code can change unseen
                _remember(verdict, known)
        runs.append(Run(folder, name, record, known))
    return runs, refused


def _headline(record: Mapping[str, Any], rows: Sequence[Row]) -> Headline:
    (values, *_) = measure(resolve(record["task"]["score"]), rows).values()
    clusters, _ = numbered([row.video for row in rows if row.target is not None])
    return Headline(values if isinstance(values, np.ndarray | Summed) else None, clusters)


# --- what is remembered ----------------------------------------------------------------------------------------------


def _remember(verdict: Path, known: Headline | None) -> None:
    """Keeps that a run validated, and its headline where a file can hold that: sums come with a function."""
    kept: list[Any] = []
    if known and not isinstance(known.values, Summed):
        kept = [None if known.values is None else known.values.tolist(), known.clusters.tolist()]
    half = verdict.with_name(f".{verdict.name}.{secrets.token_hex(4)}")
    try:
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(json.dumps(kept))
        os.replace(half, verdict)
    except OSError:  # a cache that is full or may not be written: the run is validated again the next time
        with contextlib.suppress(OSError):
            half.unlink()


def _recalled(verdict: Path) -> Headline | None:
    """What was kept of a run that validated.

    Raises:
        OSError: nothing was.
        ValueError: it is damaged.
    """
    kept = json.loads(verdict.read_text())
    if not kept:
        return None
    values, clusters = kept
    return Headline(None if values is None else np.array(values), np.array(clusters, np.intp))


def _verdict(run: Path) -> Path:
    """Where the cache says that a run validates: by the bytes of its files, and of the code."""
    digest = hashlib.sha256(_code())
    for name in (result.RESULT, result.PREDICTIONS, result.CONFIG):
        try:
            digest.update(hashlib.sha256((run / name).read_bytes()).digest())
        except OSError:
            digest.update(b"none")
    return cache.folder() / "verdicts" / f"{digest.hexdigest()}.json"


@functools.cache
def _code() -> bytes:
    """The sha256 of all that decides on a score: evalkit's code and its tasks', and numpy, which draws."""
    digest = hashlib.sha256(np.__version__.encode())
    folders = [Path(evalkit.__file__).parent, *(Path(home) / "tasks" for home in evalkit.__path__)]
    for file in sorted(file for folder in folders for kind in ("py", "json") for file in folder.rglob(f"*.{kind}")):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()
