"""Videos in the rows of a parquet file, as Hugging Face keeps data sets of videos: by name, a row group at a time.

The bytes are a column `video` of {bytes, path}, or a column of bytes. A row is called by its `path`, else by a column
such as `file_name`, else by its number, 00000000.mp4. A path is a name here and nothing else: it is not followed.
Parquet files are made by strangers: what a row group states of its size is looked at before it is read, and what it
becomes is counted while it is.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import Any

from evalkit.errors import UserError, install, one_line

MOST_GROUP_BYTES = 4 << 30  # of the videos of one row group, which are in memory together
# Videos hardly compress; a file made to inflate does by a thousand.
LARGE_BYTES, MOST_TIMES = 64 << 20, 50
MOST_NAME_BYTES, NAME_SLACK = 4 << 10, 1 << 20  # of one row, and of a row group at least
BATCH_BYTES = 256 << 20
MOST_ROWS = 20_000_000
NAMES = ("file_name", "filename", "path", "video_path", "name", "video_id", "youtube_id", "__key__", "key", "id", "uid")
VIDEOS = ("video", "mp4", "webm", "avi", "mkv", "bytes")  # what a column of them is called, where there are several
NOT_ONE = -1  # in place of a row's number: several rows have the name


class Rows:
    """The videos of one parquet file.

    Attributes:
        names: the row of each name, in the order of the rows.
        note: why there are none, in one line; empty if there are.

    Args:
        opened: gives a file object over it.

    Raises:
        OSError: it is no parquet file, or is damaged.
        UserError: pyarrow is not installed.
    """

    def __init__(self, opened: Callable[[], Any]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise UserError(f"reading videos from a parquet file needs pyarrow: {install('parquet')}") from error
        self._errors = (pyarrow.ArrowException, OSError, ValueError, KeyError, IndexError, MemoryError)
        try:
            self._file = parquet.ParquetFile(opened())
            schema = self._file.schema_arrow
            self.note, self.names = "", dict[str, int]()
            try:
                self._column, naming, self._ending = _columns(schema, pyarrow.types)
            except ValueError as error:
                self.note = str(error)
                return
            self._starts = [0]
            for group in range(self._file.metadata.num_row_groups):
                self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)
            if self._starts[-1] > MOST_ROWS:
                raise ValueError(f"{self._starts[-1]:,} rows; at most {MOST_ROWS:,}")
            for row, name in enumerate(self._named(naming)):
                self.names[name] = NOT_ONE if name in self.names else row
        except self._errors as error:
            raise OSError(f"it cannot be read as parquet: {one_line(error)}") from error

    def row(self, name: str) -> int:
        """The row that has this name.

        Raises:
            FileNotFoundError: there is none.
            OSError: several have it.
        """
        row = self.names.get(name)
        if row is None:
            raise FileNotFoundError(f"no row {name} in the parquet file")
        if row == NOT_ONE:
            raise OSError(f"several rows are called {name}, so that there is no telling which is meant")
        return row

    def read(self, name: str) -> Any:
        """The bytes of a video, as a buffer.

        Raises:
            OSError: as `row`; or it has no bytes, or its row group is damaged or too large.
        """
        row = self.row(name)
        group = next(k for k, start in enumerate(self._starts[1:]) if row < start)
        if (self, group) not in _last_group:
            _last_group.clear()  # the former goes first: they may be large
            try:
                _last_group[self, group] = dict(enumerate(self._videos(group), self._starts[group]))
            except self._errors as error:
                raise OSError(f"row group {group} cannot be read: {one_line(error)}") from error
        content = _last_group[self, group].get(row)
        if content is None:
            raise OSError(f"the row {name} holds no bytes, at most a path, which is not followed")
        return memoryview(content)

    def _named(self, naming: str) -> Iterator[str]:
        """The name of each row."""
        for group in range(len(self._starts) - 1):
            first, last = self._starts[group : group + 2]
            if not naming:
                yield from (self._name(None, row) for row in range(first, last))
                continue
            largest = self._check(naming, group, MOST_NAME_BYTES * (last - first))
            # No value is larger than its column, so that however often one stands there, a batch stays small.
            rows = max(1, min(8192, BATCH_BYTES // max(1, largest)))
            for batch in self._file.iter_batches(rows, row_groups=[group], columns=[naming], use_threads=False):
                for name in _innermost(batch).to_pylist():
                    yield self._name(name, first)
                    first += 1

    def _name(self, name: Any, row: int) -> str:
        parts = [part for part in str(name or "").split("/") if part not in ("", ".")]
        if not parts or "\0" in str(name):
            return f"{row:08d}{self._ending}"
        if str(name).startswith("/") or ".." in parts or ":" in parts[0]:
            parts = parts[-1:]  # where it lay on its maker's disk
        text = "/".join(parts) if parts != [".."] else f"{row:08d}"
        return text if posixpath.splitext(text)[1] else text + self._ending

    def _videos(self, group: int) -> Iterator[Any]:
        """The buffer of each row of a group, or None; not more than `MOST_GROUP_BYTES` together."""
        self._check(self._column, group, MOST_GROUP_BYTES)
        total = 0
        batches = self._file.iter_batches(1, row_groups=[group], columns=[self._column], use_threads=False)
        for batch in batches:  # row by row: one that is repeated a million times is counted before it is there
            content = _innermost(batch)[0].as_buffer()
            total += content.size if content is not None else 0
            if total > MOST_GROUP_BYTES:
                raise ValueError(f"its videos are above {MOST_GROUP_BYTES:,} bytes; write it with smaller row groups")
            yield content

    def _check(self, column: str, group: int, most: int) -> int:
        """The bytes that a row group states of a column once inflated, if they are not too many.

        Raises:
            ValueError: they are.
        """
        described = self._file.metadata.row_group(group)
        chunk = next(c for c in map(described.column, range(described.num_columns)) if c.path_in_schema == column)
        inflated, stored = chunk.total_uncompressed_size, chunk.total_compressed_size
        if inflated > max(most, NAME_SLACK):
            raise ValueError(
                f"column {column} has {inflated:,} bytes in row group {group}, of at most {most:,}; write it with "
                "smaller row groups"
            )
        if inflated > max(LARGE_BYTES, MOST_TIMES * stored) or min(inflated, stored) < 0:
            raise ValueError(f"{stored:,} bytes of column {column} would become {inflated:,}")
        return int(inflated)


def _innermost(batch: Any) -> Any:
    """The values of the one column that a batch holds, of a struct those of its one part."""
    column = batch.column(0)
    return column.flatten()[0] if hasattr(column, "flatten") and column.type.num_fields else column


_last_group: dict[tuple[Rows, int], dict[int, Any]] = {}  # what was read last: the buffer of each row


def _columns(schema: Any, types: Any) -> tuple[str, str, str]:
    """The column of the bytes, the one of the names or "", and the ending of a name that has none.

    Raises:
        ValueError: no column holds bytes, or several do and none is called as one of videos.
    """

    def is_one_of(kind: Any, *names: str) -> bool:
        return any(getattr(types, f"is_{name}", lambda _: False)(kind) for name in names)

    def is_bytes(kind: Any) -> bool:
        return is_one_of(kind, "binary", "large_binary", "binary_view")

    def is_text(kind: Any) -> bool:
        return is_one_of(
            kind.value_type if types.is_dictionary(kind) else kind, "string", "large_string", "string_view"
        )

    kinds = {field.name: field.type for field in schema}
    structs = {name: {part.name: part.type for part in kind} for name, kind in kinds.items() if types.is_struct(kind)}
    structs = {name: parts for name, parts in structs.items() if "bytes" in parts and is_bytes(parts["bytes"])}
    if structs:
        name = _of_videos([*structs])
        naming = f"{name}.path" if "path" in structs[name] and is_text(structs[name]["path"]) else ""
        return f"{name}.bytes", naming, ".mp4"
    plain = [name for name, kind in kinds.items() if is_bytes(kind)]
    if not plain:
        raise ValueError(f"no column of videos, {{bytes, path}} or bytes, among {', '.join(schema.names)[:200]}")
    column = _of_videos(plain)
    naming = next((name for name in NAMES if name in kinds and is_text(kinds[name])), "")
    return column, naming, f".{column}" if column in ("webm", "avi", "mkv") else ".mp4"


def _of_videos(names: list[str]) -> str:
    """The column of the videos among those that hold bytes."""
    called = [name for name in VIDEOS if name in names]
    if len(names) > 1 and not called:
        shown = ", ".join(names)[:200]
        raise ValueError(f"several columns hold bytes, and none is called video: {shown}; rename that of the videos")
    return called[0] if called else names[0]
