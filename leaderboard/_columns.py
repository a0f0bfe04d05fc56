"""Results side by side: a `Column` per benchmark with a `Cell` per encoder, and what papers print of the same.

for title, columns in sections(tables(runs)): ...
"""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evalkit import plugins
from evalkit.datasets import published, suites
from evalkit.metrics.significance import rank_intervals

from ._runs import Run
from ._seeds import Seeds, pooled

MINI = "@mini"


@dataclass(frozen=True)
class Printed:
    """A number from a paper beside a measured one.

    Attributes:
        number: what is printed.
        same: it is of the same encoder; else of one of its size.
        difference: measured minus printed.
        inside: the printed number is within the measured interval; None where that is unknown.
    """

    number: published.Number
    same: bool
    difference: float
    inside: bool | None

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.same:
            return "another encoder"
        return "no interval" if self.inside is None else "within interval" if self.inside else "differs"


@dataclass(frozen=True)
class Cell:
    """One encoder under one protocol on one benchmark.

    Attributes:
        of: its runs, one of each seed.
        encoder: its name, with what tells it from others that have that name.
        mark: a letter where protocol or data are not those of most of the column; empty for those.
        ranks: best and worst rank that it may have; None where nothing is to be ranked.
    """

    of: Seeds
    encoder: str
    mark: str
    ranks: tuple[int, int] | None

    @property
    def run(self) -> Run:
        """The newest of its runs."""
        return self.of.newest

    @property
    def score(self) -> Mapping[str, Any] | None:
        """The headline, the mean over seeds; None where no example has a public answer."""
        return self.of.score


@dataclass(frozen=True)
class Column:
    """A benchmark, with an encoder adapted in one way.

    Attributes:
        task: its name, with @mini for the miniature.
        split: what was scored.
        protocol: its name, where there are several.
        how: the adaptation, as `adaptation` words it.
        metric: the headline; empty where there is no public answer.
        cells: the best first.
        marks: for each letter, what differs from the cells without one.
    """

    task: str
    split: str
    protocol: str
    how: str
    metric: str
    cells: tuple[Cell, ...]
    marks: Mapping[str, str]


# --- side by side ----------------------------------------------------------------------------------------------------


def adaptation(record: Mapping[str, Any]) -> str:
    """How a run adapted its encoder, in the words of `evalkit.datasets.published`: frozen, mlap, finetune, zero-shot,
    ...
    """
    adapter = record["adapter"]
    settings = adapter["settings"]
    if record["selection"] is None:  # nothing was fitted on the task
        return "zero-shot"
    if shots := record["task"]["protocol"].get("shots"):  # papers print what all of the training data gives
        return f"{shots}-shot"
    if adapter["name"] == "finetune":
        return {"all": "finetune", "adapters": "adapter"}.get(settings.get("tune", ""), str(settings.get("tune", "")))
    if adapter["name"] == "captioner":
        return "fine-tuned"
    return "mlap" if settings.get("head") == "mlap" else "frozen"


def tables(runs: Iterable[Run]) -> list[Column]:
    """A column per task, split, protocol, adaptation and metric, sorted by these."""
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        task, scores = run.result["task"], run.result["scores"]
        protocol = str(task["protocol"].get("name") or "")
        metric = scores[0]["metric"] if scores else ""
        found.setdefault((task["name"], task["split"], protocol, adaptation(run.result), metric), []).append(run)
    names = _names(run for members in found.values() for run in members)
    return [_column(key, members, names) for key, members in sorted(found.items())]


_Identity = tuple[str, str, str]


def _identity(record: Mapping[str, Any]) -> _Identity:
    """An encoder's name, weights and settings, in words that can be compared."""
    encoder = record["encoder"]
    return encoder["name"], encoder["sha256"] or encoder["ckpt"], json.dumps(_settings(record), sort_keys=True)


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's settings, but for how many clips it saw at once."""
    return {key: value for key, value in _flat(record["encoder"].get("settings", {})) if key != "batch"}


def _names(runs: Iterable[Run]) -> dict[_Identity, str]:
    """What each encoder is called: its name; where several have it, a part of its hash, and the settings that vary."""
    records = {_identity(run.result): run.result for run in runs}
    found = {}
    for (name, weights, own), record in records.items():
        called = [name]
        if len({one for other, one, _ in records if other == name}) > 1:
            called.append(weights[:8])
        alike = [_settings(records[one]) for one in sorted(records) if one[:2] == (name, weights)]
        settings = _settings(record)
        for key in sorted({key for one in alike for key in one}):
            if any(one.get(key) != settings.get(key) for one in alike):
                called.append(f"{key}={settings.get(key)}")
        found[name, weights, own] = " ".join(called)
    return found


