"""A run and its samples as plain text, as wide as the terminal or as COLUMNS says, at least 80 columns."""

from __future__ import annotations

import shlex
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from textwrap import wrap

from evalkit.errors import printable
from evalkit.results.rows import Row
from evalkit.results.table import collapsed, columns, first, table, tied, without_video
from evalkit.show.opened import Opened, worst_first
from evalkit.show.sample import Cell, Part, parts, short, verdict

WIDTH = 80
MOST = 5  # of what is listed
MARKED = 2  # words of an n-gram, from which on it is marked: every caption shares single words


def overview(opened: Opened) -> str:
    """The run: its table, what failed and why, where it is wrong, and how to look at single samples."""
    lines = table({**opened.record, "data": {**opened.record["data"], "failures": []}}).splitlines()
    lines = [part for line in lines for part in _folded(line)]
    classes, fitted = opened.task.classes if opened.task else (), opened.record["selection"] is not None
    told = (collapsed(opened.rows, classes, fitted), tied(opened.record["selection"]), *opened.remarks)
    lines += [part for remark in told if remark for part in ("", *_folded(remark, ""))]
    lines += [*_failures(opened), *_where_wrong(opened), *_kinds_of_samples(opened)]
    return "\n".join(lines)


def sample(opened: Opened, row: Row) -> str:
    """All that is known of one sample."""
    lines = [printable(f"{row.id}: {verdict(opened, row)}")]
    for part in parts(opened, row):
        lines += ["", *part_lines(part)]
    lines += [part for remark in opened.remarks for part in ("", *_folded(remark, ""))]
    return "\n".join(lines)


def part_lines(part: Part) -> Iterator[str]:
    """A part in lines that a screen takes."""
    rows = [[_text(cell) for cell in row] for row in part.rows]
    if part.head:
        head = [_text(part.title if place == 0 else title) for place, title in enumerate(part.head)]
        yield from columns(_aligned([head, *rows])).splitlines()
    elif part.rows and len(rows[0]) == 1:
        yield part.title
        yield from (line for (cell,) in rows for line in _folded(f"  {cell}", "  "))
    else:
        width = max(len(row[0]) for row in rows)
        for name, text in rows:
            before = f"{name:<{width}}  "
            lines = wrap(text, _screen() - len(before), break_on_hyphens=False) or [""]
            yield from (
                f"{start}{line}".rstrip() for start, line in zip_longest([before], lines, fillvalue=" " * len(before))
            )
    if part.note:
        yield from _folded(_text(part.note), "")
    if any(isinstance(cell, list) and any(word.shared for word in cell) for row in part.rows for cell in row):
        yield from _folded(f"[Brackets] hold shared n-grams of {MARKED} words and more.", "")


def _aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows whose longest column is wrapped, so that all of them fit, in as many rows as that takes."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    longest = max(range(len(widths)), key=lambda i: widths[i])
    room = max(20, _screen() - sum(widths) + widths[longest] - 2 * (len(widths) - 1))
    out = []
    for row in rows:
        first_line, *rest = wrap(row[longest], room) or [""]
        out.append([first_line if i == longest else cell for i, cell in enumerate(row)])
        out += [[line if i == longest else "" for i in range(len(row))] for line in rest]
    return out


def _text(cell: Cell) -> str:
    """A cell as text; words of shared n-grams stand in brackets."""
    if isinstance(cell, str):
        return printable(" ".join(cell.split()))
    runs = groupby(cell, key=lambda word: word.shared >= MARKED)
    texts = [(shared, " ".join(word.text for word in words)) for shared, words in runs]
    return printable(" ".join(f"[{text}]" if shared else text for shared, text in texts))


def _folded(line: str, indent: str = "    ") -> list[str]:
    """A line in as many as a screen takes."""
    screen = _screen()
    return [line] if _width(line) <= screen else wrap(line, screen, subsequent_indent=indent, break_on_hyphens=False)


def _screen() -> int:
    """Columns to fill: those of the terminal, or of the variable COLUMNS, at least `WIDTH`."""
    return max(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)


