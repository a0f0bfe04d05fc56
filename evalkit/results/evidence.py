"""evidence.jsonl: data that a run saves with its predictions so that more of its record can be verified.

A line per test example, in order: its id, a hash of what was expected of the run there (task, data and the example's
own video, kind and target), why it failed if it did, and what each control predicted. Then a line per val example: its
target, and what the chosen grid point predicted at the chosen epoch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.api import Score
from evalkit.errors import counted, in_line
from evalkit.results.rows import Row
from evalkit.results.schema import digest, parse, plain, violations
from evalkit.results.scores import control, headline
from evalkit.runtime import bounded

EVIDENCE = "evidence.jsonl"

# Of a selection, beside what the schema requires.
SELECTION = ("val_scores", "grid_val_scores", "failures", "n_train", "n_val", "undecodable")
SHOWN = 3  # examples that a problem names


@dataclass(frozen=True)
class Evidence:
    """What was predicted beside the test examples' own predictions.

    Attributes:
        controls: of each control, its prediction by example id; failed examples are left out.
        val: id, target and prediction of each val example that the choice was made on; empty where nothing was chosen.
    """

    controls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    val: Sequence[tuple[str, Any, Any]] = ()


def text(evidence: Evidence, record: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """What evidence.jsonl holds of a run, of which `record` has all but this file's own hash."""
    salt = _asked(record)
    lines: list[dict[str, Any]] = [
        {
            "split": "test",
            "id": row.id,
            "expected": _expected(salt, row),
            "failure": _failure(row),
            "controls": {name: of.get(row.id) for name, of in evidence.controls.items()},
        }
        for row in rows
    ]
    lines += [{"split": "val", "id": id, "target": t, "prediction": value} for id, t, value in evidence.val]
    return "".join(json.dumps(plain(line), allow_nan=False) + "\n" for line in lines)


def _asked(record: Mapping[str, Any]) -> str:
    """The hash of what all examples have in common: the task and its protocol, its data, and the level of chance."""
    task, data = record["task"], record["data"]
    names = ("name", "version", "split", "score", "quick_score", "published", "protocol_sha256")
    asked = [{name: task.get(name) for name in names}, data["fingerprint"], data.get("published_size")]
    # What has none of them has the hash that it had before they counted.
    sizes = {name: data[name] for name in ("size_differences", "expect", "shared_videos") if name in data}
    fold = {"fold": task["fold"]} if "fold" in task else {}
    return digest([*asked, record["chance"], *filter(None, (sizes, fold))])


def _expected(salt: str, row: Row) -> str:
    return digest([salt, row.id, row.video, row.kind, row.target])[:16]


def _failure(row: Row) -> str | None:
    return (row.failure or "no prediction") if row.prediction is None else None


def problems(
    run: Path, record: Mapping[str, Any], rows: Sequence[Row], score: Score | None, quick: Score | None
) -> list[str]:
    """Where a run contradicts its evidence; nothing where it was written before there was any.

    Args:
        run: its folder.
        record: its result, which fits the schema.
        rows: its predictions.
        score: its score function; None where that is not to be run.
        quick: its score function for controls and val, where it has one of its own.
    """
    stored, file = record["data"].get("evidence_sha256"), run / EVIDENCE
    if stored is None:
        new = file.exists() or "quick_score" in record["task"]  # which came with the evidence
        return ["data.evidence_sha256 was taken out"] if new else []
    if "config_sha256" not in record["provenance"]:
        return ["provenance.config_sha256 was taken out"]
    try:
        content = bounded.read_bytes(file)
        changed = f"{EVIDENCE} was changed: its sha256 is not data.evidence_sha256"
        found = [] if hashlib.sha256(content).hexdigest() == stored else [changed]
        test, val = _parse(content.decode())
    except FileNotFoundError:
        return [f"no {EVIDENCE} in it, though data.evidence_sha256 is its hash"]
    except OSError as error:
        return [f"{EVIDENCE} cannot be read: {error.strerror}"]
    except (ValueError, RecursionError) as error:
        return [f"{EVIDENCE} {in_line(error)}"]
    found += _examples(record, rows, test)
    names = [entry["name"] for entry in record["controls"]]
    if [name for line in test[:1] for name in line["controls"]] != names and any(
        row.target is not None for row in rows
    ):
        found.append(f"controls are {', '.join(names) or 'none'}; {EVIDENCE} has others")
    elif score is not None and not found:
        found += _scores(record, rows, test, val, quick or score)
    return found or [*_selection(record["selection"], len(val))]


def controls(run: Path) -> dict[str, dict[str, Any]]:
    """By example id what each control predicted; empty where nothing is kept, or it is not as a run writes it."""
    try:
        test, _ = _parse(bounded.read_bytes(run / EVIDENCE).decode())
    except (OSError, ValueError, RecursionError):
        return {}
    return {line["id"]: line["controls"] for line in test}


