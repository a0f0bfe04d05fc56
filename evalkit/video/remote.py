"""Videos at URLs, through fsspec: sizes, listings, and bytes by ranges, read ahead within bounds and tried again."""

from __future__ import annotations

import functools
import logging
import posixpath
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote

from evalkit.errors import UserError, install, one_line

logger = logging.getLogger("evalkit")

# Schemes that are read, and what installs what reads them.
SCHEMES = {
    "http": install("url"),
    "https": install("url"),
    "s3": install("s3"),
    "gs": "pip install gcsfs",
    "hf": "pip install huggingface_hub",
    "az": "pip install adlfs",
    "abfs": "pip install adlfs",
}
BLOCK_BYTES = 1 << 20  # of a file that are fetched at once; the block after is fetched meanwhile
MOST_BLOCKS = 16  # of a file that are in memory
PAUSES_S = (0.1, 0.5, 2.0)  # before a request is tried again
MOST_FILES = 5_000_000  # that a listing may have
SILENT_S, TOTAL_S = 15.0, 120.0  # that a server may not answer, and that one request may take
DEPTH = 12  # of folders below the one that is listed

T = TypeVar("T")


def scheme_of(url: str) -> str:
    """The scheme of a URL in lower case."""
    return url.partition("://")[0].lower()


def check(url: str) -> None:
    """Check that a URL can be read here.

    Raises:
        UserError: its scheme is none of `SCHEMES`, or what reads it is not installed.
    """
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        raise UserError(f"{scheme}:// is none of the schemes that are read: {', '.join(SCHEMES)}")
    try:
        _filesystem(url)
    except ImportError as error:
        raise UserError(f"{scheme}:// needs more: {SCHEMES[scheme]} ({one_line(error, 100)})") from error


def is_below(url: str, places: tuple[str, ...]) -> bool:
    """Whether a URL is below one of several others, after resolving `..` in any spelling."""
    if ".." in unquote(url).replace("\\", "/").split("/"):
        return False
    return any(url == place or url.startswith(place.rstrip("/") + "/") for place in places)


@functools.lru_cache(maxsize=100_000)
def info(url: str) -> tuple[int, str]:
    """Size in bytes, and what changes when the object does.

    Raises:
        FileNotFoundError: there is no such object.
        OSError: the server does not answer, or does not tell the size.
    """
    found = _patiently(url, lambda: _filesystem(url).info(_inner(url)))
    size = found.get("size")
    if found.get("type") == "directory":
        raise FileNotFoundError(f"no such object: {_plain(url)}")
    if not isinstance(size, int):
        raise OSError(f"{_plain(url)}: the server does not tell its size, so that no part of it can be asked for")
    return size, _version(found)


def list_files(url: str) -> list[str]:
    """The URLs of all files below a URL; empty if the server cannot or may not list files, as most web servers.

    Raises:
        OSError: the server does not answer.
    """
    prefix = url.rstrip("/") + "/"
    system = _filesystem(url)

    def find() -> list[str]:
        if scheme_of(url) in ("http", "https"):
            system.ls(_inner(prefix), detail=False)  # else a server that cannot be reached would list nothing
        return [*system.find(_inner(prefix), maxdepth=DEPTH)]

    try:
        found = _patiently(url, find)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    urls = sorted({str(system.unstrip_protocol(name)) for name in found[:MOST_FILES]})
    return [file for file in urls if is_below(file, (prefix,)) and file != prefix]


def expand(url: str) -> list[str]:
    """The URLs that match a pattern with `*`."""
    system = _filesystem(url)
    found = _patiently(url, lambda: system.glob(_inner(url)))
    return sorted(str(system.unstrip_protocol(name)) for name in found)