def _width(text: str) -> int:
    """Columns that a text takes: two of a wide character, as those of Chinese are."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


# --- what failed, and where it is wrong ------------------------------------------------------------------------------


def _failures(opened: Opened) -> Iterator[str]:
    """The reasons of failures, the most frequent first; those that differ in the name of the video alone are one."""
    groups: dict[str, list[str]] = {}
    for row in opened.rows:
        if row.prediction is None:
            groups.setdefault(without_video(row.failure or "no prediction", row.video), []).append(row.id)
    if not groups:
        return
    yield from ("", "failed, counted as wrong")
    ranked = sorted(groups.items(), key=lambda group: -len(group[1]))
    for reason, ids in ranked[:MOST]:
        yield from _folded(f"  {len(ids):,}  {printable(reason)}  ({first(ids)})")
    if left := ranked[MOST:]:
        yield f"  {sum(len(ids) for _, ids in left):,}  for {len(left)} other reasons"


def _where_wrong(opened: Opened) -> Iterator[str]:
    """The most confused classes; of questions, queries and texts the worst."""
    if opened.kind in ("class", "classes") or (opened.kind == "text" and opened.whole):
        yield from _confused(opened)
        return
    head: tuple[str, ...]
    cells: list[tuple[str, ...]]
    if opened.kind == "question":
        rows = sorted(_wrong(opened), key=lambda row: -_margin(row))
        title, head = "surest wrong answers", ("right", "predicted", "by", "sample")
        cells = [
            (
                short(opened, row.target, opened.examples.get(row.id)),
                short(opened, row.prediction, opened.examples.get(row.id)),
                f"{_margin(row):.2f}",
                row.id,
            )
            for row in rows[:MOST]
        ]
    elif opened.kind == "retrieval":
        rows = sorted((row for row in opened.rows if row.prediction), key=lambda row: -row.prediction["t2v"])
        title, head = "worst queries", ("rank", "text", "sample")
        cells = [
            (f"{row.prediction['t2v']:g}", opened.examples[row.id].text if row.id in opened.examples else "", row.id)
            for row in rows[:MOST]
            if row.prediction["t2v"] > 1
        ]
    else:
        rows = worst_first(opened)
        title, head = f"worst by {opened.metric}", ("value", "predicted", "expected", "sample")
        cells = [
            (
                f"{opened.values[opened.place[row.id]]:.1f}",
                short(opened, row.prediction, None),
                _expected(opened, row),
                row.id,
            )
            for row in rows[:MOST]
            if not opened.whole or opened.values[opened.place[row.id]] == 0
        ]
    if cells:
        yield from ("", title)
        yield from _fitted([head, *cells])


def _confused(opened: Opened) -> Iterator[str]:
    """The pairs of what is right and what was predicted instead that are most frequent."""
    counted: Counter[tuple[str, str]] = Counter()
    such_as: dict[tuple[str, str], str] = {}
    of: Counter[str] = Counter()
    for row in opened.rows:
        if row.target is not None:
            right = _expected(opened, row)
            of[right] += 1
            if row.prediction is not None and _is_confused(opened, row):
                pair = right, short(opened, row.prediction, None)
                counted[pair] += 1
                such_as.setdefault(pair, row.id)
    if counted:
        title = {"class": "most confused classes", "classes": "likeliest class is none of those that are there"}
        yield from ("", title.get(opened.kind, "most frequent wrong answers"))
        cells = [
            (f"{times:,} of {of[right]:,}", right, predicted, such_as[right, predicted])
            for (right, predicted), times in counted.most_common(MOST)
        ]
        yield from _fitted([("times", "right", "predicted", "such as"), *cells])


def _is_confused(opened: Opened, row: Row) -> bool:
    if opened.kind == "classes":
        return opened.answer(row.prediction) not in (row.target if isinstance(row.target, list) else [row.target])
    return opened.is_right(row) is False


def _fitted(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as columns that fit the screen: texts are cut where they are too long, ids, the last column, are not."""
    rows = [[printable(" ".join(cell.split())) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = _screen() - 2 * len(widths) - 2
    while sum(widths) > room and max(widths[:-1]) > 8:
        widest = max(range(len(widths) - 1), key=lambda i: widths[i])
        widths[widest] -= 1
    cut = [
        [
            cell if len(cell) <= w or i == len(row) - 1 else f"{cell[: w - 3]}..."
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    yield from (f"  {line}" for line in columns(cut).splitlines())


def _expected(opened: Opened, row: Row) -> str:
    if opened.kind == "classes" and isinstance(row.target, list):
        return ", ".join(opened.name(number) for number in row.target)
    target = row.target[0] if isinstance(row.target, list) and row.target and opened.kind == "text" else row.target
    return short(opened, target, None)


def _wrong(opened: Opened) -> list[Row]:
    return [row for row in opened.rows if row.prediction is not None and opened.is_right(row) is False]


def _margin(row: Row) -> float:
    """By how much what was predicted scores above what is right; 0 where answers have no scores."""
    for name, scores in (row.detail or {}).items():
        if name != "tokens" and isinstance(scores, list) and len(scores) > max(row.prediction, row.target):
            ours, right = scores[row.prediction], scores[row.target]
            return float(ours - right) if type(ours) in (int, float) and type(right) in (int, float) else 0.0
    return 0.0


def _kinds_of_samples(opened: Opened) -> Iterator[str]:
    """A few samples to go on with, by how they came out, and the command that shows one."""
    by: dict[str, list[str]] = {}
    for row in opened.rows:
        right = opened.is_right(row)
        name = "failed" if row.prediction is None else {True: "right", False: "wrong", None: "answered"}[right]
        by.setdefault(name, []).append(row.id)
    yield from ("", "samples")
    for name in ("wrong", "failed", "right", "answered"):
        if name in by:
            yield from _folded(f"  {name:<8}  {len(by[name]):>6,}  {first(by[name])}")
    next_id = next(iter(by.get("wrong") or by.get("failed") or by.get("answered") or by["right"]))
    yield from ("", f"evalkit show RUN {shlex.quote(f'sample={printable(next_id)}')}")
    yield "  or sample=failed, wrong, first:20; out=FILE.html: with the clip and the video"