def _terms(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What must be equal in two runs for their scores to be of the same thing."""
    task = record["task"]
    return (task["protocol_sha256"], record["data"]["fingerprint"], str(task["version"]), task["score"])


def _column(key: tuple[str, ...], runs: Sequence[Run], names: Mapping[_Identity, str]) -> Column:
    same: dict[tuple[_Identity, tuple[str, ...]], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.result["provenance"]["finished"], run.name)):
        same.setdefault((_identity(run.result), _terms(run.result)), []).append(run)
    every = [pooled(members) for members in same.values()]
    votes = Counter(_terms(one.newest.result) for one in every)
    usual, *others = sorted(votes, key=lambda terms: (-votes[terms], terms))
    letters = {terms: _letter(i) for i, terms in enumerate(others)}
    of = {_terms(one.newest.result): one.newest.result for one in every}
    ranks = _ranks(every)
    cells = [
        Cell(one, names[who], letters.get(terms, ""), ranks.get(one.newest.name))
        for (who, terms), one in zip(same, every, strict=True)
    ]
    cells.sort(key=lambda cell: (-_value(cell), cell.encoder, cell.mark))
    marks = {letter: _differences(of[usual], of[terms]) for terms, letter in letters.items()}
    task, split, protocol, how, metric = key
    return Column(task, split, protocol, how, metric, tuple(cells), marks)


def _value(cell: Cell) -> float:
    """To sort by: what has no value is last."""
    value = cell.score["value"] if cell.score else None
    return -math.inf if value is None else float(value)


def _letter(i: int) -> str:
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("a") + i % 26)


def _ranks(every: Sequence[Seeds]) -> dict[str, tuple[int, int]]:
    """The ranks that each may have, by its newest run, among those that scored the same examples by the same rule."""
    groups: dict[tuple[Any, ...], list[Seeds]] = {}
    for one in every:
        if one.newest.result["scores"]:
            groups.setdefault(_terms(one.newest.result)[1:], []).append(one)
    found: dict[str, tuple[int, int]] = {}
    for group in groups.values():
        values = [one.headline.values for one in group] if len(group) > 1 else []
        clusters = group[0].headline.clusters if values else None
        comparable = [value for value in values if value is not None]
        if clusters is None or len(comparable) < len(group):
            continue
        if all(np.array_equal(one.headline.clusters, clusters) for one in group):
            intervals = rank_intervals(comparable, clusters.tolist(), seed=0)
            found |= {one.newest.name: ranks for one, ranks in zip(group, intervals, strict=True)}
    return found


def _differences(usual: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs between two runs' terms, in words."""
    told = []
    data, task = other["data"], other["task"]
    if data["fingerprint"] != usual["data"]["fingerprint"]:
        told.append(f"other data ({data['n_expected']:,} examples, {data['fingerprint'][:8]})")
    for key, word in (("version", "version"), ("score", "scored by")):
        if task[key] != usual["task"][key]:
            told.append(f"{word} {task[key]} instead of {usual['task'][key]}")
    one, two = (dict(_flat(record["task"]["protocol"])) for record in (usual, other))
    changed = [key for key in sorted(one.keys() | two.keys()) if one.get(key) != two.get(key)]
    if "adapter" in changed:  # which has other settings
        changed = [key for key in changed if not key.startswith("settings.")]
    for key in changed:
        instead = f" instead of {one[key]}" if key in one else ""
        told.append(f"{key} {two[key]}{instead}" if key in two else f"no {key}, which is {one[key]}")
    return "; ".join(told)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


# --- in print --------------------------------------------------------------------------------------------------------


def printed(column: Column, cell: Cell) -> Printed | None:
    """What a paper prints of the same encoder, else what the column's suite takes for one of its size; if any."""
    score, encoder = cell.score, cell.run.result["encoder"]
    if score is None or score["value"] is None or column.task.endswith(MINI):
        return None
    known = published.rows(column.task, column.metric, column.how, column.split)
    own = [row for one in _suites().values() for row in one.rows.get(encoder["ckpt"], ())]
    near = [row for one in _suites_of(column) for row in _suites()[one].nearest("", encoder["parameters"] or 0)]
    row = next((row for row in (*own, *near) if row in known), None)
    if row is None:
        return None
    asked = (column.task, column.metric, column.how, row, known[row])
    number = next(n for n in published.published_numbers() if (n.task, n.metric, n.adaptation, n.row, n.value) == asked)
    low, high = score["ci95"]
    # What is printed is rounded; so is what it is held against.
    inside = None if None in (low, high) else round(low, 1) <= number.value <= round(high, 1)
    return Printed(number, row in own, score["value"] - number.value, inside)


@functools.cache
def _suites() -> dict[str, suites.Suite]:
    return {name: suites.read(name) for name in sorted(suites.suites())}


@functools.cache
def _wanted() -> dict[tuple[str, str, str], list[str]]:
    """The suites that ask for a task with an adaptation under a protocol; that is empty where the task has only one."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for name, one in _suites().items():
        for how, lines in one.cells.items():
            for line in lines:
                words = dict(word.split("=", 1) for word in line.split())
                keys = inspect.signature(plugins.factory("task", words["task"])).parameters
                default = keys["protocol"].default if "protocol" in keys else ""
                found.setdefault((words["task"], how, words.get("data.protocol", default)), []).append(name)
    return found


def _suites_of(column: Column) -> list[str]:
    return _wanted().get((column.task, column.how, column.protocol), [])


def sections(columns: Sequence[Column]) -> Iterator[tuple[str, list[Column]]]:
    """The columns of each suite, of no suite, and of miniatures, each under a title; a column may be in two suites."""
    real = [column for column in columns if not column.task.endswith(MINI)]
    for name, file in sorted(suites.suites().items()):
        if members := [column for column in real if name in _suites_of(column)]:
            yield f"{name}: {suites.summary(file).rstrip('.')}", members
    if others := [column for column in real if not _suites_of(column)]:
        yield "Other tasks", others
    if minis := [column for column in columns if column.task.endswith(MINI)]:
        yield "Miniatures: generated videos, whose scores say nothing of real ones", minis
