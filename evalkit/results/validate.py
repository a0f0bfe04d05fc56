"""Validates results: schema, hashes, counts, and recomputed scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.api import Score
from evalkit.errors import UserError
from evalkit.results import consistency, evidence
from evalkit.results.rows import Row
from evalkit.results.run_folder import (
    CONFIG,
    PREDICTIONS,
    RESULT,
    as_line,
    contradictions,
    file_sha256,
    folder_of,
    load,
    load_rows,
    runs,
)
from evalkit.results.schema import digest, violations
from evalkit.results.scores import Measured, Unverified, measure, resolve, scores
from evalkit.runtime import bounded

MOST_BYTES = 2_000_000  # of config.yaml


def rescore(run: Path, files: Sequence[Path] = ()) -> dict[str, Any]:
    """The run's result with its scores recomputed from predictions.jsonl alone; the run itself is left as it is.

    Needs no encoder, no data set and no GPU; imports torch only where the task's score function does.

    Args:
        run: the folder or its result.json.
        files: of tasks of the user's own. What a run names of others is not imported.

    Returns:
        What `load` gives, with new `scores` and one key more: `differences`, a line for each number that differs from
        the stored one. `evalkit.results.table.table` shows both.

    Raises:
        UserError: the run cannot be read, or the score function cannot be found.
    """
    result = load(run)
    problems = violations(result)
    if problems:
        raise UserError(f"{folder_of(run)}: {RESULT}: {problems[0]}")
    try:
        score = resolve(result["task"]["score"], files)
    except Unverified as error:
        raise UserError(f"{folder_of(run)}: {error}") from error
    rows = load_rows(run)
    try:
        new = scores(score, rows, result["provenance"]["seed"])
    except Exception as error:  # whatever a score function raises of rows that it did not expect
        raise UserError(f"{folder_of(run)}: cannot be re-scored: {as_line(error)}") from error
    return {**result, "scores": new, "differences": _differences(result["scores"], new)}


def validate(path: Path, files: Sequence[Path] = ()) -> list[str]:
    """The problems of a run, or of every run in a folder, one line each; empty if there are none.

    Checks result.json against the schema, the hashes, the counts and ids of predictions.jsonl, that config.yaml, the
    command, the times and the choice of a grid point agree with it, and that scores, controls and the score on val are
    those that are computed again. Scores of a task's file that is none of `files` are not computed, which is a problem
    too: `unverified`.

    Args:
        path: a run, or a folder with runs in it.
        files: of tasks of the user's own.

    Raises:
        UserError: there is no run at or under `path`.
    """
    return [problem for run in runs(path) for problem in check(run, files).problems]


class Checked(NamedTuple):
    """A run read once, what is wrong with it, and what `measure` gives of its rows; these may be empty where that is
    anything.
    """

    problems: list[str]
    record: dict[str, Any]
    rows: list[Row]
    measured: Measured


def check(run: Path, files: Sequence[Path] = ()) -> Checked:
    """Checks one run, given its folder or its result.json; see `validate`."""
    run = folder_of(run)
    try:
        record = load(run)
        rows = load_rows(run)
    except UserError as error:
        return Checked([str(error)], {}, [], {})
    problems = violations(record)
    if problems:  # the checks below take the shape for granted
        return Checked([f"{run}: {RESULT}: {problem}" for problem in problems], {}, [], {})
    if file_sha256(run / PREDICTIONS) != record["data"]["predictions_sha256"]:
        problems.append(f"{PREDICTIONS} was changed: its sha256 is not data.predictions_sha256")
    config = record["provenance"].get("config_sha256")
    unreadable = (run / CONFIG).exists() and not file_sha256(run / CONFIG)  # which is told below
    if config and not unreadable and file_sha256(run / CONFIG) != config:
        problems.append(f"{CONFIG} was changed: its sha256 is not provenance.config_sha256")
    if digest(record["task"]["protocol"]) != record["task"]["protocol_sha256"]:
        problems.append("task.protocol was changed: its sha256 is not task.protocol_sha256")
    problems += contradictions(record, rows)
    problems += _inconsistencies(run, record)
    measured: Measured = {}
    score: Score | None = None
    quick: Score | None = None
    try:
        score = resolve(record["task"]["score"], files)
        measured = measure(score, rows)
        problems += _differences(record["scores"], scores(score, rows, record["provenance"]["seed"], measured))
        if record["task"].get("quick_score"):
            quick = resolve(record["task"]["quick_score"], files)
    except Unverified as error:
        problems.append(str(error))
    except Exception as error:  # whatever the task's own code raises
        problems.append(f"cannot be re-scored: {as_line(error)}")
        score = None
    try:
        problems += evidence.problems(run, record, rows, score, quick)
    except Exception as error:  # as above
        problems.append(f"controls and val cannot be re-scored: {as_line(error)}")
    return Checked([f"{run}: {problem}" for problem in problems], record, rows, measured)


def _inconsistencies(run: Path, record: Mapping[str, Any]) -> list[str]:
    """Where the record contradicts its configuration, its folder's name, or itself."""
    try:
        config = bounded.read_bytes(run / CONFIG, MOST_BYTES)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            return [f"{CONFIG} cannot be read: {error.strerror}"]
        if record["provenance"].get("config_sha256"):
            return []  # its hash differs, which is said
        config = b""
    problems = [*consistency.of_selection(record)]
    if "evidence_sha256" in record["data"]:  # earlier ones may have been put together from parts
        problems += consistency.of_protocol(record)
    if not any(consistency.of_times(record)):
        problems += consistency.of_folder(run, record, config)
    return [*problems, *consistency.of_config(record, config)]


def _differences(stored: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [[entry["metric"] for entry in entries] for entries in (stored, new)]
    if names[0] != names[1]:
        return [f"scores: stored {', '.join(names[0]) or 'none'}; recomputed {', '.join(names[1]) or 'none'}"]
    return [
        f"{old['metric']} {key}: stored {old[key]}, recomputed {entry[key]}"
        for old, entry in zip(stored, new, strict=True)
        for key in entry
        if old[key] != entry[key]
    ]
