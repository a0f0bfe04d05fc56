"""Readers of published annotation files: tables, JSON, lists, folders of videos; errors name file and line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from evalkit.api import Example
from evalkit.errors import UserError, one_line

VIDEO_ENDINGS = {
    *(".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"),
}

Kind = TypeVar("Kind", dict[str, Any], list[Any])


class LabeledSplits(NamedTuple):
    """Labeled examples by split, as in `evalkit.api.Task`."""

    train: Sequence[Example]
    test: Sequence[Example]
    classes: tuple[str, ...]
    prepare_videos: Callable[[Sequence[Example]], None] | None = None


def read_table(
    file: Path, columns: Sequence[str], *, header: bool = True, delimiter: str = ","
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the place of each row (file and line), and its values by column.

    Args:
        file: in UTF-8, with or without a byte order mark; empty lines are skipped.
        columns: required in each row. With a header there may be more, in any order; without one, more after these.
        header: whether the first line names the columns.
        delimiter: between values.

    Raises:
        UserError: the file is missing or no table, a column is missing, or a row has another number of values.
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
    """Reads a JSON file.

    Args:
        file: in UTF-8.
        kind: dict or list, the expected type.

    Raises:
        UserError: the file is missing, no JSON, or of another type.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} as JSON: {one_line(error)}") from error
    if not isinstance(value, kind):
        raise UserError(f"cannot read {file}: wanted a JSON {kind.__name__}, found a {type(value).__name__}")
    return value


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yields the place of each line (file and line), and the line stripped; empty lines are skipped.

    Raises:
        UserError: the file is missing, or no text in UTF-8.
    """
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{file}, line {number}", line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {one_line(error)}") from error


def find_file(root: Path, *names: str) -> Path:
    """The first of these files that exists in the folder.

    Args:
        root: the folder, as data.root= has it.
        names: paths relative to it.

    Raises:
        UserError: the folder is missing, or has none of them.
    """
    if not root.is_dir():
        raise UserError(f"data.root={root} does not exist: wanted a folder with {names[0]}")
    existing = next((file for name in names if (file := root / name).is_file()), None)
    if existing is None:
        raise UserError(f"data.root={root} has no {' or '.join(names)}")
    return existing


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
        raise UserError(f"{where}: not as published: {one_line(error)}") from error


def find_videos(folder: Path) -> dict[str, Path]:
    """The video files under a folder by name without ending; of two of one name, the first in order of paths."""
    videos: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in VIDEO_ENDINGS and path.is_file():
            videos.setdefault(path.stem, path)
    return videos


def video_file(videos: Mapping[str, Path], folder: Path, name: str) -> Path:
    """The file of a video; if it is missing, its expected path, so that decoding counts it as failed."""
    return videos.get(name, folder / f"{name}.mp4")


def check_classes(root: Path, names: Sequence[str], expected: int) -> tuple[str, ...]:
    """The names of the classes, checked.

    Raises:
        UserError: there are more or fewer than the benchmark has, or two of one name.
    """
    if len(set(names)) != expected or len(names) != expected:
        raise UserError(f"data.root={root}: its files name {len(set(names))} classes; wanted {expected}")
    return tuple(names)


def labeled_examples(rows: Iterable[tuple[str, Path, Any]]) -> list[Example]:
    """An example per row of name, video and target, with the name as its id.

    Equal rows count once. A video with several targets gives an example for each; ids after the first end with the
    target.

    Raises:
        UserError: two videos have one name and one target.
    """
    examples: dict[str, Example] = {}
    for name, path, target in rows:
        example = Example(name, path, target)
        if examples.get(name, example).target != target:
            example = Example(f"{name}={target}", path, target)
        if examples.setdefault(example.id, example) != example:
            raise UserError(f"two videos are named {name}: {examples[example.id].video} and {path}; rename one")
    return list(examples.values())


def as_label_sets(splits: LabeledSplits) -> LabeledSplits:
    """The same examples with a set of classes as target: the tuple of their one class."""
    train, test = ([replace(e, target=(e.target,)) for e in examples] for examples in (splits.train, splits.test))
    return splits._replace(train=train, test=test)
