"""Collects the runs under a folder, validated, with the score of each example: the input of every view of results.

    runs, refused = collect(Path("results"))

`runs` are those that validate, in the order of their folders; `refused` has one line for each that does not. A run's
`result` is result.json, its `rows` are predictions.jsonl; rows and scores are read lazily.

Validation scores a run again, which takes far longer than showing it. So runs that validated are remembered in the
cache, by the bytes of the run and of the scoring code. If either changes, the run is validated again, on all cores if
that takes more than a moment.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

import evalkit
from evalkit.errors import UserError
from evalkit.metrics.bootstrap import AdditiveScore, number_clusters
from evalkit.results import evidence, run_folder, signature, validate
from evalkit.results.rows import Row
from evalkit.results.scores import Measured, measure, reference, resolve
from evalkit.runtime import bounded, cache
from evalkit.runtime.atomic import hidden_beside
from evalkit.runtime.machine import cores
from evalkit.runtime.processes import ProcessPool
from evalkit.runtime.progress import track

logger = logging.getLogger("evalkit")

POOL_AFTER_S = 0.5  # seconds of validation in this process before others are started, which takes as long


class Headline(NamedTuple):
    """Each labeled example's score by the headline metric, to compare runs on the same examples.

    Attributes:
        values: (N,) in 0..1, or an `AdditiveScore`; None if the metric is neither.
        clusters: (N,), the index of each example's video.
    """

    values: npt.NDArray[np.float64] | AdditiveScore | None
    clusters: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Run:
    """A result that validates.

    Attributes:
        folder: of its files.
        name: its folder relative to that of all results, with slashes; its name on the board.
        result: result.json.
        cached_headline: the headline if it is known without reading the rows.
        task_files: files of the user's own tasks, whose score functions may be imported.
    """

    folder: Path
    name: str
    result: dict[str, Any]
    cached_headline: Headline | None
    task_files: Sequence[Path] = ()

    @cached_property
    def rows(self) -> list[Row]:
        """All test examples, in order."""
        return run_folder.load_rows(self.folder)

    @cached_property
    def headline(self) -> Headline:
        """Each labeled example's score; the result must have scores."""
        if self.cached_headline:
            return self.cached_headline
        score = resolve(self.result["task"]["score"], self.task_files)
        return _headline(self.rows, measure(score, self.rows))


def collect(results: Path, files: Sequence[Path] = (), signers: Path | None = None) -> tuple[list[Run], list[str]]:
    """Collects the runs at or under a folder that validate, and a line for each that does not: its name and problem.

    Of copies of one run, whose records are equal, the first counts.

    Args:
        results: the folder, or one run.
        files: of the user's own tasks. Runs that name other files do not validate; no other file is imported.
        signers: who may have signed a run, as OpenSSH's file of allowed signers; None takes runs without a signature.

    Raises:
        UserError: there is no run.
    """
    home = results if results.is_dir() else results.parent
    cache_files = {folder: _cache_file(folder) for folder in run_folder.runs(results)}
    cached = {folder: _load_cached(file) for folder, file in cache_files.items()}
    new = [(folder, cache_files[folder], files) for folder, entry in cached.items() if entry is None]
    validated = list(track(_validate_all(new), "validate", len(new))) if new else []
    problems_of = {folder: problems for (folder, *_), problems in zip(new, validated, strict=True)}
    runs: dict[str, Run] = {}  # by their records
    refused = []
    for folder, entry in cached.items():
        name = folder.relative_to(home).as_posix() if folder != home else folder.name
        problems = problems_of.get(folder) or _unsigned(folder, signers)
        if problems:
            more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
            refused.append(f"{name}: {problems[0].removeprefix(f'{folder}: ')}{more}")
            continue
        (headline,) = entry or _load_cached(cache_files[folder]) or (None,)
        run = Run(folder, name, run_folder.load(folder), headline, files)
        record = json.dumps(run.result, sort_keys=True)
        if record in runs:
            logger.info(f"{name}: a copy of {runs[record].name}, counted once")
        runs.setdefault(record, run)
    return list(runs.values()), refused


