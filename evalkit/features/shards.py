"""Shards of a feature store: two files that only grow, records with checksums in one, their index in the other.

    NAME.data    records: a header with key, dtype, shape and checksums, then the tensor's bytes
    NAME.index   one slot of 24 bytes per record: first 8 bytes of the key, offset and length of the record

An entry is durable once its record and then its slot are fsynced. A process writes to a shard of its own, held by a
lock on its index file, and takes over one that no process holds, so that writers never wait and shards stay few. Where
the file system has no locks, each writer makes a shard that no other takes over, and only old ones are removed. A slot
is only a hint: the record's header and checksums decide at every read, so that a torn tail, a flipped byte or a
truncated shard is a miss.
"""

from __future__ import annotations

import fcntl
import functools
import logging
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evalkit.features.codec import DTYPES, unpack
from evalkit.runtime.filesystem import NO_LOCKS

logger = logging.getLogger("evalkit")

# Raised when records or the meaning of a layout change; it is part of every key.
FORMAT = 1
# A kill loses at most this: entries are flushed when they reach this many bytes, or the oldest this many seconds.
BATCH_BYTES, BATCH_S = 64 << 20, 5.0
# Seconds after which nobody writes to a shard any more, where no lock can tell.
ABANDONED_S = 86_400.0

ALIGN = 64  # bytes; each record starts at a multiple
HEADER_BYTES = 128
SLOT = np.dtype([("prefix", "<u8"), ("offset", "<u8"), ("size", "<u8")])

_MAGIC = b"EVK1"
_HEAD = struct.Struct("<4sBBBx32sQI6Q")  # magic, dtype, layout, dimensions, key, bytes, checksum, shape
_CHECK = struct.Struct("<I")


class Damaged(Exception):
    """A record differs from what was written."""


def encode_header(key: bytes, payload: Tensor, dtype: torch.dtype, code: int, shape: Sequence[int]) -> bytes:
    """The header of a record, HEADER_BYTES long.

    Args:
        key: 32 bytes.
        payload: the tensor's bytes, uint8 (n,).
        dtype: of the tensor.
        code: of the layout, as `codec.pack` gives it.
        shape: of the tensor, at most six dimensions.
    """
    sizes = [*shape, *[0] * (6 - len(shape))]
    checksum = zlib.crc32(payload.numpy().data)
    head = _HEAD.pack(_MAGIC, DTYPES.index(dtype), code, len(shape), key, len(payload), checksum, *sizes)
    return (head + _CHECK.pack(zlib.crc32(head))).ljust(HEADER_BYTES, b"\0")


def read_record(file: int, offset: int, key: bytes) -> Tensor | None:
    """The tensor of the record at an offset; None if it has another key.

    Raises:
        Damaged: the record differs from what was written.
        OSError: the disk fails.
    """
    head = os.pread(file, _HEAD.size + _CHECK.size, offset)
    if len(head) < _HEAD.size + _CHECK.size:
        raise Damaged
    if _CHECK.unpack_from(head, _HEAD.size)[0] != zlib.crc32(head[: _HEAD.size]):
        raise Damaged
    magic, dtype, code, dimensions, record_key, size, checksum, *shape = _HEAD.unpack_from(head)
    if magic != _MAGIC:
        raise Damaged
    if record_key != key:
        return None
    payload = torch.empty(size, dtype=torch.uint8)
    _read_all(file, payload.numpy(), offset + HEADER_BYTES)
    if zlib.crc32(payload.numpy().data) != checksum:
        raise Damaged
    return unpack(payload, DTYPES[dtype], code, shape[:dimensions])


def key_prefix(key: bytes) -> int:
    """The first 8 bytes of a key, as a slot holds them."""
    return int.from_bytes(key[:8], "little")


