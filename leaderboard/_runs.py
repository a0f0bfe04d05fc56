"""The runs under a folder, validated, with what each of their examples scores: what every view of results starts from.

    runs, refused = collect(Path("results"))

`runs` holds those that validate, in the order of their folders; `refused` one line for each that does not. A run's
`result` is what result.json holds, its `rows` what predictions.jsonl holds; rows and scores are read when they are
first asked for.

To validate is to score again, which takes far longer than to show what is there. So what validated is remembered in
the cache, by the bytes of the run and of the code that scored it: any change of either, and it is validated again, on
all cores where that takes more than a moment.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

import evalkit
from evalkit.errors import UserError
from evalkit.metrics.bootstrap import AdditiveScore, numbered
from evalkit.results import run_folder, validate
from evalkit.results.rows import Row
from evalkit.results.scores import Measured, measure, reference, resolve
from evalkit.runtime import cache
from evalkit.runtime.machine import cores
from evalkit.runtime.progress import track

ALONE = 0.5  # seconds of validation before other processes are started, which takes as long


class Headline(NamedTuple):
    """What each labeled example scores by the headline's metric, to compare runs on the same examples.

    Attributes:
        values: (N,) in 0..1, or a score that is made of sums; None where the metric is neither.
        clusters: (N,), the number of each example's video.
    """

    values: npt.NDArray[np.float64] | AdditiveScore | None
    clusters: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Run:
    """A result that validates.

    Attributes:
        folder: where it lies.
        name: the same within the folder of all results, with slashes; it is what a board calls it.
        result: what result.json holds.
        known: the headline, where it is known without reading the rows.
        files: of tasks of the user's own, which are scored by them.
    """

    folder: Path
    name: str
    result: dict[str, Any]
    known: Headline | None
    files: Sequence[Path] = ()

    @cached_property
    def rows(self) -> list[Row]:
        """All test examples, in order."""
        return run_folder.load_rows(self.folder)

    @cached_property
    def headline(self) -> Headline:
        """What each labeled example scores; the result has scores."""
        return self.known or _headline(self.rows, measure(resolve(self.result["task"]["score"], self.files), self.rows))


def collect(results: Path, files: Sequence[Path] = ()) -> tuple[list[Run], list[str]]:
    """The runs at or under a folder that validate, and a line for each that does not: its name, and what is wrong.

    Args:
        results: the folder, or one run.
        files: of tasks of the user's own. Runs that name others do not validate, and these are not imported.

    Raises:
        UserError: there is no run.
    """
    home = results if results.is_dir() else results.parent
    verdicts = {folder: _verdict(folder) for folder in run_folder.runs(results)}
    known = {folder: _recalled(verdict) for folder, verdict in verdicts.items()}
    new = [(folder, verdicts[folder]) for folder, kept in known.items() if kept is None]
    problems = list(track(_each([(*place, files) for place in new]), "validate", len(new))) if new else []
    told = {folder: found for (folder, _), found in zip(new, problems, strict=True)}
    runs, refused = [], []
    for folder, kept in known.items():
        name = folder.relative_to(home).as_posix() if folder != home else folder.name
        if found := told.get(folder):
            more = f" (and {len(found) - 1} more)" if found[1:] else ""
            refused.append(f"{name}: {found[0].removeprefix(f'{folder}: ')}{more}")
            continue
        (headline,) = kept or _recalled(verdicts[folder]) or (None,)
        runs.append(Run(folder, name, run_folder.load(folder), headline, files))
    return runs, refused


def _each(new: Sequence[tuple[Path, Path, Sequence[Path]]]) -> Iterator[list[str]]:
    """What is wrong with each run, in order; from the first moment's end on by all cores."""
    started = time.monotonic()
    for i, place in enumerate(new):
        processes = min(cores(), len(new) - i)
        if processes > 1 and time.monotonic() - started > ALONE:
            with ProcessPoolExecutor(processes, get_context("spawn"), _begin) as pool:
                yield from pool.map(_validated, new[i:])
            return
        yield _validated(place)


def _begin() -> None:
    """Of a process that validates: Ctrl-C is told by the first alone; rows hold no cycles, so few are looked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(100_000)  # saves a sixth


def _validated(place: tuple[Path, Path, Sequence[Path]]) -> list[str]:
    """What is wrong with a run; where that is nothing, it is remembered."""
    folder, verdict, files = place
    problems, record, rows, measured = validate.check(folder, files)
    if not problems and record["task"]["score"].startswith("evalkit."):  # other code can change unseen
        _remember(verdict, _headline(rows, measured) if measured else None)
    return problems


def _headline(rows: Sequence[Row], measured: Measured) -> Headline:
    (values, *_) = measured.values()
    clusters = numbered([row.video for row in rows if row.target is not None]).member
    return Headline(values if isinstance(values, np.ndarray | AdditiveScore) else None, clusters)


# --- what is remembered ----------------------------------------------------------------------------------------------


def _remember(verdict: Path, known: Headline | None) -> None:
    """Keeps that a run validated, and its headline where a file can hold it: what is made of sums needs a name."""
    kept: list[Any] = []
    if known:
        values: Any = known.values
        of = ""
        with contextlib.suppress(UserError):
            if isinstance(values, AdditiveScore):
                values, of = values.parts, reference(values.of, "any")
        if not isinstance(values, AdditiveScore):
            kept = [of, None if values is None else values.tolist(), known.clusters.tolist()]
    half = verdict.with_name(f".{verdict.name}.{secrets.token_hex(4)}")
    try:
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(json.dumps(kept))
        os.replace(half, verdict)
    except OSError:  # a cache that is full or may not be written: the run is validated again the next time
        with contextlib.suppress(OSError):
            half.unlink()


def _recalled(verdict: Path) -> tuple[Headline | None] | None:
    """What was kept of a run that validated; None where nothing was, or it is damaged."""
    try:
        kept = json.loads(verdict.read_text())
        if not kept:
            return (None,)
        of, values, clusters = kept
        found: Any = None if values is None else np.array(values)
        return (
            Headline(
                AdditiveScore(found, cast(Any, resolve(of, kind="any"))) if of else found, np.array(clusters, np.intp)
            ),
        )
    except (OSError, ValueError, UserError):
        return None


def _verdict(run: Path) -> Path:
    """Where the cache says that a run validates: by the bytes of its files, and of the code."""
    digest = hashlib.sha256(_code())
    for name in (run_folder.RESULT, run_folder.PREDICTIONS, run_folder.CONFIG):
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
