"""The files that data sets are published as: tables, JSON, folders of videos. What is wrong is told with its place."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from evalkit.api import Example
from evalkit.errors import UserError, one_line

VIDEO_ENDINGS = {f".{ending}" for ending in ("3gp", "avi", "flv", "gif", "m4v", "mkv", "mov", "mp4")} | {
    f".{ending}" for ending in ("mpeg", "mpg", "ogv", "ts", "webm", "wmv")
}

Kind = TypeVar("Kind", dict[str, Any], list[Any])


class LabeledRow(NamedTuple):
    """Examples with classes: what a reader finds, in the words of `evalkit.api.Task`."""

    train: Sequence[Example]
    test: Sequence[Example]
    classes: tuple[str, ...]
    prepare_videos: Callable[[Sequence[Example]], None] | None = None


def read_table(
    file: Path, columns: Sequence[str], *, header: bool = True, delimiter: str = ","
) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row stands (file and line), and its values by column.

    Args:
        file: a table in UTF-8, with or without a byte order mark; an empty line is left out.
        columns: that each row must have; with a header it may have more, in any order, without one more after these.
        header: whether the first line names the columns.
        delimiter: between values.

    Raises:
        UserError: there is no such file, it is no table, a column is missing, or a row has another number of values.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines, delimiter=delimiter)
            names = next(reader, []) if header else list(columns)
            if absent := [name for name in columns if name not in names]:
                raise UserError(
                    f"{file}: no column {absent[0]!r}; wanted {','.join(columns)}, found {','.join(names)[:80]!r}"
                )
            for values in reader:
                if not values:
                    continue
                where = f"{file}, line {reader.line_num}"
                if len(values) < len(names) or (header and len(values) > len(names)):
                    raise UserError(f"{where}: {len(values)} values; wanted {len(names)} ({','.join(names)[:80]})")
                yield where, dict(zip(names, values, strict=header))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {file} as a table: {one_line(error)}") from error


def read_json(file: Path, kind: type[Kind]) -> Kind:
    """What a JSON file holds.

    Args:
        file: in UTF-8.
        kind: dict or list: what it must hold.

    Raises:
        UserError: there is no such file, it is no JSON, or holds something else.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} as JSON: {one_line(error)}") from error
    if not isinstance(value, kind):
        raise UserError(f"cannot read {file}: wanted a JSON {kind.__name__}, found a {type(value).__name__}")
    return value


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Where each line stands (file and line), and the line without what is blank around it; empty ones are left out.

    Raises:
        UserError: there is no such file, or it is no text in UTF-8.
    """
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{file}, line {number}", line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {one_line(error)}") from error


def first_existing(root: Path, *names: str) -> Path:
    """The first of these files, by their names under the folder, that is there.

    Raises:
        UserError: there is no such folder, or none of them in it.
    """
    if not root.is_dir():
        raise UserError(f"data.root={root} does not exist: wanted a folder with {names[0]}")
    found = next((file for name in names if (file := root / name).is_file()), None)
    if found is None:
        raise UserError(f"data.root={root} has no {' or '.join(names)}")
    return found


@contextmanager
def error_context(where: str) -> Iterator[None]:
    """Whatever a malformed row raises inside, as one line that says where the row stands.

    Args:
        where: file and line, or file and number of the entry.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{where}: not as published: {one_line(error)}") from error


def find_videos(folder: Path) -> dict[str, Path]:
    """The video files of a folder and the folders in it, by their names without ending; of two, the first in order."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in VIDEO_ENDINGS and path.is_file():
            found.setdefault(path.stem, path)
    return found


def video_file(found: Mapping[str, Path], folder: Path, name: str) -> Path:
    """The file of a video; where there is none, the one that was wanted, whose absence is counted when it is read."""
    return found.get(name, folder / f"{name}.mp4")


def check_classes(root: Path, names: Sequence[str], wanted: int) -> tuple[str, ...]:
    """The names of the classes.

    Raises:
        UserError: there are more or fewer than the benchmark has, or two of one name.
    """
    if len(set(names)) != wanted or len(names) != wanted:
        raise UserError(f"data.root={root}: its files name {len(set(names))} classes; wanted {wanted}")
    return tuple(names)


def labeled_examples(rows: Iterable[tuple[str, Path, Any]]) -> list[Example]:
    """An example per row of name, video and target, by its name.

    A row that stands twice counts once. A video that stands there again with another target is an example of its own,
    whose id ends with that target.

    Raises:
        UserError: two videos have one name and one target.
    """
    found: dict[str, Example] = {}
    for name, path, target in rows:
        one = Example(name, path, target)
        if found.get(name, one).target != target:
            one = Example(f"{name}={target}", path, target)
        if found.setdefault(one.id, one) != one:
            raise UserError(f"two videos are named {name}: {found[one.id].video} and {path}; rename one")
    return list(found.values())