def _parse(content: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    lines: dict[str, list[dict[str, Any]]] = {"test": [], "val": []}
    shapes: set[tuple[Any, ...]] = set()  # keys and types of lines that fit the schema
    *whole, rest = content.split("\n")
    for number, line in enumerate(whole, 1):
        try:
            value = parse(line)
            shape = (value.get("split"), *value, *map(type, value.values())) if isinstance(value, dict) else ()
            if shape not in shapes and (wrong := violations(value, "#/$defs/evidence")):
                raise ValueError(wrong[0])
            shapes.add(shape)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: {in_line(error)}") from error
        lines[value["split"]].append(value)
    if rest:
        raise ValueError(f"line {len(whole) + 1}: cut off")
    return lines["test"], lines["val"]


def _examples(record: Mapping[str, Any], rows: Sequence[Row], test: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where the rows are not those of the examples that were expected."""
    wanted, given = [line["id"] for line in test], [row.id for row in rows]
    known, present = set(wanted), set(given)
    if lacking := [id for id in wanted if id not in present]:
        yield f"predictions.jsonl lacks {len(lacking)} of the examples that were expected: {_first(lacking)}"
    if strange := [id for id in given if id not in known]:
        yield f"predictions.jsonl has {counted(len(strange), 'unexpected example')}: {_first(strange)}"
    if wanted != given:
        if not lacking and not strange:
            yield "predictions.jsonl has its examples in another order, or twice"
        return
    salt = _asked(record)
    other = [row.id for row, line in zip(rows, test, strict=True) if _expected(salt, row) != line["expected"]]
    if other and len(other) == len(rows):
        yield "the task, its data or chance were changed: no example is as it was expected"
    elif other:
        yield f"an unexpected video, kind or target of {counted(len(other), 'example')}: {_first(other)}"
    if other := [row.id for row, line in zip(rows, test, strict=True) if _failure(row) != line["failure"]]:
        yield f"{counted(len(other), 'example')} failed otherwise than {EVIDENCE} says: {_first(other)}"


def _selection(selection: Mapping[str, Any] | None, n_val: int) -> Iterator[str]:
    """What a selection lacks that every run with evidence has, and a number of val examples that cannot be."""
    if selection is None:
        return
    if lacking := [key for key in SELECTION if key not in selection]:
        yield f"selection.{lacking[0]} was taken out"
    elif numbers := [key for key in ("point", "epoch", "epochs") if type(selection["chosen"].get(key)) is not int]:
        yield f"selection.chosen.{numbers[0]} is {selection['chosen'].get(numbers[0])!r:.60}, no whole number"
    elif type(n := selection["n_val"]) is not int or not n_val <= n <= n_val + len(selection["undecodable"]):
        yield f"selection.n_val is {selection['n_val']}, but {EVIDENCE} has {counted(n_val, 'val example')}"


def _first(ids: Sequence[str]) -> str:
    shown = ", ".join(repr(id[:60]) for id in ids[:SHOWN])
    return shown if len(ids) <= SHOWN else f"{shown}, ..."


def _scores(
    record: Mapping[str, Any],
    rows: Sequence[Row],
    test: Sequence[Mapping[str, Any]],
    val: Sequence[Mapping[str, Any]],
    score: Score,
) -> Iterator[str]:
    """Where controls, and the choice on val, score otherwise than the record says."""
    labeled = [(row.target, line["controls"]) for row, line in zip(rows, test, strict=True) if row.target is not None]
    for entry in record["controls"]:
        name = entry["name"]
        values, targets = [of.get(name) for _, of in labeled], [target for target, _ in labeled]
        metric, value = control(name, score, values, targets)
        if metric == entry["metric"] and alike(value, entry["value"]):
            continue
        former = control(name, score, values, targets, former=True)  # of a record from before all orders counted alike
        if name != "option_order" or former[0] != entry["metric"] or not alike(former[1], entry["value"]):
            yield f"control {name}: stored {entry['metric']} {entry['value']}, recomputed {metric} {value}"
    selection = record["selection"]
    if selection is None or not val:
        if selection is not None or val:
            stored = "null" if selection is None else "there"
            yield f"selection is {stored}, but {EVIDENCE} has {counted(len(val), 'val example')}"
        return
    value = headline(score, [line["prediction"] for line in val], [line["target"] for line in val])
    if not alike(value, selection["val_score"]):
        yield f"selection.val_score: stored {selection['val_score']}, recomputed {value}"


def alike(a: float | None, b: float | None) -> bool:
    """Whether two scores are equal but for the order in which a machine adds; None is NaN."""
    one, other = (math.nan if number is None else float(number) for number in (a, b))
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-6) or (math.isnan(one) and math.isnan(other))