def _unsigned(folder: Path, signers: Path | None) -> list[str]:
    """Why a run is signed by none of the signers, if there are any to be signed by."""
    if signers is None:
        return []
    try:
        signature.signer(folder, signers)
    except UserError as error:
        return [str(error)]
    return []


def _validate_all(new: Sequence[tuple[Path, Path, Sequence[Path]]]) -> Iterator[list[str]]:
    """The problems of each run, in order; on all cores after `POOL_AFTER_S`."""
    started = time.monotonic()
    for i, run in enumerate(new):
        if min(cores(), len(new) - i) > 1 and time.monotonic() - started > POOL_AFTER_S:
            with ProcessPool(cores(), "validation", __name__) as pool:
                yield from pool.map(_validate_in_worker, new[i:])
            return
        yield _validate(*run)


def _validate_in_worker(folder: Path, cache_file: Path, files: Sequence[Path]) -> list[str]:
    """`_validate` in a process of its own, which collects garbage rarely: rows hold no cycles."""
    gc.set_threshold(100_000)  # saves a sixth
    return _validate(folder, cache_file, files)


def _validate(folder: Path, cache_file: Path, files: Sequence[Path]) -> list[str]:
    """The problems of a run; a run without problems is remembered. `files` are those of tasks."""
    problems, record, rows, measured = validate.check(folder, files)
    if not problems and record["task"]["score"].startswith("evalkit."):  # changes of other code would go unnoticed
        _save_cached(cache_file, _headline(rows, measured) if measured else None)
    return problems


def _headline(rows: Sequence[Row], measured: Measured) -> Headline:
    (values, *_) = measured.values()
    clusters = number_clusters([row.video for row in rows if row.target is not None]).member
    return Headline(values if isinstance(values, np.ndarray | AdditiveScore) else None, clusters)


# --- the cache of validated runs -------------------------------------------------------------------------------------


def _save_cached(file: Path, headline: Headline | None) -> None:
    """Remembers that a run validated, and its headline if the function of its `AdditiveScore` has a name."""
    entry: list[Any] = []
    if headline:
        values: Any = headline.values
        of, limits = "", None
        with contextlib.suppress(UserError):
            if isinstance(values, AdditiveScore):
                values, of, limits = values.parts, reference(values.of, "any"), values.limits
        if not isinstance(values, AdditiveScore):
            entry = [of, None if values is None else values.tolist(), headline.clusters.tolist(), limits]
    # Where the cache is full or read-only, the run is validated again the next time.
    with contextlib.suppress(OSError), hidden_beside(file) as hidden:
        hidden.write_text(json.dumps(entry))
        hidden.replace(file)


def _load_cached(file: Path) -> tuple[Headline | None] | None:
    """The stored headline of a validated run, if it has one; None if the run is not in the cache."""
    try:
        entry = json.loads(file.read_text())
        if not entry:
            return (None,)
        of, stored, clusters, limits = entry
        values: Any = None if stored is None else np.array(stored)
        if of:
            values = AdditiveScore(values, cast(Any, resolve(of, kind="any")), limits and tuple(limits))
        return (Headline(values, np.array(clusters, np.intp)),)
    except (OSError, ValueError, UserError):
        return None


def _cache_file(run: Path) -> Path:
    """The cache file of a run, named by the hash of its files and of the scoring code."""
    digest = hashlib.sha256(_code_digest())
    for name in (run_folder.RESULT, run_folder.PREDICTIONS, run_folder.CONFIG, evidence.EVIDENCE):
        try:
            digest.update(hashlib.sha256(bounded.read_bytes(run / name)).digest())
        except OSError:
            digest.update(b"none")
    return cache.folder() / "verdicts" / f"{digest.hexdigest()}.json"


@functools.cache
def _code_digest() -> bytes:
    """The sha256 of the code that decides a score: evalkit and its tasks, and the version of numpy, which resamples."""
    digest = hashlib.sha256(np.__version__.encode())
    folders = [Path(evalkit.__file__).parent, *(Path(home) / "tasks" for home in evalkit.__path__)]
    for file in sorted(file for folder in folders for kind in ("py", "json") for file in folder.rglob(f"*.{kind}")):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()
