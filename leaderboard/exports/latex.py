"""A LaTeX table of encoders by benchmarks and adaptations, results.tex, with booktabs.

Scores have their 95 % intervals; the best of a column is bold, and so is each that is printed alike. Runs of a
benchmark under several protocols are in columns of their own: called by the adapter where that differs, else by a
letter that the foot of the table explains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.errors import UserError, suggest
from evalkit.results.scores import lower_is_better
from evalkit.results.table import decimal

from ..columns import Cell, Column, build_columns, differences, letter
from ..runs import Run
from . import report

FILE = "results.tex"
# What LaTeX reads as its own, as it is printed.
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$"}


@dataclass(frozen=True)
class _Scores:
    """A column of the table: scores by one metric, measured alike.

    Attributes:
        task: the benchmark.
        how: split where there are several, protocol, adaptation, adapter where several have a column, and metric.
        best: the best of `scores` as printed; empty where there is but one.
        scores: value and interval by encoder.
    """

    task: str
    how: str
    best: str
    scores: Mapping[str, Mapping[str, Any]]


def files(runs: Sequence[Run], metrics: str = "headline") -> Iterator[tuple[str, str]]:
    """The one file, where a run has a score.

    Args:
        runs: newest first.
        metrics: `headline`, `all`, or names of metrics, between commas.

    Raises:
        UserError: no run has one of the metrics.
    """
    columns = build_columns(runs)
    known = dict.fromkeys(entry["metric"] for run in runs for entry in run.result["scores"])
    wanted = [] if metrics in ("headline", "all") else metrics.split(",")
    for metric in wanted:
        if metric not in known and known:
            near = suggest(metric, known)
            raise UserError(f"metrics={metrics}: no run has {metric!r}.{near} Known: headline, all, {', '.join(known)}")
    table: list[_Scores] = []
    notes: dict[str, str] = {}
    for column in columns:
        shown = {"headline": [column.metric], "all": [*known]}.get(metrics, wanted)
        splits = {other.split for other in columns if other.task == column.task}
        table += _parts(column, column.split if len(splits) > 1 else "", shown, notes)
    if table:
        yield FILE, _table(table, notes)


def _parts(column: Column, split: str, metrics: Sequence[str], notes: dict[str, str]) -> Iterator[_Scores]:
    """A column of the board as one per metric, adapter and protocol; what a letter stands for is added to `notes`."""
    parts: dict[str, list[Cell]] = {}
    for cell in column.cells:
        if older := cell.seeds.total - len(cell.seeds.runs):
            report(cell.run, f"the newest under this protocol, and in the place of {older:,} more, which are left out")
        if not any(cell.seeds.mean_of(metric) for metric in metrics):
            report(cell.run, f"has no score by {', '.join(metrics) or 'any metric'}, and so no place")
        parts.setdefault(cell.mark, []).append(cell)
    records = {mark: cells[0].run.result for mark, cells in sorted(parts.items())}  # that of most cells first
    adapters = [record["adapter"]["name"] for record in records.values()]
    firsts: dict[str, str] = {}  # the mark of the first protocol of an adapter
    for mark, record in records.items():
        adapter = record["adapter"]["name"]
        first = firsts.setdefault(adapter, mark)
        note = column.marks.get(mark, "") if mark == first else differences(records[first], record)
        sign = ""
        if note and note != f"adapter {adapter} instead of {adapters[0]}":
            sign = f" ({letter(len(notes))})"
            notes[sign.strip()] = f"{column.task}: {note}"
        for metric in metrics:
            scores = {cell.encoder: entry for cell in parts[mark] if (entry := cell.seeds.mean_of(metric))}
            if scores:
                best = (min if lower_is_better(metric) else max)(entry["value"] for entry in scores.values())
                named = (split, column.protocol, column.adaptation, adapter if len({*adapters}) > 1 else "", metric)
                how = ", ".join(filter(None, named)) + sign
                yield _Scores(column.task, how, decimal(best) if len(scores) > 1 else "", scores)


def _table(columns: Sequence[_Scores], notes: Mapping[str, str]) -> str:
    """A row per encoder; a row per benchmark where they outnumber encoders."""
    encoders = [*dict.fromkeys(encoder for column in columns for encoder in column.scores)]
    grid = [["", *(_escaped(column.task) for column in columns)], ["", *(_escaped(column.how) for column in columns)]]
    grid += [[_escaped(encoder), *(_cell(column, encoder) for column in columns)] for encoder in encoders]
    heads = 2
    if len(columns) > len(encoders):
        grid, heads = [[*row] for row in zip(*grid, strict=True)], 1
    rows = [" & ".join(row) + r" \\" for row in grid]
    width = len(grid[0])
    foot = [rf"\multicolumn{{{width}}}{{l}}{{\footnotesize {_escaped(f'{k} {note}')}}} \\" for k, note in notes.items()]
    lines = [
        "% \\usepackage{booktabs}; made by `evalkit export to=latex`",
        rf"\begin{{tabular}}{{l{'c' * (width - 1)}}}",
        r"\toprule",
        *rows[:heads],
        r"\midrule",
        *rows[heads:],
        r"\bottomrule",
        *foot,
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _cell(column: _Scores, encoder: str) -> str:
    """An encoder's score; empty where it has none."""
    if encoder not in column.scores:
        return ""
    value, (low, high) = decimal(column.scores[encoder]["value"]), column.scores[encoder]["ci95"]
    shown = rf"\textbf{{{value}}}" if value == column.best else value
    return shown if low is None else rf"{shown} {{\scriptsize [{decimal(low)}, {decimal(high)}]}}"


def _escaped(text: str) -> str:
    return re.sub(r"[\\~^<>]|[&%$#_{}]", lambda m: SPECIAL.get(m[0], rf"\{m[0]}"), " ".join(text.split()))
