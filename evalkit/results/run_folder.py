"""The record of a run: what was predicted, what it scores, and whether both can be trusted.

A run is a folder that is written once, whole or not at all, and never changed:

    result.json         scores and all that led to them; its shape is result.schema.json
    predictions.jsonl   one `Row` per test example; the scores can be recomputed from it alone
    config.yaml         the resolved configuration
    evidence.jsonl      what was expected, and what controls and val predicted: see evalkit.results.evidence
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit.api import Example
from evalkit.errors import UserError, counted, in_line, one_line
from evalkit.results.consistency import of_times
from evalkit.results.evidence import EVIDENCE, Evidence, text
from evalkit.results.rows import Row, tally
from evalkit.results.schema import digest, parse, plain, violations
from evalkit.runtime import bounded
from evalkit.runtime.atomic import flush, hidden_beside, rename

logger = logging.getLogger("evalkit")

RESULT, PREDICTIONS, CONFIG = "result.json", "predictions.jsonl", "config.yaml"


def run_id(config_yaml: str, started: datetime) -> str:
    """A run's folder name, which sorts by time: 20260131T235959Z-1a2b3c4d, UTC and a hash of the configuration."""
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{hashlib.sha256(config_yaml.encode()).hexdigest()[:8]}"


def fingerprint(examples: Sequence[Example]) -> str:
    """Hash of the examples: ids, file names, spans, boxes, texts, options and targets, but not the pixels."""
    digest = hashlib.sha256()
    for e in examples:
        # What has no box has the hash that it had before there were boxes.
        box = ((e.box,) if e.box else ()) + ((e.boxes,) if e.boxes is not None else ())
        digest.update(repr((e.id, e.video.name, e.span, e.text, e.choices, e.target, e.kind, *box)).encode())
    return digest.hexdigest()


# --- writing ---------------------------------------------------------------------------------------------------------


def write(
    folder: Path,
    result: Mapping[str, Any],
    rows: Sequence[Row],
    config_yaml: str,
    extra: Callable[[Path], object] | None = None,
    evidence: Evidence | None = None,
) -> Path:
    """Writes a run, whole or not at all, and returns its folder.

    The files are written and flushed to disk in a hidden folder beside `folder`, which is then renamed. Killed at any
    moment, or with a full disk, nothing can be seen under a run's name; a hidden folder may be left by a kill.

    Args:
        folder: where the run should be; where it is taken, `folder-2`, `folder-3`, ... is used. Nothing is overwritten.
        result: what result.json holds, but for the hashes (of predictions, protocol, configuration and evidence), which
            are added here.
        rows: all test examples, in order.
        config_yaml: the resolved configuration.
        extra: called with the hidden folder before it is renamed, to add files such as submissions.
        evidence: what controls and val predicted; None writes no evidence.jsonl.

    Raises:
        ValueError: the result does not fit the schema or its rows.
        OSError: it could not be written, for example ENOSPC.
    """
    predictions = "".join(f"{row.json()}\n" for row in rows).encode()
    record = plain(result)
    record["task"]["protocol_sha256"] = digest(record["task"]["protocol"])
    record["data"]["predictions_sha256"] = hashlib.sha256(predictions).hexdigest()
    record["provenance"]["config_sha256"] = hashlib.sha256(config_yaml.encode()).hexdigest()
    if evidence is not None:
        evidence_text = text(evidence, record, rows).encode()
        record["data"]["evidence_sha256"] = hashlib.sha256(evidence_text).hexdigest()
    problems = violations(record) or contradictions(record, rows)
    if problems:
        raise ValueError("not a valid result: " + "; ".join(problems))

    with hidden_beside(folder) as hidden:
        hidden.mkdir()
        (hidden / RESULT).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        (hidden / PREDICTIONS).write_bytes(predictions)
        (hidden / CONFIG).write_text(config_yaml, encoding="utf-8")
        if evidence is not None:
            (hidden / EVIDENCE).write_bytes(evidence_text)
        if extra is not None:
            extra(hidden)
        for path in [*hidden.rglob("*"), hidden]:
            flush(path)
        final = _rename(hidden, folder)
    flush(final.parent)
    return final


def _rename(hidden: Path, folder: Path) -> Path:
    number = 1
    while True:
        free = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        number += 1
        if free.exists():
            continue
        try:
            return rename(hidden, free)
        except OSError:
            if not free.exists():  # else another process took the name in between
                raise


# --- reading, re-scoring, checking -----------------------------------------------------------------------------------


