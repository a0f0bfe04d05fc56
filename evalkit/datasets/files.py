"""Readers of published annotation files: tables, JSON, lists, folders of videos; errors name file and line."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

from evalkit.api import Example
from evalkit.errors import UserError, in_line, nearest, one_line, suggest

# What people call an optional column that a reader knows by another name.
SYNONYMS = {"split": ("fold", "partition", "phase", "set", "subset", "usage")}
# The split that a word in a table, or a folder's name, means in lower case.
SPLIT_OF = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val"}
SPLIT_OF |= {"test": "test", "testing": "test"}
SPLIT_WORDS = {*SPLIT_OF, "dev", "eval"}

MOST_LOOKED = 200  # entries of data.root, in which its files may lie instead
LONGEST_LINE = 1_000_000  # characters of a line of a list or table

Kind = TypeVar("Kind", dict[str, Any], list[Any])
Span = tuple[float, float]


def same_split(name: str, other: str) -> bool:
    """Whether two names are of one split: case makes no difference, nor whether it is train or training."""
    name, other = (word.strip().lower() for word in (name, other))
    return SPLIT_OF.get(name, name) == SPLIT_OF.get(other, other)


class LabeledSplits(NamedTuple):
    """Labeled examples by split, as in `evalkit.api.Task`; `texts` are its `class_texts`."""

    train: Sequence[Example]
    test: Sequence[Example]
    classes: tuple[str, ...]
    prepare_videos: Callable[[Sequence[Example]], None] | None = None
    texts: tuple[str, ...] = ()


def read_table(
    file: Path, columns: Sequence[str], *, optional: Sequence[str] = (), header: bool = True, delimiter: str = ","
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the place of each row (file and first line), and its values by column.

    Args:
        file: in UTF-8, with or without a byte order mark; lines and rows without a value are skipped.
        columns: required in each row. With a header there may be more, in any order; without one, more after these.
        optional: columns that are read where they are there; others of nearly such a name are refused.
        header: whether the first line names the columns.
        delimiter: between values.

    Raises:
        UserError: the file is missing or no table; a column is missing, there twice, nearly one that is known, or
            holds splits under another name; a row has another number of values, holds other rows between quotes, or is
            the header again.
    """
    lines: list[str] = []  # of the present row

    def remembered(text: TextIO) -> Iterator[str]:
        while line := text.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise csv.Error(f"a line of more than {LONGEST_LINE:,} characters")
            lines.append(line)
            yield line

    number, rows = 1, 0
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.reader(remembered(text), delimiter=delimiter, strict=True)
            names = next(filter(_has_value, reader), []) if header else list(columns)
            unknown = [k for k, name in enumerate(names) if "split" in optional and name not in (*columns, *optional)]
            split_columns = set(unknown if header and "split" not in names else ())  # by what was read so far
            if header:
                _check_columns(file, names, columns, optional, delimiter)
            number = reader.line_num + 1
            lines.clear()
            for values in reader:
                where = f"{file}, line {number}"
                if _has_value(values):
                    _check_row(where, values, names, lines, header, delimiter)
                    yield where, dict(zip(names, values, strict=header))
                    split_columns -= {k for k in split_columns if values[k].strip().casefold() not in SPLIT_WORDS}
                    rows += 1
                number = reader.line_num + 1
                lines.clear()
        if header and not rows:
            raise UserError(f"{file} has no rows below its header")
        if split_columns:
            raise UserError(
                f"{file}: column {names[min(split_columns)]!r} holds splits: call it 'split', or remove the column"
            )
    except csv.Error as error:
        raise UserError(
            f"{file}, line {number}: not readable as a table: {in_line(error)}{_quotes_advice(error)}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        videos = file.suffix in (".tar", ".parquet")
        advice = "; videos in such a file are named by data.videos=" if videos else _encoding_advice(error)
        raise UserError(f"cannot read {file} as a table: {one_line(error)}{advice}") from error


def _has_value(values: Sequence[str]) -> bool:
    return any(value.strip() for value in values)


def _encoding_advice(error: Exception) -> str:
    """What to do about a file that is no UTF-8; empty for other errors."""
    if not isinstance(error, UnicodeDecodeError):
        return ""
    utf16 = error.object[:2] in (b"\xff\xfe", b"\xfe\xff")
    if error.object[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        return "; it is a spreadsheet or an archive: save its table as csv"
    if not utf16 and b"\0" in error.object:
        return "; it is not text: wanted a table as csv"
    return "; the file is in UTF-16: save it as UTF-8" if utf16 else "; wanted text: save it as UTF-8"


def _quotes_advice(error: Exception) -> str:
    """What to do about quotes that do not close; empty for other errors."""
    if not re.search("expected after|end of data", str(error)):
        return ""
    return "; put a value that contains quotes in quotes, and double the quotes in it"


def _separator_advice(values: Sequence[str], delimiter: str) -> str:
    """What to do about a line that is one value with another separator in it; empty for other lines."""
    others = [mark for mark in "\t;|," if len(values) == 1 and mark != delimiter and mark in values[0]]
    return f"; its values are separated by {others[0]!r}: save it with {delimiter!r} between them" if others else ""


def _check_columns(
    file: Path, names: Sequence[str], columns: Sequence[str], optional: Sequence[str], delimiter: str
) -> None:
    """Raises UserError where the names of a header leave open which column is meant."""
    if not any(names):
        raise UserError(f"{file} is empty; wanted a table with the columns {','.join(columns)}")
    if absent := [name for name in columns if name not in names]:
        near = suggest(absent[0], [name for name in names if name.strip().isidentifier() and name not in columns])
        if "\0" in "".join(names):
            advice = "; the file is in UTF-16: save it as UTF-8"
        elif blank := [name for name in names if name.strip() == absent[0]]:
            advice = f"; remove the blanks around {blank[0]!r}"
        else:
            advice = _separator_advice(names, delimiter) or (f".{near}" if near else "")
            if not advice and any("/" in name or re.search(r"\.\w{2,4}$", name) for name in names):
                advice = f"; its first line must name the columns: put {','.join([*columns, *optional])} above it"
        raise UserError(
            f"{file}: no column {absent[0]!r}; wanted {','.join(columns)}, found {','.join(names)[:80]!r}{advice}"
        )
    if twice := [name for i, name in enumerate(names) if name and name in names[:i]]:
        raise UserError(f"{file}: column {twice[0]!r} appears twice; rename or remove one")
    known = [*columns, *optional]
    absent = [name for name in optional if name not in names]
    for name in names:
        bare = name.strip().strip("\ufeff").casefold()
        meant = next((other for other in known if bare == other.casefold()), None)
        if not meant and bare:
            meant = nearest(bare, absent) or next(
                (other for other in absent if other in bare or bare in SYNONYMS.get(other, ())), None
            )
        if name not in known and meant:
            raise UserError(
                f"{file}: unknown column {name!r}, near {meant!r}: if it holds that, rename it to {meant!r}, "
                "else to another name"
            )


def _check_row(
    where: str, values: Sequence[str], names: Sequence[str], lines: Sequence[str], header: bool, delimiter: str
) -> None:
    """Raises UserError where a row is no row of this table."""
    if len(values) < len(names) or (header and len(values) > len(names)):
        cut = "; the file ends in this row, perhaps cut off" if lines and not lines[-1].endswith(("\n", "\r")) else ""
        blank = "; remove the blanks before quotes" if any(re.match(r"\s+\"", value) for value in values) else ""
        many = f"; put a value that contains {delimiter!r} in quotes" if len(values) > len(names) else ""
        advice = _separator_advice(values, delimiter) or blank or many or cut
        raise UserError(f"{where}: {len(values)} values; wanted {len(names)} ({','.join(names)[:80]}){advice}")
    if apart := [value for value in values if re.fullmatch(r"\s+\".*\"\s*", value, re.DOTALL)]:
        raise UserError(f"{where}: remove the blanks before the quotes of {apart[0][:60]!r}: they make them its own")
    refuse_nul(where, values)
    if header and [value.strip().strip("\ufeff") for value in values] == list(names):
        raise UserError(f"{where}: the header is repeated, as if two tables were joined; remove it")
    if swallowed := [line for line in lines[1:] if len(line.split(delimiter)) >= len(values)]:
        raise UserError(
            f"{where}: a quote opens there, and what follows up to the next is one value, with a line that looks like "
            f"a row ({in_line(swallowed[0])[:60]!r}); remove the quote, or write the value on one line"
        )


def refuse_nul(where: str, values: Sequence[str]) -> None:
    """Raises UserError where a value of a row holds a NUL character, which no table has."""
    if "\0" in "".join(values):
        raise UserError(f"{where}: it holds a NUL character, so the file is damaged: download it again")


def read_json(file: Path, kind: type[Kind]) -> Kind:
    """Reads a JSON file.

    Args:
        file: in UTF-8.
        kind: dict or list, the expected type.

    Raises:
        UserError: the file is missing, no JSON, cut off, has a key twice in one place, or is of another type.
    """
    value = load_json(file)
    if not isinstance(value, kind):
        raise UserError(f"cannot read {file}: wanted a JSON {kind.__name__}, found a {type(value).__name__}")
    return value


def load_json(file: Path) -> Any:
    """Reads a JSON file of any type; for one type see `read_json`.

    Raises:
        UserError: the file is missing, no JSON, cut off, or has a key twice in one place.
    """
    text = ""
    try:
        text = file.read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        cut = "; it ends there, perhaps cut off" if not text[error.pos :].strip() or "Unterminated" in error.msg else ""
        raise UserError(f"cannot read {file} as JSON: {one_line(error)}{cut}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {file} as JSON: {one_line(error)}{_encoding_advice(error)}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ValueError(f"the key {twice!r} appears twice in one place; remove one")
    return values


def time_span(start: Any, end: Any) -> Span:
    """Start and end in seconds, of numbers or their texts.

    Raises:
        ValueError: they are none, negative, reversed, infinite or NaN.
    """
    start, end = float(start), float(end)
    if not 0 <= start <= end < math.inf:
        raise ValueError(f"no span from {start:g} to {end:g} s: wanted 0 <= start <= end")
    return start, end


def class_number(value: Any, count: int) -> int:
    """The number of one of so many classes, of a number or its digits.

    Raises:
        ValueError: it is not a whole number, or there is no such class.
    """
    digits = isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,18}\s*", value)
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not (digits or whole) or not 0 <= int(value) < count:
        raise ValueError(f"class {value!r}: wanted a whole number from 0 to {count - 1}")
    return int(value)


def video_name(value: Any) -> str:
    """The name of a video, as an entry of a list states it.

    Raises:
        ValueError: it is not text, or an empty one.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"video {value!r}: wanted the name of a file")
    return value


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yields the place of each line (file and line), and the line stripped; empty lines are skipped.

    Raises:
        UserError: the file is missing, or no text in UTF-8.
    """
    try:
        with file.open(encoding="utf-8-sig") as lines:
            number = 0
            while line := lines.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE or "\0" in line:
                    wrong = "holds a NUL character" if "\0" in line else f"has more than {LONGEST_LINE:,} characters"
                    raise UserError(f"{file}, line {number} {wrong}: it is not a list, or damaged; download it again")
                if line.strip():
                    yield f"{file}, line {number}", line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {one_line(error)}{_encoding_advice(error)}") from error


def find_file(root: Path, *names: str) -> Path:
    """The first of these files that exists in the folder.

    Args:
        root: the folder, as data.root= has it.
        names: paths relative to it.

    Raises:
        UserError: the folder is missing, or has none of them.
    """
    check_root(root, f"a folder with {names[0]}")
    existing = next((file for name in names if (file := root / name).is_file()), None)
    if existing is None:
        raise UserError(f"data.root={root} has no {' or '.join(names)}{_elsewhere(root, names)}")
    return existing


def check_root(root: Path, wanted: str) -> None:
    """Raises UserError where data.root is not a folder; `wanted` says which one."""
    if root.is_file():
        raise UserError(f"data.root={root} is a file: wanted {wanted}")
    if not root.is_dir():
        raise UserError(f"data.root={root} does not exist: wanted {wanted}")


def _elsewhere(root: Path, names: Sequence[str]) -> str:
    """Where files missing in data.root are: in its parent or in a subfolder; else what data.root contains."""
    try:
        inside = {place.name: place.is_dir() for place in sorted(root.iterdir())[:MOST_LOOKED]}
    except OSError:  # it may not be listed
        return ""
    for place in (root.parent, *(root / name for name, is_folder in inside.items() if is_folder)):
        if any(os.path.isfile(place / name) for name in names):
            return f". Did you mean data.root={place}?"
    there = ", ".join(name + "/" * is_folder for name, is_folder in [*inside.items()][:4])
    return f"; found there: {there}{', ...' if len(inside) > 4 else ''}" if there else "; it is empty"


@contextmanager
def parsing_errors_at(where: str) -> Iterator[None]:
    """Turns parsing errors inside the block into a UserError with their place.

    Args:
        where: file and line, or file and number of the entry.

    Raises:
        UserError: the block raised an error that a malformed row causes.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        wrong = in_line(error) if type(error) is ValueError else one_line(error)  # other types say more than their text
        raise UserError(f"{where}: not as published: {wrong}") from error
