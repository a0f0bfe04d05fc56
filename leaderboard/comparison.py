"""Comparison with published scores, and grouping of columns by the suites of papers.

for title, columns in sections(build_columns(runs)): ...
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit import plugins
from evalkit.config import named
from evalkit.datasets import published, suites
from evalkit.errors import counted

from .columns import ALONE, MINI, Cell, Column

PROTOCOL_PARAMETERS = ("protocol", "windows", "what")  # of a task, whose value is the name of its protocol


@dataclass(frozen=True)
class PublishedComparison:
    """Comparison of a measured score with a published one.

    Attributes:
        published: the number.
        same_encoder: whether it is of the same encoder; else it is of one of its size.
        difference: measured minus published.
        within_interval: whether the published number is within the measured interval; None if that is unknown.
        other_sizes: what differs in the number of examples, as `other_sizes` says it; empty where nothing does.
    """

    published: published.Number
    same_encoder: bool
    difference: float
    within_interval: bool | None
    other_sizes: str = ""

    @property
    def verdict(self) -> str:
        """The outcome, as shown."""
        if self.other_sizes:
            return f"different data: {self.other_sizes}"
        if not self.same_encoder:
            return "another encoder"
        if self.within_interval is None:
            return "no interval"
        return "within interval" if self.within_interval else "differs"


def compare_published(column: Column, cell: Cell) -> PublishedComparison | None:
    """The published number of the same encoder, else the one that the column's suite has for its size; None if none."""
    score, encoder = cell.score, cell.run.result["encoder"]
    if score is None or score["value"] is None or column.task.endswith(MINI) or encoder["ckpt"] == ALONE:
        return None
    known = published.rows(column.task, column.metric, column.adaptation, column.split, column.protocol)
    same_encoder = [row for suite in _suites().values() for row in suite.rows.get(encoder["ckpt"], ())]
    same_size = [row for name in _suites_of(column) for row in _suites()[name].nearest("", encoder["parameters"] or 0)]
    row = next((row for row in (*same_encoder, *same_size) if row in known), None)
    if row is None:
        return None
    key = (column.task, column.metric, column.adaptation, row, known[row])
    number = next(n for n in published.published_numbers() if (n.task, n.metric, n.adaptation, n.row, n.value) == key)
    low, high = score["ci95"]
    # Published numbers are rounded, so the interval is rounded too.
    within = None if None in (low, high) else round(low, 1) <= number.value <= round(high, 1)
    return PublishedComparison(
        number, row in same_encoder, score["value"] - number.value, within, other_sizes(cell.run.result)
    )


def other_sizes(result: Mapping[str, Any]) -> str:
    """Where the splits of a run have another size than published: `5 of 1,000 test examples`; else empty."""
    return ", ".join(
        f"{split['examples']:,} of {counted(split['published'], split['split'] + ' example')}"
        for split in result["data"].get("size_differences", ())
    )


@functools.cache
def _suites() -> dict[str, suites.Suite]:
    return {name: suites.read(name) for name in sorted(suites.suites())}


@functools.cache
def suites_by_cell() -> dict[tuple[str, str, str], list[str]]:
    """Names of the suites by (task, adaptation, protocol); the protocol is empty for a task that has only one."""
    names: dict[tuple[str, str, str], list[str]] = {}
    for name, suite in _suites().items():
        for adaptation, lines in suite.cells.items():
            for line in lines:
                overrides = dict(override.split("=", 1) for override in line.split())
                settings = inspect.signature(plugins.factory("task", overrides["task"])).parameters
                key = next((name for name in PROTOCOL_PARAMETERS if name in settings), "")
                protocol = overrides.get(f"data.{key}", settings[key].default) if key else ""
                names.setdefault((overrides["task"], adaptation, protocol), []).append(name)
    return names


def _suites_of(column: Column) -> list[str]:
    return suites_by_cell().get((column.task, column.adaptation, column.protocol), [])


def _parts(name: str) -> list[str]:
    """Names of the suites all of whose cells are cells of this one, which has more."""
    cells = {suite: {cell for cell, names in suites_by_cell().items() if suite in names} for suite in _suites()}
    return [suite for suite in cells if cells[suite] < cells[name]]


def title(file: Path) -> str:
    """The first sentence of a suite's comment: what it is; what stands after it says how to run it."""
    return re.split(r"\.(?= |$)", named.summary(file), maxsplit=1)[0]


def sections(columns: Sequence[Column]) -> Iterator[tuple[str, list[Column]]]:
    """The columns of each suite, of no suite, and of miniatures, each under a title; a column may be in two suites."""
    real = [column for column in columns if not column.task.endswith(MINI)]
    for name, file in sorted(suites.suites().items()):
        members = [column for column in real if name in _suites_of(column)]
        if members and not any(all(part in _suites_of(column) for column in members) for part in _parts(name)):
            yield f"{name}: {title(file)}", members
    if others := [column for column in real if not _suites_of(column)]:
        yield "Other tasks", others
    if minis := [column for column in columns if column.task.endswith(MINI)]:
        yield "Miniatures: generated videos, whose scores say nothing of real ones", minis
