"""The leaderboard as markdown, for a repository's README."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evalkit.datasets import published
from evalkit.results.table import language_model_of, shared_in_words

from .columns import SEEN, Cell, Column, build_columns
from .comparison import compare_published, other_sizes, sections
from .other_tools import Score
from .runs import Run

COLUMNS_PER_TABLE = 6  # more columns of a section go into further tables

LEGEND = """\
Each row is an encoder, each column a benchmark: its name, split and protocol, how the encoder is used (frozen: a head
is trained on its features; zero-shot: nothing is trained), and the metric. Each cell shows the headline score with its
95 % interval (resampling videos), the possible ranks of the run, at 95 %, among runs of its column on the same examples
(runs without a significant difference share ranks), and in square brackets its line under [Runs](#runs). Rows are
sorted by their score in the first column that has one. Failed examples count as wrong; after *partial* is the score if
all of them were right. A letter in round brackets marks another protocol or other data than in the rest of the column;
the differences are listed below the table."""
CONTROLS = """\
The same run with less information: without the video (blind), with shuffled frames (shuffled), with a single frame
(single_frame), or with the options in another order (option_order). A score near one of the first three does not show
that the video, its order or more than a frame was needed."""
RUNS = """\
Runs with equal hashes of protocol and data (their first letters are shown) were measured alike, on the same
examples."""
SEEDS = """\
Runs that differ only in their seed, or in the official split (fold) of a benchmark, share a cell with the mean of
their scores, its interval, and their standard deviation (sd). Controls, date and command are those of the newest
run."""


def render_markdown(runs: Sequence[Run], refused: Sequence[str] = (), others: Sequence[Score] = ()) -> str:
    """The leaderboard as markdown.

    Args:
        runs: those that validate.
        refused: a line for each run that does not.
        others: scores of other tools.
    """
    if not runs and not refused:
        return "# Leaderboard\n\nThere are no results.\n"
    columns = build_columns(runs)
    number = _numbers(columns)
    several = any(cell.seeds.sd is not None for column in columns for cell in column.cells)
    parts = ["# Leaderboard", LEGEND, *([SEEDS] if several else [])]
    for title, members in sections(columns):
        parts.append(f"## {title}")
        for start in range(0, len(members), COLUMNS_PER_TABLE):
            parts += _side_by_side(members[start : start + COLUMNS_PER_TABLE], number)
        parts += _comparison_table(members)
    parts += _other_tools(others)
    parts += _control_table(columns, number)
    parts += _run_table(columns, number)
    if refused:
        parts += ["## Refused", "These do not validate (`evalkit validate`) and are not shown."]
        parts.append("\n".join(f"* {_text(line)}" for line in refused))
    return "\n\n".join(parts) + "\n"


def _numbers(columns: Sequence[Column]) -> dict[str, int]:
    """The number of each cell's run in the table of runs, from 1."""
    return {cell.run.name: i for i, cell in enumerate((c for column in columns for c in column.cells), 1)}


def _side_by_side(columns: Sequence[Column], number: Mapping[str, int]) -> list[str]:
    # Encoders in the order of the first column that has them.
    encoders = list(dict.fromkeys(cell.encoder for column in columns for cell in column.cells))
    head = ["encoder", *("<br>".join(map(_text, _title(column))) for column in columns)]
    chance = [
        "chance",
        *(_join_unique(_decimal(cell.run.result["chance"]) for cell in column.cells) for column in columns),
    ]
    sizes = ["examples (videos)", *(_join_unique(_size(cell) for cell in column.cells) for column in columns)]
    rows = [
        [
            _text(encoder),
            *("<br>".join(_cell(c, number) for c in column.cells if c.encoder == encoder) for column in columns),
        ]
        for encoder in encoders
    ]
    marks = [
        f"({letter}) {_text(column.task)}: {_text(difference)}"
        for column in columns
        for letter, difference in column.marks.items()
    ]
    marks += [
        f"{SEEN} {_text(cell.encoder)} was trained on {_text(cell.seen)}, which shares videos with {_text(column.task)}"
        for column in columns
        for cell in column.cells
        if cell.seen
    ]
    return [_table([head, *rows, sizes, chance]), *(["\n".join(f"* {line}" for line in marks)] if marks else [])]


def _title(column: Column) -> list[str]:
    kind = ", ".join(part for part in (column.adaptation, column.protocol) if part)
    return [column.task, column.split, kind, column.metric or "no public answers"]


def _join_unique(values: Iterable[str]) -> str:
    """Distinct values of a column's cells."""
    return " / ".join(dict.fromkeys(values))


def _size(cell: Cell) -> str:
    score = cell.score
    return (
        f"{cell.run.result['data']['n_expected']:,}" if score is None else f"{score['n']:,} ({score['n_clusters']:,})"
    )


def _cell(cell: Cell, number: Mapping[str, int]) -> str:
    score, worst = cell.score, cell.seeds.worst.result
    mark = f" ({cell.mark})" if cell.mark else ""
    where = f"[{number[cell.run.name]}]"
    if score is None:
        return f"not scored{mark} {where}"
    seen = SEEN if cell.seen else ""
    text = f"**{_decimal(score['value'])}**{seen}{mark} {_span(score['ci95'])}".rstrip()
    if cell.seeds.pooled:
        text += f"<br>{cell.seeds.pooled}" + (f", sd {_decimal(cell.seeds.sd)}" if cell.seeds.sd is not None else "")
    if cell.ranks:
        low, high = cell.ranks
        text += f"<br>rank {low}" + (f" to {high}" if high > low else "")
    if failed := worst["data"]["n_failed"]:
        text += f"<br>*{worst['status']}*: {failed:,} failed, at most {_decimal(score['bounds'][1])}"
    elif sizes := other_sizes(worst):
        text += f"<br>*{worst['status']}*: {sizes}"
    if shared := shared_in_words(worst["data"]):
        text += f"<br>*{shared}*"
    return f"{text} {where}"


def _comparison_table(columns: Sequence[Column]) -> list[str]:
    rows = []
    for column in columns:
        for cell in column.cells:
            comparison = compare_published(column, cell)
            if comparison is None or cell.score is None:
                continue
            n = comparison.published
            source = f"[{n.source}, table {_text(n.table)}]({published.SOURCES[n.source].split()[0]})"
            rows.append(
                [
                    _text(", ".join(_title(column))),
                    _text(cell.encoder),
                    f"{_decimal(cell.score['value'])} {_span(cell.score['ci95'])}".rstrip(),
                    f"{n.value:g}",
                    _text(n.row) + (f" ({_text(n.note)})" if n.note else ""),
                    source,
                    f"{comparison.difference:+.1f}",
                    comparison.verdict,
                ]
            )
    head = ["task", "encoder", "measured", "printed", "of", "source", "difference", "verdict"]
    return ["Beside what papers print:", _table([head, *rows])] if rows else []


def _other_tools(scores: Sequence[Score]) -> list[str]:
    """Tables of other tools' main scores; of several of one file, encoder, task and split the last counts."""
    by_column: dict[tuple[str, str], dict[str, str]] = {}
    main_metric: dict[tuple[str, ...], str] = {}
    for score in scores:
        place = (str(score.file), score.encoder, score.task, score.split)
        if main_metric.setdefault(place, score.metric) == score.metric:  # the first of a tool is its main metric
            title = "<br>".join(map(_text, (score.task, score.split, score.metric, score.source)))
            by_column.setdefault((score.task, title), {})[score.encoder] = _decimal(score.value)
    columns = [(title, values) for (_, title), values in sorted(by_column.items())]
    parts = ["## Measured by other tools", "Their tasks ask other questions, by other protocols."] if columns else []
    for start in range(0, len(columns), COLUMNS_PER_TABLE):
        shown = columns[start : start + COLUMNS_PER_TABLE]
        encoders = sorted({encoder for _, values in shown for encoder in values})
        rows = [[_text(encoder), *(values.get(encoder, "") for _, values in shown)] for encoder in encoders]
        parts.append(_table([["encoder", *(title for title, _ in shown)], *rows]))
    return parts


def _control_table(columns: Sequence[Column], number: Mapping[str, int]) -> list[str]:
    cells = [(column, cell) for column in columns for cell in column.cells if cell.run.result["controls"]]
    names = sorted({control["name"] for _, cell in cells for control in cell.run.result["controls"]})
    rows = []
    for column, cell in cells:
        values: dict[str, list[str]] = {}
        for control in cell.run.result["controls"]:
            metric = "" if control["metric"] == column.metric else f"{_text(control['metric'])} "
            values.setdefault(control["name"], []).append(metric + _decimal(control["value"]))
        scores = cell.run.result["scores"]
        score = _decimal(scores[0]["value"]) if scores else ""
        control_values = [", ".join(values.get(name, [])) for name in names]
        chance = _decimal(cell.run.result["chance"])
        rows.append(
            [str(number[cell.run.name]), _text(column.task), _text(cell.encoder), score, chance, *control_values]
        )
    head = ["run", "task", "encoder", "score", "chance", *map(_text, names)]
    return ["## Controls", CONTROLS, _table([head, *rows])] if rows else []


def _run_table(columns: Sequence[Column], number: Mapping[str, int]) -> list[str]:
    head = ["run", "encoder", "task", "adapter", "protocol", "data", "runs", "date", "commit", "command"]
    rows = []
    for column in columns:
        for cell in column.cells:
            record = cell.run.result
            provenance = record["provenance"]
            rows.append(
                [
                    str(number[cell.run.name]),
                    _text(cell.encoder),
                    _text(column.task),
                    _text(", ".join(filter(None, (record["adapter"]["name"], language_model_of(record))))),
                    f"{_text(column.protocol)} {record['task']['protocol_sha256'][:8]}".strip(),
                    _text(record["data"]["fingerprint"][:8]),
                    cell.seeds.summary,
                    provenance["finished"][:10],
                    _commit(provenance),
                    _code(provenance["command"]),
                ]
            )
    return ["## Runs", RUNS, _table([head, *rows])] if rows else []


def _commit(provenance: Mapping[str, Any]) -> str:
    if provenance["git_commit"] is None:
        return _text(f"evalkit {provenance['packages'].get('evalkit', 'unknown')}")
    return _text(provenance["git_commit"][:10]) + (" with changes" if provenance["dirty"] else "")


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def _text(value: object) -> str:
    """Escapes markdown and joins lines."""
    return re.sub(r"([\\`*\[\]<>|&#~])", r"\\\1", " ".join(str(value).split()))


def _code(value: str) -> str:
    """An inline code span for a table cell."""
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", value)), default=0))
    pad = " " if "`" in value else ""
    return f"{ticks}{pad}{' '.join(value.split())}{pad}{ticks}".replace("|", "\\|")


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _span(pair: Sequence[float | None]) -> str:
    return "" if None in pair else f"({_decimal(pair[0])} to {_decimal(pair[1])})"
