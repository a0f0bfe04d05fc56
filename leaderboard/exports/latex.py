"""A LaTeX table of encoders by benchmarks and adaptations, results.tex, with booktabs.

Scores are the board's headlines with their 95 % intervals; the best of a column is bold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from evalkit.results.table import decimal

from ..columns import Column, build_columns
from ..runs import Run

# What LaTeX reads as its own, as it is printed.
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$"}


def files(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """The one file, where a run has a score."""
    columns = [column for column in build_columns(runs) if any(cell.score for cell in column.cells)]
    if columns:
        yield "results.tex", _table(columns)


def _table(columns: Sequence[Column]) -> str:
    """A row per encoder; a row per benchmark where they outnumber encoders."""
    encoders = [*dict.fromkeys(cell.encoder for column in columns for cell in column.cells)]
    grid = [
        ["", *(_escaped(column.task) for column in columns)],
        ["", *(_escaped(_below(column)) for column in columns)],
    ]
    grid += [[_escaped(encoder), *(_cell(column, encoder) for column in columns)] for encoder in encoders]
    heads = 2
    if len(columns) > len(encoders):
        grid, heads = [[*row] for row in zip(*grid, strict=True)], 1
    rows = [" & ".join(row) + r" \\" for row in grid]
    lines = [
        "% \\usepackage{booktabs}; made by `evalkit export to=latex`",
        rf"\begin{{tabular}}{{l{'c' * (len(grid[0]) - 1)}}}",
        r"\toprule",
        *rows[:heads],
        r"\midrule",
        *rows[heads:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _below(column: Column) -> str:
    """What stands below a benchmark's name: protocol, adaptation and metric."""
    return ", ".join(filter(None, (column.protocol, column.adaptation, column.metric)))


def _cell(column: Column, encoder: str) -> str:
    """Of several runs of an encoder the best; empty where it has none."""
    scores = [cell.score for cell in column.cells if cell.encoder == encoder and cell.score]
    if not scores:
        return ""
    first = next(cell.score for cell in column.cells if cell.score)
    value, (low, high) = decimal(scores[0]["value"]), scores[0]["ci95"]
    shown = rf"\textbf{{{value}}}" if scores[0] is first and len(column.cells) > 1 else value
    return shown if low is None else rf"{shown} {{\scriptsize [{decimal(low)}, {decimal(high)}]}}"


def _escaped(text: str) -> str:
    return re.sub(r"[\\~^<>]|[&%$#_{}]", lambda m: SPECIAL.get(m[0], rf"\{m[0]}"), " ".join(text.split()))
