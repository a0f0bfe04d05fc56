"""Locates and reads the bytes of a video by its path, without extracting archives or downloading whole files.

    videos/a.mp4                    a file
    shards/000.tar/run/a.mp4        a member of a tar
    clips.parquet/a.mp4             bytes in a row of a parquet file
    /s3:/bucket/videos/a.mp4        s3://bucket/videos/a.mp4: pathlib joins slashes, `url_of` parts them again
    /s3:/bucket/000.tar/run/a.mp4   a member of a tar there

A file that is there goes before every other meaning of its path.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from evalkit.errors import UserError
from evalkit.video import parquet, remote, tar

CONTAINERS = (".tar", ".parquet")
INDEXED_TOGETHER = 16  # tars at URLs
_INSIDE = re.compile(r"(?:(?<=\.tar)|(?<=\.parquet))/", re.IGNORECASE)
# What a path that leads into a file, or is the text of a URL, gives where a file is looked for.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
_URL = re.compile(r"(?<![^/])([A-Za-z][^/]*):/+(?=[^/])")


class Bytes(io.RawIOBase):
    """A file object over bytes that are read by position.

    Args:
        read_at: gives up to so many bytes (second) from an offset (first).
        size: in bytes.
        name: by whose ending FFmpeg guesses a format that its content does not tell.
        read_many: gives the bytes of each offset and count, where that is faster than one by one.
        on_close: called once, when it is closed.
    """

    def __init__(
        self,
        read_at: Callable[[int, int], bytes],
        size: int,
        name: str,
        read_many: Callable[[list[tuple[int, int]]], list[bytes]] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.size, self.name = size, name
        self.read_at, self._read_many, self._on_close, self._at = read_at, read_many, on_close, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "a position before the start")
        self._at = base + offset
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        left = max(0, self.size - self._at)
        count = left if count is None or count < 0 else min(count, left)
        data = self.read_at(self._at, count) if count else b""
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def ranges(self, wanted: list[tuple[int, int]]) -> list[bytes]:
        """The bytes of each offset and count."""
        if self._read_many:
            return self._read_many(wanted)
        return [self.read_at(offset, count) for offset, count in wanted]

    def close(self) -> None:
        if not self.closed and self._on_close:
            self._on_close()
        super().close()


@dataclass(frozen=True)
class Media:
    """The bytes of one video.

    Attributes:
        size: in bytes; None where that is known only once it is open.
        version: another one when there may be other bytes under the path.
        open: gives a file object over them.
        inside: where they lie, in words; empty for a file of its own.
        row: what names the state of a parquet file, and the row in it; None for all else.
    """

    size: int | None
    version: str
    open: Callable[[], Bytes]
    inside: str = ""
    row: tuple[str, int] | None = None


def locate(path: Path) -> Media:
    """Locates the bytes of a video.

    Raises:
        FileNotFoundError: nowhere: there is no such file, member, row or object.
        OSError: it is there and cannot be read; the text says why.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
    else:
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(f"no such file: {path}")
        return Media(status.st_size, str(status.st_mtime_ns), functools.partial(_open_file, path))
    if parts := container_of(path):
        container, member = parts
        return _in_parquet(container, member) if container.suffix.lower() == ".parquet" else _in_tar(container, member)
    if (url := url_of(path)) and remote.scheme_of(url) in remote.SCHEMES:
        size, version = remote.info(url)
        return Media(size, version, functools.partial(_open_url, url, size, version), "at a URL")
    raise FileNotFoundError(f"no such file: {path}")


