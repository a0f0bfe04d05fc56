"""The members of a tar by name: where each begins, from one pass over the headers; none is extracted.

The index is kept in the cache folder. A large one is mapped into memory, so that of a million members a process reads
those pages alone in which it looks. Tars are made by strangers: a member that is a link or sparse, lies past the end,
or is called by an absolute path or `..` is never read, and whatever a header says, the pass goes forward and ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from evalkit.runtime import atomic, cache

BLOCK = 512
READ_BYTES = 4 << 10  # at once, which holds the headers of small members that follow one another
RECORD_BYTES = 20 * BLOCK
READ_WHOLE = 16 << 20  # bytes of an index
MOST_NAME_BYTES = 1 << 20  # of a long name or of pax records
MOST_MEMBERS, MOST_NAMES_BYTES = 10_000_000, 1 << 30
LONGEST_NAME = 4096  # bytes, as of any path
MAGIC = b"evalkit tar index, version 1\n".ljust(64)
FILES = (b"0", b"\0", b"7")
COMPRESSED = {b"\x1f\x8b": "gunzip", b"\x28\xb5\x2f\xfd": "unzstd", b"\xfd7zXZ": "unxz", b"BZh": "bunzip2"}
WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes
LINK, SPARSE, PAST_END = -1, -2, -3
_OCTAL, _RECORD = re.compile(b"[0-7]*"), re.compile(rb"([0-9]{1,7}) ([^=]+)=")
REFUSED = {LINK: "is a link", SPARSE: "is a sparse file", PAST_END: "goes past the end of the tar, which is cut off"}


class Index:
    """The members of one tar.

    Attributes:
        note: what is wrong with the tar, in one line; empty if nothing is.
    """

    def __init__(self, content: Any) -> None:
        """From the content of its file, bytes or a memory map."""
        head = bytes(content[: len(MAGIC) + 24])
        if not head.startswith(MAGIC) or len(head) < len(MAGIC) + 24:
            raise ValueError("no index of this version")
        count, name_bytes, note_bytes = np.frombuffer(head[len(MAGIC) :], "<i8").tolist()
        at = len(MAGIC) + 24
        if len(content) != at + 32 * count + name_bytes + note_bytes:
            raise ValueError("an index that is cut off")
        columns = np.frombuffer(content, "<i8", 4 * count, at).reshape(4, count)
        self._hashes, (self._starts, self._sizes, self._places) = columns[0].view("<u8"), columns[1:]
        self._content, self._names = content, at + 32 * count
        self._end = self._names + name_bytes
        self.note = bytes(content[self._end :]).decode()

    def find(self, name: str) -> tuple[int, int]:
        """Offset and size of a member; of several of one name the last, as unpacking leaves it.

        Raises:
            FileNotFoundError: there is no such member.
            OSError: it is not a file with content of its own in the tar.
        """
        wanted = os.fsencode(name)
        digest = np.uint64(_hash(wanted))
        low = int(np.searchsorted(self._hashes, digest, "left"))
        high = int(np.searchsorted(self._hashes, digest, "right"))
        for k in range(high - 1, low - 1, -1):
            place = self._names + int(self._places[k])
            if bytes(self._content[place : place + len(wanted) + 1]) == wanted + b"\0":
                start, size = int(self._starts[k]), int(self._sizes[k])
                if size < 0:
                    raise OSError(f"the member {name} of the tar {REFUSED[size]}")
                return start, size
        raise FileNotFoundError(f"no member {name} in the tar" + (f", of which {self.note}" if self.note else ""))

    def names(self) -> list[str]:
        """The names of all members, each once, in the order of the tar."""
        text = bytes(self._content[self._names : self._end])
        return [os.fsdecode(name) for name in dict.fromkeys(text.split(b"\0")[:-1])]


def load(place: str, version: str, opened: Callable[[], Any]) -> Index:
    """The index of a tar, from the cache folder, where it is created if missing.

    Args:
        place: path or URL of the tar.
        version: another one when the tar changes.
        opened: gives a file object over it, with `read_at` and `size`.

    Raises:
        OSError: it cannot be read, or is no tar.
    """
    digest = hashlib.sha256(f"{place}\n{version}".encode("utf-8", "surrogateescape")).hexdigest()
    file = cache.folder() / "tars" / f"{digest[:32]}.index"
    with contextlib.suppress(OSError, ValueError), open(file, "rb") as stored:
        if os.fstat(stored.fileno()).st_size <= READ_WHOLE:  # else a machine that cuts the file would end this process
            return Index(stored.read())
        return Index(mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ))
    with opened() as tar:
        try:
            content = build(tar.read_at, tar.size)
        except ValueError as error:
            start = tar.read_at(0, 8)
            tool = next((name for magic, name in COMPRESSED.items() if start.startswith(magic)), "")
            why = f"it is compressed; {tool} it first" if tool else error
            raise OSError(f"it is no tar: {why}") from error
    with contextlib.suppress(OSError):  # a cache that cannot be written: it stays in memory
        atomic.write(file, content)
    return Index(content)


def build(read_at: Callable[[int, int], bytes], size: int) -> bytes:
    """The content of the index of a tar of so many bytes.

    Raises:
        ValueError: it does not begin as a tar does.
    """
    hashes, starts, sizes, places, names = array("Q"), array("q"), array("q"), array("q"), bytearray()
    left_out: Counter[str] = Counter()
    damage = ""
    try:
        for name, start, length in _members(read_at, size):
            safe = _safe(name)
            if safe is None:
                left_out["members whose names are no paths in it"] += 1
                continue
            if length < 0:
                left_out[{LINK: "links", SPARSE: "sparse members", PAST_END: "members past its end"}[length]] += 1
            if len(hashes) >= MOST_MEMBERS or len(names) > MOST_NAMES_BYTES:
                raise ValueError(f"more than {MOST_MEMBERS:,} members, or {MOST_NAMES_BYTES:,} bytes of names")
            hashes.append(_hash(safe))
            starts.append(start)
            sizes.append(length)
            places.append(len(names))
            names += safe + b"\0"
    except ValueError as error:
        if not hashes and not left_out:
            raise
        damage = f"it is damaged: {error}"
    order = np.argsort(np.frombuffer(hashes, "<u8"), kind="stable") if hashes else np.empty(0, np.int64)
    texts = [damage, *(f"{count:,} {what} cannot be read" for what, count in left_out.items())]
    note = "; ".join(filter(None, texts)).encode()
    counts = np.array([len(hashes), len(names), len(note)], "<i8").tobytes()
    columns = (
        np.frombuffer(column, "<i8")[order].tobytes() if column else b"" for column in (hashes, starts, sizes, places)
    )
    return b"".join([MAGIC, counts, *columns, names, note])


def _hash(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def _safe(name: bytes) -> bytes | None:
    """A member's name as a path below the tar; None for one that leads elsewhere, or nowhere."""
    if len(name) > LONGEST_NAME:
        return None
    if name[:1] != b"/" and name[:2] != b"./" and b"//" not in name and b"/." not in name and b"\0" not in name:
        return None if name in (b"", b".", b"..") or name.startswith(b"../") else name  # nearly all
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    return None if name[:1] == b"/" or b".." in parts or b"\0" in name or not parts else b"/".join(parts)