def list_shards(folder: Path) -> Iterator[tuple[str, int]]:
    """Names of the shards in a folder and the bytes of their index files; none if there is no folder."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".index"):
                with suppress(OSError):  # removed meanwhile, which a shared file system may tell by a stale handle
                    yield entry.name.removesuffix(".index"), entry.stat().st_size


def shard_size(folder: Path, name: str) -> int:
    """Bytes of both files of a shard."""
    total = 0
    for ending in (".index", ".data"):
        with suppress(FileNotFoundError):
            total += os.stat(folder / (name + ending)).st_size
    return total


def remove_shard(folder: Path, name: str) -> bool:
    """Remove a shard, unless a process writes to it; returns whether it is gone."""
    with suppress(FileNotFoundError, PermissionError):  # removed by another process; owned by another user
        index, locked = _lock(folder / f"{name}.index", os.O_RDWR)
        if index is not None:
            try:
                if not locked and time.time() - os.stat(folder / f"{name}.data").st_mtime < ABANDONED_S:
                    return False
                os.unlink(folder / f"{name}.index")
                os.unlink(folder / f"{name}.data")
            finally:
                os.close(index)
            return True
    return False


@dataclass
class ShardWriter:
    """The writer of one shard, which holds the lock on its index file.

    Attributes:
        name: of the shard.
        index: file descriptor of the index file; `data` is that of the data file.
        index_end: bytes of the index that are durable.
        data_end: offset of the next record.
        pending: slots of records that are written but not durable yet, and the records' bytes.
        since: time of the oldest of them, in seconds of `time.monotonic`.
        pid: of the process that may write; a forked child may not.
    """

    name: str
    index: int
    data: int
    index_end: int
    data_end: int
    pending: list[tuple[int, int, int]] = field(default_factory=list)
    pending_bytes: int = 0
    since: float = 0.0
    pid: int = field(default_factory=os.getpid)

    @property
    def flush_due(self) -> bool:
        """Whether enough bytes are pending, or for long enough."""
        return self.pending_bytes >= BATCH_BYTES or time.monotonic() - self.since >= BATCH_S

    def append(self, prefix: int, parts: Sequence[Any], size: int) -> tuple[int, int, int]:
        """Write a record and return its slot, which `flush` makes durable.

        Args:
            prefix: of the key.
            parts: buffers of the record, in order.
            size: bytes of all parts.

        Raises:
            OSError: the record could not be written; the data file is as before.
        """
        try:
            _write_all(self.data, parts, self.data_end)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.data, self.data_end)
            raise
        slot = prefix, self.data_end, size
        self.data_end = _aligned(self.data_end + size)
        self.since = self.since if self.pending else time.monotonic()
        self.pending.append(slot)
        self.pending_bytes += size
        return slot

    def flush(self) -> None:
        """Make all pending records durable.

        Raises:
            OSError: they are not; the writer is then closed, since after a failed fsync the disk's content is unknown.
        """
        slots = np.array(self.pending, SLOT)
        try:
            os.fsync(self.data)
            _write_all(self.index, [slots.tobytes()], self.index_end)
            os.fsync(self.index)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.index, self.index_end)
            self.close()
            raise
        self.index_end += slots.nbytes
        self.pending, self.pending_bytes = [], 0

    def close(self) -> None:
        """Close both files, and with the index file release the lock."""
        os.close(self.index)
        os.close(self.data)


def open_writer(folder: Path, size: int, shard_bytes: int) -> ShardWriter:
    """Lock a shard with room for a record of `size` bytes, or make a new one.

    Args:
        folder: of the store; made if it is absent.
        size: bytes of the record.
        shard_bytes: of data at which a shard is full; a new one takes any record.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, _ in sorted(list_shards(folder)):
        with suppress(FileNotFoundError, PermissionError):  # removed meanwhile; owned by another user
            if os.stat(folder / f"{name}.data").st_size + size <= shard_bytes:
                index, locked = _lock(folder / f"{name}.index", os.O_RDWR)
                if index is not None and locked:
                    return _resume(folder, name, index)
                if index is not None:
                    os.close(index)
                    break
    while True:
        name = secrets.token_hex(8)
        index, _ = _lock(folder / f"{name}.index", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        if index is not None:
            return _resume(folder, name, index)


def _resume(folder: Path, name: str, index: int) -> ShardWriter:
    """The writer of a locked shard; torn tails of its files are cut off."""
    files = [index]
    try:
        index_end = os.fstat(index).st_size
        index_end -= index_end % SLOT.itemsize
        os.ftruncate(index, index_end)
        data = os.open(folder / f"{name}.data", os.O_RDWR | os.O_CREAT, 0o666)
        files.append(data)
        length = os.fstat(data).st_size
        slots = np.frombuffer(os.pread(index, index_end, 0), SLOT)
        ends = slots["offset"] + slots["size"]
        data_end = int(ends[ends <= length].max(initial=0))  # a slot may point beyond data that was truncated
        os.ftruncate(data, data_end)
        parent = os.open(folder, os.O_RDONLY)
        files.append(parent)
        os.fsync(parent)
        os.close(files.pop())
    except OSError:
        for file in files:
            os.close(file)
        raise
    return ShardWriter(name, index, data, index_end, _aligned(data_end))


def _lock(path: Path, flags: int) -> tuple[int | None, bool]:
    """File descriptor of an index file, and whether it is locked, until it is closed.

    There is none if another process holds the lock; it is not locked where the file system has no locks.
    """
    file = os.open(path, flags, 0o666)
    locked = True
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            locked = False
            _note_no_locks(path.parent, error.strerror)
        if os.stat(path).st_ino == os.fstat(file).st_ino:
            return file, locked
    except (BlockingIOError, FileNotFoundError):  # the latter: removed before it was locked
        pass
    except OSError:
        os.close(file)
        raise
    os.close(file)
    return None, locked


@functools.cache
def _note_no_locks(folder: Path, reason: str) -> None:
    logger.warning(
        f"{folder} has no file locks ({reason}): each writer fills files of its own there, and what was written within "
        "a day is not evicted; mount it with locks (Lustre: -o flock), or let EVALKIT_CACHE name another folder"
    )


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN


def _write_all(file: int, parts: Sequence[Any], offset: int) -> None:
    for part in parts:
        rest = memoryview(part)
        while len(rest):
            written = os.pwrite(file, rest, offset)
            rest, offset = rest[written:], offset + written


def _read_all(file: int, buffer: Any, offset: int) -> None:
    rest = memoryview(buffer)
    while len(rest):
        read = os.preadv(file, [rest], offset)
        if not read:
            raise Damaged
        rest, offset = rest[read:], offset + read
