"""Features on disk by key: what was encoded once is there for every later run, or is missed, but is never wrong.

A store is a folder of shards. A shard is two files that only grow:

    NAME.data    records: a header with key, dtype, shape and checksums, then the tensor's bytes
    NAME.index   one slot of 24 bytes per record: first 8 bytes of the key, where the record is, how long it is

An entry counts once its record and then its slot are fsynced. A process writes to a shard of its own, held by a lock on
its index file, and takes over one that nobody holds any more, so that writers never wait and shards stay few. A slot is
only a hint: the record's header and checksums decide, at every read, so that a torn tail, a flipped byte or a shard
that somebody truncated is a miss.

Records are read into fresh memory. The checksum must see all bytes anyway, so that mapped memory is 1.0 to 1.5 times as
fast and no more (bench/store.py has both), and it would end the process by SIGBUS where a disk fails or a file is cut.
safetensors files cannot be appended to.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.errors import UserError
from evalkit.features.codec import _DTYPES, Layout, pack, unpack
from evalkit.runtime import cache

# Raised when records or the meaning of a layout change; it is part of every key.
FORMAT = 1
# A shard is closed at this size. Whole shards are evicted, so a size limit makes them smaller: SHARDS of them fill it.
SHARD_BYTES, SHARDS = 256 << 20, 8
# What may be lost by a kill: entries are flushed when they reach this many bytes, or the oldest this many seconds.
BATCH_BYTES, BATCH_S = 64 << 20, 5.0
# Seconds between two looks at what other processes wrote, and between two marks that a shard is in use.
REFRESH_S, TOUCH_S = 1.0, 60.0
# Data files that are kept open, and entries that wait before they are sorted in.
_OPEN_FILES, _RECENT = 64, 4096

_MAGIC = b"EVK1"
_ALIGN = 64
_HEAD = struct.Struct("<4sBBBx32sQI6Q")  # magic, dtype, layout, dimensions, key, bytes, checksum, shape
_CHECK = struct.Struct("<I")
_HEADER_BYTES = 128
_SLOT = np.dtype([("prefix", "<u8"), ("offset", "<u8"), ("size", "<u8")])
# A place is a shard's number and an offset in units of _ALIGN in one 64-bit number.
_OFFSET_BITS = 40


class Usage(NamedTuple):
    """What a store takes on disk: bytes of all its files, entries (one written twice counts twice), and shards."""

    bytes: int
    entries: int
    shards: int


class Damaged(Exception):
    """A record is not what was written."""


@dataclass
class _Shard:
    """A shard as this process knows it: its name, and how many bytes of its index are known."""

    name: str
    known: int = 0


@dataclass
class _Writer:
    """The shard that this process writes to, locked through `index`.

    Attributes:
        number: of the shard.
        index: file descriptor of the index; so is `data`.
        index_end: bytes of the index that count.
        data_end: where the next record goes.
        pending: slots of records that are written but do not count yet, and their bytes.
        since: when the oldest of them was written.
        pid: of the process that may write; a forked child may not.
    """

    number: int
    index: int
    data: int
    index_end: int
    data_end: int
    pending: list[tuple[int, int, int]] = field(default_factory=list)
    pending_bytes: int = 0
    since: float = 0.0
    pid: int = field(default_factory=os.getpid)

    def close(self) -> None:
        os.close(self.index)  # and with it the lock
        os.close(self.data)


class Store:
    """Tensors by key in a folder, for any number of processes that read and write at once.

    One store serves one thread at a time. In a forked child it reads as before and writes to a shard of its own.

    Attributes:
        folder: where the shards are; made by the first `put`.
        limit: bytes that the store may take; the least recently used shards go first. Each writer beside this one may
            take a shard more. None means no limit.
        damaged: entries found damaged so far, and therefore missed.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self.damaged = 0
        self._shard_bytes = SHARD_BYTES if limit is None else min(SHARD_BYTES, limit // SHARDS)
        self._shards: list[_Shard] = []  # by number; one that is gone keeps its number
        self._numbers: dict[str, int] = {}  # of those that are there, by name
        # Keys are hashes, so their first 8 bytes tell them apart: sorted, 16 bytes per entry, as dict about 130.
        self._prefixes: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._places: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._recent: dict[int, int] = {}  # place by prefix: those not sorted in yet
        self._files: OrderedDict[int, int] = OrderedDict()  # open data files by number, least recently used first
        self._touched: dict[int, float] = {}
        self._writer: _Writer | None = None
        self.refresh()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(OSError):  # the exception on its way says more
                self.close()

    # --- reading -----------------------------------------------------------------------------------------------------

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Tensor]:
        """The tensors of those keys that are there and undamaged: on the CPU, writable, of nobody else.

        What other processes flushed is seen a second later at most. Tensors stored as int8 come as float32.

        Args:
            keys: 32 bytes each, as `evalkit.features.key.FeatureKey.digest` makes them.
        """
        wanted = list(dict.fromkeys(keys))
        found = {key: tensor for key in wanted if (tensor := self._find(key)) is not None}
        if len(found) < len(wanted) and time.monotonic() - self._refreshed > REFRESH_S:
            self.refresh()
            found |= {key: tensor for key in wanted if key not in found and (tensor := self._find(key)) is not None}
        return found

    def __contains__(self, key: bytes) -> bool:
        """Whether an entry seems to be there: by the index alone, which only a read can confirm."""
        return next(self._candidates(key), None) is not None

    def refresh(self) -> None:
        """Looks at what other processes have written and evicted."""
        self._refreshed = time.monotonic()
        listed = dict(_listed(self.folder))
        gone = [self._numbers.pop(name) for name in self._numbers.keys() - listed.keys()]
        if gone:
            kept = ~np.isin(self._places >> np.uint64(_OFFSET_BITS), np.array(gone, np.uint64))
            self._prefixes, self._places = self._prefixes[kept], self._places[kept]
            self._recent = {p: place for p, place in self._recent.items() if place >> _OFFSET_BITS not in gone}
            if self._writer is not None and self._writer.number in gone:  # somebody removed the folder
                self._writer.close()
                self._writer = None
            for number in gone:
                if number in self._files:
                    os.close(self._files.pop(number))
        prefixes, places = [], []
        for name, size in sorted(listed.items()):
            number = self._number(name)
            slots = self._new_slots(number, size)
            if len(slots):
                prefixes.append(slots["prefix"])
                places.append(_places(number, slots["offset"]))
        if prefixes:
            self._learn(np.concatenate(prefixes), np.concatenate(places))

    def _find(self, key: bytes) -> Tensor | None:
        for place in self._candidates(key):
            try:
                tensor = self._read(place, key)
            except (OSError, Damaged) as error:
                self.damaged += not isinstance(error, FileNotFoundError)  # that one was evicted
                continue
            if tensor is not None:
                return tensor
        return None

    def _candidates(self, key: bytes) -> Iterator[int]:
        """Places that may hold a key, as far as is known the newest first."""
        prefix = _prefix(key)
        if prefix in self._recent:
            yield self._recent[prefix]
        prefixes, places = self._prefixes, self._places
        last = int(np.searchsorted(prefixes, np.uint64(prefix), "right")) - 1
        while last >= 0 and prefixes[last] == prefix:
            yield int(places[last])
            last -= 1

    def _read(self, place: int, key: bytes) -> Tensor | None:
        """The tensor at a place; None where another key is stored there.

        Raises:
            Damaged: it is not what was written.
            OSError: the disk fails, or the shard is gone (FileNotFoundError).
        """
        number, offset = place >> _OFFSET_BITS, (place & ((1 << _OFFSET_BITS) - 1)) * _ALIGN
        file = self._open(number)
        head = os.pread(file, _HEAD.size + _CHECK.size, offset)
        if len(head) < _HEAD.size + _CHECK.size or _CHECK.unpack_from(head, _HEAD.size)[0] != _sum(head[: _HEAD.size]):
            raise Damaged
        magic, dtype, layout, dimensions, owner, size, checksum, *shape = _HEAD.unpack_from(head)
        if magic != _MAGIC:
            raise Damaged
        if owner != key:
            return None
        payload = torch.empty(size, dtype=torch.uint8)
        _fill(file, payload.numpy(), offset + _HEADER_BYTES)
        if _sum(payload.numpy()) != checksum:
            raise Damaged
        self._touch(number)
        return unpack(payload, _DTYPES[dtype], layout, shape[:dimensions])

    def _open(self, number: int) -> int:
        """File descriptor of a shard's data; the store closes it."""
        if number in self._files:
            self._files.move_to_end(number)
        else:
            self._files[number] = os.open(self._path(number, ".data"), os.O_RDONLY)
            if len(self._files) > _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
        return self._files[number]

    def _touch(self, number: int) -> None:
        """Marks a shard as used, by the time of its index file, now and then."""
        now = time.monotonic()
        if now - self._touched.get(number, -TOUCH_S) >= TOUCH_S:
            self._touched[number] = now
            with suppress(OSError):  # a folder that may only be read
                os.utime(self._path(number, ".index"))

    def _path(self, number: int, ending: str) -> Path:
        return self.folder / (self._shards[number].name + ending)

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self._shards)
            self._shards.append(_Shard(name))
        return self._numbers[name]

    def _new_slots(self, number: int, size: int) -> NDArray[Any]:
        """The slots of a shard's index of this size that are not known yet."""
        shard = self._shards[number]
        whole = size - size % _SLOT.itemsize
        start, shard.known = min(shard.known, whole), whole
        if start == whole:
            return np.empty(0, _SLOT)
        try:
            count = (whole - start) // _SLOT.itemsize
            return np.fromfile(self._path(number, ".index"), _SLOT, count=count, offset=start)
        except OSError:  # evicted meanwhile
            return np.empty(0, _SLOT)

    def _learn(self, prefixes: NDArray[np.uint64], places: NDArray[np.uint64]) -> None:
        """Takes in entries, the newest last."""
        if len(prefixes) + len(self._recent) <= max(_RECENT, len(self._prefixes) // 8):
            self._recent.update(zip(prefixes.tolist(), places.tolist(), strict=True))
            return
        waiting = len(self._recent)
        all_prefixes = [self._prefixes, np.fromiter(self._recent.keys(), np.uint64, waiting), prefixes]
        all_places = [self._places, np.fromiter(self._recent.values(), np.uint64, waiting), places]
        self._prefixes, self._places = np.concatenate(all_prefixes), np.concatenate(all_places)
        order = np.argsort(self._prefixes, kind="stable")
        self._prefixes, self._places = self._prefixes[order], self._places[order]
        self._recent = {}

    # --- writing -----------------------------------------------------------------------------------------------------

    def put(self, key: bytes, tensor: Tensor, layout: Layout = "given") -> Tensor:
        """Stores a tensor of at most six dimensions and returns it as `find` will give it, so that both run alike.

        It counts, for a kill and for other processes, after the next flush, which comes by itself now and then. One
        that alone is larger than the limit is not stored.

        Args:
            key: 32 bytes.
            tensor: of any device.
            layout: `given` stores its own dtype, bit for bit; fp32, fp16 and bf16 cast; `int8` stores each row (the
                last dimension) as 8-bit integers and one float32 scale: |error| <= max|row| / 254, up to the rounding
                of float32. A row below 1e-30 becomes zeros.

        Raises:
            UserError: the layout cannot hold the values.
            OSError: it could not be written, for example ENOSPC. What counted before still does; later calls may try
                again.
        """
        if len(key) != 32:
            raise ValueError(f"a key has 32 bytes, this one {len(key)}")
        tensor = tensor.detach().cpu().contiguous()
        payload, dtype, code = pack(tensor, layout)
        shape = [*tensor.shape, *[0] * (6 - tensor.ndim)]
        data = payload.numpy()
        head = _HEAD.pack(_MAGIC, _DTYPES.index(dtype), code, tensor.ndim, key, len(data), _sum(data), *shape)
        head = (head + _CHECK.pack(_sum(head))).ljust(_HEADER_BYTES, b"\0")
        size = _HEADER_BYTES + len(data)
        if self.limit is None or size <= self.limit:
            self._write(_prefix(key), [head, data], size)
        return unpack(payload, dtype, code, tensor.shape)

    def flush(self) -> None:
        """Makes everything that was put count.

        Raises:
            OSError: it does not, as far as it had not been flushed before; it is forgotten, for after a failed fsync
                nobody knows what the disk holds.
        """
        writer = self._own_writer()
        if writer is None or not writer.pending:
            return
        slots = np.array(writer.pending, _SLOT)
        try:
            os.fsync(writer.data)
            _write(writer.index, [slots.tobytes()], writer.index_end)
            os.fsync(writer.index)
        except OSError:
            self._writer = None
            with suppress(OSError):
                os.ftruncate(writer.index, writer.index_end)
            writer.close()
            raise
        writer.index_end += slots.nbytes
        writer.pending, writer.pending_bytes = [], 0
        self._shards[writer.number].known = writer.index_end

    def close(self) -> None:
        """Flushes, and gives the shard to whoever writes next; the store can still be used."""
        try:
            self._stop_writing()
        finally:
            while self._files:
                os.close(self._files.popitem()[1])

    def _write(self, prefix: int, parts: Sequence[Any], size: int) -> None:
        writer = self._own_writer()
        if writer is not None and writer.data_end and writer.data_end + size > self._shard_bytes:
            self._stop_writing()
            writer = None
        if writer is None:
            writer = self._writer = self._take_shard(size)
        try:
            _write(writer.data, parts, writer.data_end)
        except OSError:
            with suppress(OSError):
                os.ftruncate(writer.data, writer.data_end)
            raise
        slot = prefix, writer.data_end, size
        writer.data_end = _aligned(writer.data_end + size)
        writer.since = writer.since if writer.pending else time.monotonic()
        writer.pending.append(slot)
        writer.pending_bytes += size
        one = np.array([slot], _SLOT)
        self._learn(one["prefix"], _places(writer.number, one["offset"]))
        if writer.pending_bytes >= BATCH_BYTES or time.monotonic() - writer.since >= BATCH_S:
            self.flush()

    def _own_writer(self) -> _Writer | None:
        if self._writer is not None and self._writer.pid != os.getpid():  # the parent goes on writing there
            self._writer.close()
            self._writer = None
        return self._writer

    def _stop_writing(self) -> None:
        self.flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _take_shard(self, size: int) -> _Writer:
        """A shard with room for a record of this size that nobody else writes to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.limit is not None:
            self.prune(self.limit - max(size, self._shard_bytes))
        for name, _ in sorted(_listed(self.folder)):
            with suppress(FileNotFoundError, PermissionError):  # evicted meanwhile; another user's
                if os.stat(self.folder / f"{name}.data").st_size + size <= self._shard_bytes:
                    index = _locked(self.folder / f"{name}.index", os.O_RDWR)
                    if index is not None:
                        return self._resume(name, index)
        while True:
            name = secrets.token_hex(8)
            index = _locked(self.folder / f"{name}.index", os.O_RDWR | os.O_CREAT | os.O_EXCL)
            if index is not None:
                return self._resume(name, index)

    def _resume(self, name: str, index: int) -> _Writer:
        """The writer of a locked shard; a torn tail of its files is cut off."""
        opened = [index]
        try:
            index_end = os.fstat(index).st_size
            index_end -= index_end % _SLOT.itemsize
            os.ftruncate(index, index_end)
            data = os.open(self.folder / f"{name}.data", os.O_RDWR | os.O_CREAT, 0o666)
            opened.append(data)
            length = os.fstat(data).st_size
            slots = np.frombuffer(os.pread(index, index_end, 0), _SLOT)
            ends = slots["offset"] + slots["size"]
            data_end = int(ends[ends <= length].max(initial=0))  # a slot may point beyond data that somebody cut
            os.ftruncate(data, data_end)
            folder = os.open(self.folder, os.O_RDONLY)
            opened.append(folder)
            os.fsync(folder)
            os.close(opened.pop())
        except OSError:
            for file in opened:
                os.close(file)
            raise
        number = self._number(name)
        new = self._new_slots(number, index_end)
        self._learn(new["prefix"], _places(number, new["offset"]))
        return _Writer(number, index, data, index_end, _aligned(data_end))

    # --- size --------------------------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """What the store takes on disk now, other processes' entries included."""
        listed = dict(_listed(self.folder))
        size = sum(_shard_size(self.folder, name) for name in listed)
        return Usage(size, sum(length // _SLOT.itemsize for length in listed.values()), len(listed))

    def prune(self, limit: int) -> int:
        """Evicts the least recently used shards until the store takes at most `limit` bytes; returns the bytes freed.

        A shard that another process writes to stays.
        """
        self._stop_writing()
        for stray in self.folder.glob("*.data"):  # a prune was killed between two files
            if not stray.with_suffix(".index").exists():
                stray.unlink(missing_ok=True)
        shards = []
        for name, _ in _listed(self.folder):
            with suppress(FileNotFoundError):
                used = os.stat(self.folder / f"{name}.index").st_mtime_ns
                shards.append((used, name, _shard_size(self.folder, name)))
        total, freed = sum(size for _, _, size in shards), 0
        for _, name, size in sorted(shards):
            if total - freed <= limit:
                break
            with suppress(FileNotFoundError, PermissionError):
                index = _locked(self.folder / f"{name}.index", os.O_RDWR)
                if index is not None:
                    try:
                        os.unlink(self.folder / f"{name}.index")
                        os.unlink(self.folder / f"{name}.data")
                    finally:
                        os.close(index)
                    freed += size
        self.refresh()
        return freed


def open_default() -> Store:
    """The store of encoded features, no larger than the variable EVALKIT_CACHE_GB says; 50 without it.

    Raises:
        UserError: the variable is no number above 0.
    """
    given = os.environ.get("EVALKIT_CACHE_GB", "50")
    try:
        limit = int(float(given) * 1e9)
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise UserError(f"EVALKIT_CACHE_GB={given}: expected gigabytes, a number above 0")
    place = cache.folder() / "features"
    try:
        place.mkdir(parents=True, exist_ok=True)
        return Store(place, limit)
    except OSError as error:
        raise UserError(
            f"the cache {place} cannot be used: {error.strerror}; EVALKIT_CACHE= names another folder, cache=off does "
            "without"
        ) from error


def _sum(data: Any) -> int:
    return zlib.crc32(data)


def _prefix(key: bytes) -> int:
    return int.from_bytes(key[:8], "little")


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN


def _places(number: int, offsets: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # A damaged slot may hold any offset; what does not fit wraps within its own shard, where the header is checked.
    inside = (offsets // np.uint64(_ALIGN)) & np.uint64((1 << _OFFSET_BITS) - 1)
    return inside | np.uint64(number << _OFFSET_BITS)


def _listed(folder: Path) -> Iterator[tuple[str, int]]:
    """Names of the shards in a folder and the sizes of their indices; nothing where there is no folder."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".index"):
                with suppress(FileNotFoundError):
                    yield entry.name.removesuffix(".index"), entry.stat().st_size


def _shard_size(folder: Path, name: str) -> int:
    total = 0
    for ending in (".index", ".data"):
        with suppress(FileNotFoundError):
            total += os.stat(folder / (name + ending)).st_size
    return total


def _locked(path: Path, flags: int) -> int | None:
    """File descriptor of an index, locked by this process until it is closed; None where another one holds it."""
    file = os.open(path, flags, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(file).st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):  # the latter: evicted before it was locked
        pass
    except OSError:
        os.close(file)
        raise
    os.close(file)
    return None


def _write(file: int, parts: Sequence[Any], offset: int) -> None:
    for part in parts:
        rest = memoryview(part)
        while len(rest):
            done = os.pwrite(file, rest, offset)
            rest, offset = rest[done:], offset + done


def _fill(file: int, buffer: Any, offset: int) -> None:
    rest = memoryview(buffer)
    while len(rest):
        done = os.preadv(file, [rest], offset)
        if not done:
            raise Damaged
        rest, offset = rest[done:], offset + done