def _members(read_at: Callable[[int, int], bytes], size: int) -> Any:
    """Name, offset and size of each member that is not a folder; the size may be `LINK`, `SPARSE` or `PAST_END`.

    Raises:
        ValueError: what follows is no header of a tar; of those before all were given.
    """
    at, chunk, chunk_at = 0, b"", 0
    renamed, resized, sparse = None, None, False  # by the headers before
    while at + BLOCK <= size:
        if not chunk_at <= at <= chunk_at + len(chunk) - BLOCK:
            chunk, chunk_at = read_at(at, READ_BYTES), at
        header = chunk[at - chunk_at : at - chunk_at + BLOCK]
        if len(header) < BLOCK:
            raise ValueError(f"it ends at byte {at:,}")
        kind = header[156:157]
        stated = header[148:156]
        if not kind.strip(b"\0") and not any(header):
            # Zeros fill the last record, of 20 blocks mostly.
            if any(read_at(at, RECORD_BYTES)):
                raise ValueError(f"its end is at byte {at:,} and more follows, as of tars put one after another")
            return
        total = sum(header) - sum(stated) + 256
        if (checksum := _number(stated)) not in (total, total - 256 * sum(byte > 127 for byte in header)):
            raise ValueError(f"no header at byte {at:,}" + ("" if at else f", whose checksum is {checksum}"))
        length = _number(header[124:136])
        start = at + BLOCK
        if kind in (b"L", b"K", b"x", b"g", b"X"):
            if length > MOST_NAME_BYTES or start + length > size:
                raise ValueError(f"{length:,} bytes of names at byte {at:,}")
            text = read_at(start, length)
            if kind == b"L":
                renamed = text.partition(b"\0")[0]
            elif kind in (b"x", b"X"):
                records = _pax(text, at)
                renamed = records.get(b"path", renamed)
                resized = _decimal(records[b"size"], at) if b"size" in records else resized
                sparse = sparse or any(key.startswith(b"GNU.sparse.") for key in records)
            at = start + -(-length // BLOCK) * BLOCK
            continue
        if resized is not None:
            length = resized
        if kind in WITHOUT_CONTENT:
            length = 0
        name = _name(header) if renamed is None else renamed
        sparse = sparse or kind == b"S"
        if kind == b"S":  # its map may go on in blocks of its own
            more = header[482]
            while more:
                block = read_at(start, BLOCK)
                if len(block) < BLOCK:
                    raise ValueError(f"it ends at byte {start:,}")
                start, more = start + BLOCK, block[504]
        is_file = kind in FILES and not (name.endswith(b"/") and kind != b"7")
        if is_file or kind in (b"1", b"2", b"S"):
            past = start + length > size
            yield name, start, LINK if kind in (b"1", b"2") else SPARSE if sparse else PAST_END if past else length
        renamed, resized, sparse = None, None, False
        at = start + -(-length // BLOCK) * BLOCK
    if at == 0:
        raise ValueError(f"it has {size:,} bytes")


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or binary where the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.partition(b"\0")[0].strip()
    if not _OCTAL.fullmatch(text):
        raise ValueError(f"a header says {field!r} where a number should be")  # 0xff begins a negative one
    return int(text or b"0", 8)


def _decimal(text: bytes, at: int) -> int:
    if not re.fullmatch(b"[0-9]{1,18}", text):
        raise ValueError(f"a size of {text[:40]!r} at byte {at:,}")
    return int(text)


def _pax(text: bytes, at: int) -> dict[bytes, bytes]:
    """The records of a pax header, `LENGTH KEY=VALUE` and a line's end each."""
    records: dict[bytes, bytes] = {}
    place = 0
    while place < len(text) and text[place]:
        match = _RECORD.match(text, place)
        end = place + int(match[1]) if match else 0
        if not match or end <= match.end() or text[end - 1 : end] != b"\n":
            raise ValueError(f"records that are none at byte {at:,}")
        records[match[2]] = text[match.end() : end - 1]
        place = end
    return records