def load(run: Path) -> dict[str, Any]:
    """What a run's result.json holds; `run` is the folder or the file.

    Raises:
        UserError: there is none, or it is not JSON.
    """
    run = folder_of(run)
    if not run.exists():
        near = run.parent if run.parent != Path() else Path("results")
        raise UserError(f"{run}: there is no such folder{below(near, str(near))}")
    if not run.is_dir():
        raise UserError(f"{run} is a file; name the folder of a run")
    try:
        record = parse(bounded.read_bytes(run / RESULT).decode())
        if not isinstance(record, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        there = below(run) if isinstance(error, FileNotFoundError) else ""
        raise UserError(f"{run}: {_broken(RESULT, error)}{there}") from error
    return record


def below(folder: Path, called: str = "it") -> str:
    """Words on the newest runs below a folder, down to OUT/ENCODER/TASK/RUN; empty if there are none."""
    runs = sorted((file.parent for k in (1, 2, 3) for file in folder.glob("*/" * k + RESULT)), key=lambda run: run.name)
    shown = ", ".join(str(run) for run in runs[:-4:-1])
    count = f", the newest of {len(runs):,}" if len(runs) > 3 else ""
    return f"; runs below {called}: {shown}{count}" if runs else ""


def load_rows(run: Path) -> list[Row]:
    """A run's predictions, in order.

    Raises:
        UserError: there are none, or a line is not a row.
    """
    run = folder_of(run)
    rows: list[Row] = []
    try:
        *lines, rest = bounded.read_bytes(run / PREDICTIONS).split(b"\n")
        for line in lines:
            rows.append(Row.parse(line.decode()))
        if rest:
            raise ValueError("cut off")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{run}: {_broken(f'{PREDICTIONS} line {len(rows) + 1}', error)}") from error
    return rows


def runs(path: Path) -> list[Path]:
    """The folders of all runs at or under a path, sorted; also those that lost one of their files.

    A folder that cannot be read is named by a warning.

    Raises:
        UserError: there is none.
    """
    path = folder_of(path)
    folders = []
    unreadable: list[OSError] = []
    for folder, below, files in os.walk(path, onerror=unreadable.append):
        below[:] = sorted(name for name in below if not name.startswith("."))  # hidden: runs that were not finished
        if RESULT in files or PREDICTIONS in files:
            folders.append(Path(folder))
    for error in unreadable if path.is_dir() else ():
        logger.warning(f"cannot read the folder {error.filename}: {error.strerror}")
    if not folders:
        missing = "" if path.exists() else ", which does not exist"
        raise UserError(f"no run at or under {str(path)!r}{missing}: a run is a folder with {RESULT} in it")
    return folders


def refuse_commas(command: str, paths: Iterable[Path]) -> None:
    """Refuses paths with commas between them.

    Raises:
        UserError: such a word is no path; it says how a command takes several.
    """
    for path in paths:
        parts = str(path).split(",")
        if len(parts) > 1 and not path.exists():
            raise UserError(
                f"no such path: {path}. Write blanks between several: evalkit {command} {shlex.join(parts)}"
            )


def file_sha256(file: Path) -> str:
    """Of a file's bytes, in hex; empty where it cannot be read."""
    try:
        return hashlib.sha256(bounded.read_bytes(file)).hexdigest()
    except OSError:
        return ""


def folder_of(run: Path) -> Path:
    """A run's folder, from the folder or its result.json."""
    return run.parent if run.name == RESULT else run


def _broken(what: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no {what.split()[0]} in it"
    if isinstance(error, OSError):
        return f"{what.split()[0]} cannot be read: {error.strerror}"
    if isinstance(error, json.JSONDecodeError):
        return f"{what} is not JSON, perhaps cut off: {error}"
    return f"{what}: {as_line(error)}"


def as_line(error: Exception) -> str:
    """An error as one line; its type is named unless its text is meant for people."""
    return in_line(error) if isinstance(error, UserError | ValueError) else one_line(error)


def contradictions(result: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """Where a result that fits the schema contradicts its rows, or itself."""
    problems = []
    seen = Counter(row.id for row in rows)
    problems += [f"{PREDICTIONS} has {times} rows with id {name!r}" for name, times in seen.items() if times > 1]
    for key, value in tally(rows).items():
        stored = result["data"][key]
        if stored != value:
            shown = f"is {stored}, but {value}" if key != "failures" else "differs from what is given"
            problems.append(f"data.{key} {shown} in {PREDICTIONS}")
    problems += of_times(result)
    status, data = result["status"], result["data"]
    if status == "complete" and data["n_failed"]:
        problems.append(f"status is complete, but data.n_failed is {data['n_failed']}")
    meant = "expect" in data
    published = data.get("published_size")
    if published not in (None, len(rows)) and not meant and not data.get("size_differences"):
        problems.append(
            f"{PREDICTIONS} has {counted(len(rows), 'row')}, published were {published}, and no data.size_differences"
        )
    cut = bool(data.get("size_differences")) and not meant
    if status == "complete" and cut:
        problems.append("status is complete, but data.size_differences is given without data.expect")
    if status == "partial" and not ((data["n_failed"] or cut) and data["n_scored"]):
        problems.append(
            f"status is partial, but data.n_failed is {data['n_failed']} and data.n_scored {data['n_scored']}"
        )
    if status == "failed" and data["n_scored"]:
        problems.append(f"status is failed, but data.n_scored is {data['n_scored']}")
    return problems
