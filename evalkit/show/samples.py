"""Which samples of a run are meant: by id, by the beginning of an id, or by how they came out."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.errors import UserError, nearest, printable
from evalkit.results.rows import Row
from evalkit.results.table import first
from evalkit.show.opened import Opened

MOST = 1_000  # pages that one command writes


def samples(opened: Opened, word: str) -> list[Row]:
    """The rows that `sample=` names, in the order in which it names them.

    Args:
        opened: the run.
        word: ids or beginnings of ids with commas between them, failed, wrong, or first:N. An id goes before a word,
            and one that holds commas before a list.

    Raises:
        UserError: there is no such sample, there are several, or none came out so.
    """
    rows = opened.rows
    if word in opened.place:
        return [rows[opened.place[word]]]
    if word == "failed":
        return _some(opened, [row for row in rows if row.prediction is None], "failed")
    if word == "wrong":
        if opened.kind in ("classes", "text", "other") and not opened.whole:
            by = opened.metric or "its score"
            raise UserError(f"sample=wrong: by {by} no sample of this run is just right or wrong; sample=first:20 does")
        return _some(
            opened, [row for row in rows if row.prediction is not None and opened.is_right(row) is False], "wrong"
        )
    if word.startswith("first:"):
        number = word.removeprefix("first:")
        if not number.isdecimal() or not 0 < int(number) <= MOST:
            raise UserError(f"sample={word}: wanted first:N with a number from 1 to {MOST:,}")
        return list(rows[: int(number)])
    if "," in word:
        return list({row.id: row for row in (_one(opened, part) for part in word.split(",") if part)}.values())
    return [_one(opened, word)]


def _one(opened: Opened, word: str) -> Row:
    if word in opened.place:
        return opened.rows[opened.place[word]]
    begun = [row for row in opened.rows if word and row.id.startswith(word)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        ids = first([row.id for row in begun])
        raise UserError(f"sample={printable(word)}: {len(begun):,} samples begin so: {ids}; give more of it")
    near = nearest(word, opened.place)
    told = f" Did you mean {printable(near)!r}?" if near else f" The first are {first([r.id for r in opened.rows])}"
    raise UserError(
        f"sample={printable(word)[:200]}: no sample id starts with this; sample= also takes failed, wrong and "
        f"first:20.{told}"
    )


def _some(opened: Opened, rows: Sequence[Row], how: str) -> list[Row]:
    if not rows:
        raise UserError(f"sample={how}: no sample of this run {'failed' if how == 'failed' else 'is wrong'}")
    return list(rows)
