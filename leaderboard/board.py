"""`evalkit leaderboard`: results side by side as markdown, csv or a page, the same bytes from the same results."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.datasets import published
from evalkit.errors import UserError, suggest
from evalkit.results.scores import task_files

from ._columns import Cell, Column, printed, sections, tables
from ._foreign import Score, foreign
from ._page import html
from ._runs import Run, collect

logger = logging.getLogger("evalkit")

WIDTH = 6  # columns that a page shows side by side

LEGEND = """\
Each cell: the headline with its 95 % interval, resampled by video; the ranks that the run may have among those of its
column on the same examples, at 95 %, which runs that cannot be told apart share; and in square brackets its line under
[Runs](#runs). Rows stand in the order of the first column that has them. A failed example counts as wrong; *partial*
gives the score if all that failed were right. A letter in round brackets: another protocol, or other data, than the
rest of the column; what differs stands below the table."""
SEEDS = """\
Runs that differ in their seed alone share a cell: the mean of their scores with its interval, and the standard
deviation (sd) over seeds. Controls, date and command are those of the newest."""


def board(words: Sequence[str]) -> int:
    """Writes the board of all runs under a folder; 1 where a run does not validate, which is named and left out.

    Args:
        words: results=, a run or a folder with runs in it; out=, a file that ends in .md, .csv or .html, else README.md
            in that folder; others=, a file or folder of what mteb or lm-eval wrote, for a section of its own; videos=,
            a folder with the samples' videos, of which a page shows a frame; task=, the file of a task of one's own,
            by which its runs are scored again, as often as there are such.

    Raises:
        UserError: a word is wrong, there is no run, or `out` cannot be written.
    """
    chosen = {"results": "results", "out": "", "others": "", "videos": ""}
    words, files = task_files(words)
    for word in words:
        key, equals, value = word.partition("=")
        if key not in chosen or not value:
            known = ", ".join(f"{name}=" for name in (*chosen, "task"))
            raise UserError(f"leaderboard takes {known}, got {word!r}." + (suggest(key, chosen) if value else ""))
        chosen[key] = value
    results = Path(chosen["results"])
    out = Path(chosen["out"]) if chosen["out"] else results / "README.md"
    if out.suffix not in (".md", ".csv", ".html"):
        raise UserError(f"out={out}: wanted a file that ends in .md, .csv or .html")
    videos = Path(chosen["videos"]) if chosen["videos"] else None
    if videos and not (out.suffix == ".html" and videos.is_dir()):
        why = "there is no such folder" if out.suffix == ".html" else "only a page shows them; give out=FILE.html"
        raise UserError(f"videos={videos}: {why}")
    others = foreign(Path(chosen["others"])) if chosen["others"] else ()
    if others and out.suffix == ".csv":
        raise UserError(f"others={chosen['others']}: a csv holds our own results alone; give out=FILE.md")
    runs, refused = collect(results, files)
    if out.suffix == ".html":
        text = html(runs, refused, others, videos)
    else:
        text = flat(runs) if out.suffix == ".csv" else markdown(runs, refused, others)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(text.encode("utf-8", "backslashreplace"))  # a name may hold what no encoding has
    except OSError as error:
        raise UserError(f"out={out}: cannot write there: {error.strerror}") from error
    for line in refused:
        logger.warning(f"refused: {line}")
    print(out)
    return 1 if refused else 0


# --- as text ---------------------------------------------------------------------------------------------------------


def markdown(runs: Sequence[Run], refused: Sequence[str] = (), others: Sequence[Score] = ()) -> str:
    """The board as a page that a repository shows.

    Args:
        runs: what validates.
        refused: a line for each run that does not.
        others: what other tools measured.
    """
    if not runs and not refused:
        return "# Leaderboard\n\nThere are no results.\n"
    columns = tables(runs)
    number = _numbers(columns)
    several = any(cell.of.sd is not None for column in columns for cell in column.cells)
    parts = ["# Leaderboard", LEGEND, *([SEEDS] if several else [])]
    for title, members in sections(columns):
        parts.append(f"## {title}")
        for start in range(0, len(members), WIDTH):
            parts += _side_by_side(members[start : start + WIDTH], number)
        parts += _against_print(members)
    parts += _of_others(others)
    parts += _controls(columns, number)
    parts += _runs(columns, number)
    if refused:
        parts += ["## Refused", "These do not validate (`evalkit validate`) and are not shown."]
        parts.append("\n".join(f"* {_text(line)}" for line in refused))
    return "\n\n".join(parts) + "\n"


def _numbers(columns: Sequence[Column]) -> dict[str, int]:
    """The line of each cell's run in the list of runs, from 1."""
    return {cell.run.name: i for i, cell in enumerate((c for column in columns for c in column.cells), 1)}


def _side_by_side(columns: Sequence[Column], number: Mapping[str, int]) -> list[str]:
    place: dict[str, int] = {}
    for column in columns:
        for cell in column.cells:  # in the order of the first column that has them
            place.setdefault(cell.encoder, len(place))
    head = ["encoder", *("<br>".join(map(_text, _title(column))) for column in columns)]
    chance = ["chance", *(_each(_decimal(cell.run.result["chance"]) for cell in column.cells) for column in columns)]
    sizes = ["examples (videos)", *(_each(_size(cell) for cell in column.cells) for column in columns)]
    rows = [
        [_text(encoder), *("<br>".join(_cell(c, number) for c in one.cells if c.encoder == encoder) for one in columns)]
        for encoder in place
    ]
    marks = [
        f"({letter}) {_text(column.task)}: {_text(what)}" for column in columns for letter, what in column.marks.items()
    ]
    return [_table([head, *rows, sizes, chance]), *(["\n".join(f"* {line}" for line in marks)] if marks else [])]


def _title(column: Column) -> list[str]:
    kind = ", ".join(part for part in (column.how, column.protocol) if part)
    return [column.task, column.split, kind, column.metric or "no public answers"]


def _each(values: Iterable[str]) -> str:
    """The values of a column's cells, each once."""
    return " / ".join(dict.fromkeys(values))


def _size(cell: Cell) -> str:
    score = cell.score
    return (
        f"{cell.run.result['data']['n_expected']:,}" if score is None else f"{score['n']:,} ({score['n_clusters']:,})"
    )


def _cell(cell: Cell, number: Mapping[str, int]) -> str:
    score, worst = cell.score, cell.of.worst.result
    mark = f" ({cell.mark})" if cell.mark else ""
    where = f"[{number[cell.run.name]}]"
    if score is None:
        return f"not scored{mark} {where}"
    told = f"**{_decimal(score['value'])}**{mark} {_span(score['ci95'])}".rstrip()
    if cell.of.sd is not None:
        told += f"<br>{len(cell.of.runs)} seeds, sd {_decimal(cell.of.sd)}"
    if cell.ranks:
        low, high = cell.ranks
        told += f"<br>rank {low}" + (f" to {high}" if high > low else "")
    if failed := worst["data"]["n_failed"]:
        told += f"<br>*{worst['status']}*: {failed:,} failed, at most {_decimal(score['bounds'][1])}"
    return f"{told} {where}"


def _against_print(columns: Sequence[Column]) -> list[str]:
    rows = []
    for column in columns:
        for cell in column.cells:
            beside = printed(column, cell)
            if beside is None or cell.score is None:
                continue
            n = beside.number
            source = f"[{n.source}, table {_text(n.table)}]({published.SOURCES[n.source].split()[0]})"
            rows.append(
                [
                    _text(", ".join(_title(column))),
                    _text(cell.encoder),
                    f"{_decimal(cell.score['value'])} {_span(cell.score['ci95'])}".rstrip(),
                    f"{n.value:g}",
                    _text(n.row) + (f" ({_text(n.note)})" if n.note else ""),
                    source,
                    f"{beside.difference:+.1f}",
                    beside.verdict,
                ]
            )
    head = ["task", "encoder", "measured", "printed", "of", "source", "difference", "verdict"]
    return ["Beside what papers print:", _table([head, *rows])] if rows else []


def _of_others(scores: Sequence[Score]) -> list[str]:
    """Other tools' main scores, in tables as wide as ours; of one place the last counts."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    main: dict[tuple[str, ...], str] = {}
    for score in scores:
        place = (str(score.file), score.encoder, score.task, score.split)
        if main.setdefault(place, score.metric) == score.metric:  # a tool's first is its main one
            title = "<br>".join(map(_text, (score.task, score.split, score.metric, score.source)))
            found.setdefault((score.task, title), {})[score.encoder] = _decimal(score.value)
    columns = [(title, values) for (_, title), values in sorted(found.items())]
    parts = ["## Measured by other tools", "Their tasks ask other questions, by other protocols."] if columns else []
    for start in range(0, len(columns), WIDTH):
        shown = columns[start : start + WIDTH]
        encoders = sorted({encoder for _, values in shown for encoder in values})
        rows = [[_text(encoder), *(values.get(encoder, "") for _, values in shown)] for encoder in encoders]
        parts.append(_table([["encoder", *(title for title, _ in shown)], *rows]))
    return parts


def _controls(columns: Sequence[Column], number: Mapping[str, int]) -> list[str]:
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
        own = [", ".join(values.get(name, [])) for name in names]
        chance = _decimal(cell.run.result["chance"])
        rows.append([str(number[cell.run.name]), _text(column.task), _text(cell.encoder), score, chance, *own])
    head = ["run", "task", "encoder", "score", "chance", *map(_text, names)]
    return ["## Controls", _table([head, *rows])] if rows else []


def _runs(columns: Sequence[Column], number: Mapping[str, int]) -> list[str]:
    head = ["run", "encoder", "task", "adapter", "protocol", "data", "runs", "date", "commit", "command"]
    rows = []
    for column in columns:
        for cell in column.cells:
            record = cell.run.result
            told = record["provenance"]
            rows.append(
                [
                    str(number[cell.run.name]),
                    _text(cell.encoder),
                    _text(column.task),
                    _text(record["adapter"]["name"]),
                    f"{_text(column.protocol)} {record['task']['protocol_sha256'][:8]}".strip(),
                    _text(record["data"]["fingerprint"][:8]),
                    cell.of.told,
                    told["finished"][:10],
                    _commit(told),
                    _code(told["command"]),
                ]
            )
    return ["## Runs", _table([head, *rows])] if rows else []


def _commit(told: Mapping[str, Any]) -> str:
    if told["git_commit"] is None:
        return _text(f"evalkit {told['packages'].get('evalkit', 'unknown')}")
    return _text(told["git_commit"][:10]) + (" with changes" if told["dirty"] else "")


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def _text(value: object) -> str:
    """Text that markdown shows as it is, on one line."""
    return re.sub(r"([\\`*\[\]<>|&#~])", r"\\\1", " ".join(str(value).split()))


def _code(value: str) -> str:
    """Text as code, on one line, in a cell of a table."""
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", value)), default=0))
    pad = " " if "`" in value else ""
    return f"{ticks}{pad}{' '.join(value.split())}{pad}{ticks}".replace("|", "\\|")


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _span(pair: Sequence[float | None]) -> str:
    return "" if None in pair else f"({_decimal(pair[0])} to {_decimal(pair[1])})"


# --- as a table of plain values --------------------------------------------------------------------------------------


def flat(runs: Sequence[Run]) -> str:
    """The board as csv, a line per cell, numbers in full."""
    lines = [_line(column, cell) for column in tables(runs) for cell in column.cells]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["encoder"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(column: Column, cell: Cell) -> dict[str, Any]:
    record, beside = cell.run.result, printed(column, cell)
    task, data, told, worst = record["task"], record["data"], record["provenance"], cell.of.worst.result
    score = cell.score or {"value": None, "ci95": [None, None], "bounds": [None, None], "n": None, "n_clusters": None}
    return {
        "encoder": cell.encoder,
        "encoder_sha256": record["encoder"]["sha256"],
        "task": column.task,
        "split": column.split,
        "adaptation": column.how,
        "adapter": record["adapter"]["name"],
        "protocol": column.protocol,
        "protocol_sha256": task["protocol_sha256"],
        "fingerprint": data["fingerprint"],
        "version": task["version"],
        "mark": cell.mark,
        "differs": column.marks.get(cell.mark),
        "metric": column.metric,
        "value": score["value"],
        "low": score["ci95"][0],
        "high": score["ci95"][1],
        "at_most": score["bounds"][1],
        "n": score["n"],
        "videos": score["n_clusters"],
        "status": worst["status"],
        "failed": worst["data"]["n_failed"],
        "chance": record["chance"],
        "best_rank": cell.ranks and cell.ranks[0],
        "worst_rank": cell.ranks and cell.ranks[1],
        "printed": beside and beside.number.value,
        "printed_of": beside and beside.number.row,
        "printed_in": beside and f"{beside.number.source}, table {beside.number.table}",
        "difference": beside and round(beside.difference, 6),
        "verdict": beside and beside.verdict,
        "runs": cell.of.times,
        "seeds": " ".join(map(str, cell.of.numbers)),
        "sd": None if cell.of.sd is None else round(cell.of.sd, 6),
        "finished": told["finished"],
        "commit": told["git_commit"],
        "dirty": told["dirty"],
        "command": told["command"],
        "run": cell.run.name,
    }