def read_ranges(url: str, wanted: list[tuple[int, int]]) -> list[bytes]:
    """The bytes of each offset and count, asked for together.

    Raises:
        OSError: the server does not give them.
    """
    starts, ends = [offset for offset, _ in wanted], [offset + count for offset, count in wanted]

    def fetch() -> list[bytes]:
        parts = [*_filesystem(url).cat_ranges([_inner(url)] * len(wanted), starts, ends, on_error="raise")]
        if any(len(part) != count for part, (_, count) in zip(parts, wanted, strict=True)):
            raise TimeoutError("fewer bytes than were asked for")
        return parts

    return _patiently(url, fetch)


class Blocks:
    """One file at a URL, read by blocks of which some are kept; as a process reads one video after another."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._lock = url, size, threading.Lock()
        self._file: Any = None

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to so many bytes from an offset.

        Raises:
            OSError: the server does not give them.
        """
        wanted = min(count, max(0, self._size - offset))

        def fetch() -> bytes:
            if self._file is None:
                sized = {"size": self._size} if scheme_of(self._url) in ("http", "https") else {}
                self._file = _filesystem(self._url).open(
                    _inner(self._url),
                    "rb",
                    block_size=BLOCK_BYTES,
                    cache_type="background",
                    cache_options={"maxblocks": MOST_BLOCKS},
                    **sized,
                )
            try:
                self._file.seek(offset)
                content = bytes(self._file.read(wanted))
                if len(content) != wanted:
                    raise TimeoutError("fewer bytes than were asked for")
            except BaseException:
                self._file = None  # a block that came in part would stay
                raise
            return content

        with self._lock:
            return _patiently(self._url, fetch) if wanted else b""


@functools.lru_cache(maxsize=2)
def open_url(url: str, size: int, version: str) -> Blocks:
    """Opens the file at a URL; recent files stay open so that their blocks are not fetched again."""
    return Blocks(url, size)


def _filesystem(url: str) -> Any:
    import fsspec

    if scheme_of(url) not in ("http", "https"):
        return fsspec.core.url_to_fs(url)[0]
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=SILENT_S, sock_read=SILENT_S)
    return fsspec.core.url_to_fs(url, client_kwargs={"timeout": timeout})[0]


def _inner(url: str) -> str:
    """A URL as its file system takes it."""
    return url if scheme_of(url) in ("http", "https") else url.partition("://")[2]


def _patiently(url: str, ask: Callable[[], T]) -> T:
    """What a request gives, tried again where the server or the way to it may be at fault.

    Raises:
        FileNotFoundError: there is no such object.
        PermissionError: the server does not allow it.
        OSError: it does not succeed.
    """
    for pause in (*PAUSES_S, None):
        try:
            return ask()
        except Exception as failure:  # each library has its own kinds
            # To fsspec, whatever a web server answers when it is asked for a size means that there is no such object.
            web = scheme_of(url) in ("http", "https") and isinstance(failure, FileNotFoundError)
            error = failure.__cause__ if web and isinstance(failure.__cause__, Exception) else failure
            status = getattr(error, "status", 0) or 0
            if isinstance(error, FileNotFoundError) or status in (404, 410):
                raise FileNotFoundError(f"no such object: {_plain(url)}") from error
            if status in (401, 403, 405):
                raise PermissionError(f"{_plain(url)}: status {status}, the server does not allow it") from error
            if isinstance(error, PermissionError):
                raise PermissionError(f"{_plain(url)}: {one_line(error, 200).replace(url, _plain(url))}") from error
            # No URL, no such way to read, a package that is missing: asking again changes nothing.
            refused = isinstance(error, ValueError | NotImplementedError | ImportError)
            if pause is None or refused or (400 <= status < 500 and status not in (408, 429)):
                reason = f"status {status}" if status else one_line(error, 200).replace(url, _plain(url))
                raise OSError(f"{_plain(url)}: {reason}") from error
            time.sleep(pause)
    raise AssertionError  # the last pause is None


def _version(found: dict[str, Any]) -> str:
    names = ("ETag", "etag", "generation", "LastModified", "Last-Modified", "last_modified", "mtime", "blob_id")
    return " ".join(str(found[name]) for name in names if found.get(name))


def _plain(url: str) -> str:
    return posixpath.normpath(url.partition("?")[0]).replace(":/", "://", 1)