def exists(path: Path) -> bool:
    """Whether a video's file, archive member, parquet row or object exists, readable or not."""
    try:
        locate(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def open_bytes(path: Path) -> Bytes:
    """A file object over the bytes of a video.

    Raises:
        OSError: as `locate`.
    """
    return locate(path).open()


def open_container(path: Path) -> InputContainer:
    """Open a video for PyAV; text in it that is not UTF-8 is ignored.

    What is read here by ourselves may not name other files or URLs for FFmpeg to open, as playlists do: FFmpeg's own
    bound on that holds only for files that it opens itself.

    Raises:
        OSError: as `locate`.
        av.error.FFmpegError: it is no video that FFmpeg can read.
    """
    media = locate(path)
    if not media.inside:
        absolute = os.path.abspath(path)  # so that no name is taken for a protocol
        return av.open(absolute, "r", metadata_errors="ignore")
    return av.open(media.open(), "r", metadata_errors="ignore", options={"protocol_whitelist": "none"})


def url_of(path: Path) -> str | None:
    """The URL that a path represents, or None: `/s3:/bucket/a.mp4` is s3://bucket/a.mp4, also below a folder."""
    text = str(path)
    for match in _URL.finditer(text):
        if not os.path.lexists(text[: match.end(1) + 1]):  # a folder may be called so
            return f"{match[1].lower()}://{text[match.end() :]}"
    return None


def path_of(url: str) -> Path:
    """The path that represents a URL; the inverse of `url_of`."""
    scheme, _, rest = url.partition("://")
    return Path(f"/{scheme.lower()}:/{rest}")


def shown(path: Path) -> str:
    """A video's path for messages; a URL without its query string, which may contain a secret."""
    url = url_of(path)
    return url.partition("?")[0] if url else str(path)


def is_container(path: Path) -> bool:
    """Whether a file holds videos, by its name."""
    return path.suffix.lower() in CONTAINERS


def container_of(path: Path) -> tuple[Path, str] | None:
    """The container that a path leads into, and the name in it; None where it leads into none."""
    text = str(path)
    for match in _INSIDE.finditer(text):
        container = text[: match.start()]
        if os.path.isfile(container) or url_of(Path(container)):
            return Path(container), text[match.end() :]
    return None


def unpacked(path: Path) -> Path:
    """The path that a video would have if its container were unpacked: `000.tar/a.mp4` is `a.mp4`."""
    parts = container_of(path)
    return parts[0].parent / parts[1] if parts else path


def members(container: Path) -> tuple[list[str], str]:
    """The names of all files in a container, in order; and a description of damage, or "".

    Raises:
        OSError: it cannot be read at all.
    """
    with _errors_of(container):
        version, _ = _container(container)
        if container.suffix.lower() == ".parquet":
            rows = _rows(container, version)
            return [*rows.names], rows.note
        index = _index(container, version)
        return index.names(), index.note


def index_together(places: Sequence[Path]) -> None:
    """Makes the indices of tars at URLs at the same time, since each waits for a header after the other.

    What is wrong with one is said when its `members` are asked for.
    """

    def index(container: Path) -> None:
        with contextlib.suppress(OSError, UserError):
            members(container)

    tars = [place for place in places if url_of(place) and place.suffix.lower() == ".tar"]
    if len(tars) > 1:
        with ThreadPoolExecutor(INDEXED_TOGETHER) as threads:
            list(threads.map(index, tars))


def _open_file(path: Path) -> Bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait
    return Bytes(
        lambda offset, count: os.pread(descriptor, count, offset),
        os.fstat(descriptor).st_size,
        str(path),
        on_close=lambda: os.close(descriptor),
    )


def _open_url(url: str, size: int, version: str) -> Bytes:
    blocks = remote.open_url(url, size, version)
    return Bytes(blocks.read_at, size, url, functools.partial(remote.read_ranges, url))


def _container(path: Path) -> tuple[str, Callable[[], Bytes]]:
    """The version of a container, another one when it changes, and how it is opened."""
    try:
        status = os.stat(path)
    except OSError as error:
        url = url_of(path)
        if error.errno not in _ABSENT or not url:
            raise
        size, version = remote.info(url)
        return f"{size} {version}", functools.partial(_open_url, url, size, version)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")
    return f"{status.st_size} {status.st_mtime_ns}", functools.partial(_open_file, path)


@functools.lru_cache(maxsize=256)
def _index(container: Path, version: str) -> tar.Index:
    return tar.load(url_of(container) or os.path.realpath(container), version, _container(container)[1])


@functools.lru_cache(maxsize=256)
def _rows(container: Path, version: str) -> parquet.Rows:
    return parquet.Rows(_container(container)[1])


def _in_tar(container: Path, member: str) -> Media:
    version, opened = _container(container)
    with _errors_of(container):
        start, size = _index(container, version).find(member)

    def open_member() -> Bytes:
        whole = opened()
        return Bytes(
            lambda offset, count: whole.read_at(start + offset, count),
            size,
            member,
            lambda wanted: whole.ranges([(start + offset, count) for offset, count in wanted]),
            whole.close,
        )

    return Media(size, f"{version} {start}", open_member, "in a tar")


def _in_parquet(container: Path, member: str) -> Media:
    with _errors_of(container):
        version, _ = _container(container)
        rows = _rows(container, version)
        row = rows.row(member)

    def open_row() -> Bytes:
        with _errors_of(container):
            content = rows.read(member)
        return Bytes(lambda offset, count: bytes(content[offset : offset + count]), len(content), member)

    place = url_of(container) or os.path.realpath(container)
    return Media(None, f"{version} {row}", open_row, "in a parquet file", (f"{place}\n{version}", row))


@contextlib.contextmanager
def _errors_of(container: Path) -> Iterator[None]:
    """Puts the container's name before errors."""
    try:
        yield
    except OSError as error:
        raise type(error)(f"{shown(container)}: {error}") from error
