"""Features on disk by key, for any number of processes: an entry is found as it was written, or missed.

A store is a folder of shards (evalkit/features/shards.py), with an index in memory (evalkit/features/index.py).

Records are read into fresh memory. The checksum must see all bytes anyway, so that mapped memory is 1.0 to 1.5 times as
fast and no more (bench/store.py has both), and it would end the process by SIGBUS if a disk fails or a file is cut.
safetensors files cannot be appended to.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evalkit.errors import UserError
from evalkit.features.codec import Layout, pack, unpack
from evalkit.features.index import Index
from evalkit.features.shards import (
    HEADER_BYTES,
    SLOT,
    Damaged,
    ShardWriter,
    encode_header,
    key_prefix,
    list_shards,
    open_writer,
    read_record,
    remove_shard,
    shard_size,
)
from evalkit.runtime import cache

# A shard is closed at this size. Whole shards are evicted, so a size limit makes them smaller: SHARDS of them fill it.
SHARD_BYTES, SHARDS = 256 << 20, 8
# Seconds between two refreshes from other processes' writes, and between two marks that a shard is in use.
REFRESH_S, TOUCH_S = 1.0, 60.0
# Data files that are kept open.
OPEN_FILES = 64


class Usage(NamedTuple):
    """Disk usage of a store: bytes of all its files, entries (one written twice counts twice), and shards."""

    bytes: int
    entries: int
    shards: int


class Store:
    """Tensors by key in a folder, for any number of processes that read and write at once.

    One thread at a time may write, and another may read meanwhile. In a forked child it reads as before and writes to a
    shard of its own.

    Attributes:
        folder: of the shards; made by the first `put`.
        limit: bytes that the store may take; the least recently used shards go first. Each writer beside this one may
            take a shard more. None means no limit.
        also: folders of other stores, in which what is missing here is looked for; nothing is written there.
        damaged: number of damaged entries so far, each of them missed.
    """

    def __init__(self, folder: Path, limit: int | None = None, also: Sequence[Path] = ()) -> None:
        self.folder = Path(folder)
        self.limit = limit
        self.also = tuple(also)
        self.damaged = 0
        self._others = [_Other(place) for place in self.also]
        self._writing = threading.RLock()  # on what writes; whoever wants both takes it first
        self._lock = threading.RLock()  # on the index and the files that are read
        self._shard_bytes = SHARD_BYTES if limit is None else min(SHARD_BYTES, limit // SHARDS)
        self._index = Index(self.folder)
        self._files: OrderedDict[str, int] = OrderedDict()  # open data files by shard, least recently used first
        self._touched: dict[str, float] = {}  # time of the last mark, by shard
        self._writer: ShardWriter | None = None
        self._gone: set[str] = set()  # shards that were removed
        self.refresh()

    def __enter__(self) -> Store:
        return self

    def another(self) -> Store:
        """A store on the same folders, for another thread."""
        return Store(self.folder, self.limit, self.also)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(OSError):  # the exception on its way says more
                self.close()

    # --- reading -----------------------------------------------------------------------------------------------------

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Tensor]:
        """The tensors of those keys that are stored and undamaged: on the CPU, writable, not shared.

        Entries that other processes flushed are found a second later at most. Tensors stored as int8 come as float32.

        Args:
            keys: 32 bytes each, as `evalkit.features.key.FeatureKey.digest` makes them.
        """
        distinct = list(dict.fromkeys(keys))
        tensors = {key: tensor for key in distinct if (tensor := self._find(key)) is not None}
        if len(tensors) < len(distinct) and time.monotonic() - self._refreshed > REFRESH_S:
            self.refresh()
            missing = [key for key in distinct if key not in tensors]
            tensors |= {key: tensor for key in missing if (tensor := self._find(key)) is not None}
        return tensors

    def __contains__(self, key: bytes) -> bool:
        """Whether an entry seems to be stored: by the index alone, which only a read can confirm."""
        with self._lock:
            here = next(self._index.candidates(key), None) is not None
        return here or any(key in other for other in self._others)

    def refresh(self) -> None:
        """Update the index with what other processes have written and evicted."""
        self._refreshed = time.monotonic()
        with self._lock:
            for name in self._index.refresh():
                self._gone.add(name)
                self._close_file(name)
        for other in self._others:
            with suppress(OSError):  # what was found there once is read as long as it can be
                other.refresh()

    def _find(self, key: bytes) -> Tensor | None:
        with self._lock:
            tensor = self._find_here(key)
        for other in self._others:
            tensor = other._find(key) if tensor is None else tensor
        return tensor

    def _find_here(self, key: bytes) -> Tensor | None:
        for name, offset in self._index.candidates(key):
            try:
                tensor = read_record(self._open(name), offset, key)
            except Damaged:
                self.damaged += 1
                continue
            except OSError as error:
                # Evicted, which a shared file system may tell by a stale handle; else the disk fails.
                self.damaged += error.errno not in (errno.ENOENT, errno.ESTALE)
                self._close_file(name)  # it may be another file by now
                continue
            if tensor is not None:
                self._touch(name)
                return tensor
        return None

    def _close_file(self, name: str) -> None:
        if name in self._files:
            with suppress(OSError):  # nothing was written by it
                os.close(self._files.pop(name))

    def _open(self, name: str) -> int:
        """File descriptor of a shard's data; the store closes it."""
        if name in self._files:
            self._files.move_to_end(name)
        else:
            self._files[name] = os.open(self.folder / f"{name}.data", os.O_RDONLY)
            if len(self._files) > OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
        return self._files[name]

    def _touch(self, name: str) -> None:
        """Mark a shard as used, by the time of its index file, every TOUCH_S seconds."""
        now = time.monotonic()
        if now - self._touched.get(name, -TOUCH_S) >= TOUCH_S:
            self._touched[name] = now
            with suppress(OSError):  # a read-only folder
                os.utime(self.folder / f"{name}.index")

    # --- writing -----------------------------------------------------------------------------------------------------

    def put(self, key: bytes, tensor: Tensor, layout: Layout = "given") -> Tensor:
        """Store a tensor of at most six dimensions and return it as `find` will give it, so that both runs are alike.

        It survives a kill, and other processes see it, after the next flush, which happens by itself now and then. An
        entry that alone is larger than the limit is not stored.

        Args:
            key: 32 bytes.
            tensor: of any device.
            layout: `given` stores its own dtype, bit for bit; `int8` stores each row (the last dimension) as 8-bit
                integers and one float32 scale: |error| <= max|row| / 254, up to the rounding of float32. A row below
                1e-30 becomes zeros.

        Raises:
            UserError: the layout cannot hold the values.
            OSError: the entry could not be written, for example ENOSPC. Entries that were flushed stay valid; later
                calls may try again.
        """
        if len(key) != 32:
            raise ValueError(f"a key has 32 bytes, this one {len(key)}")
        tensor = tensor.detach().cpu().contiguous()
        packed = pack(tensor, layout)
        self.write(key, *packed, tensor.shape)
        return unpack(*packed, tensor.shape)

    def write(self, key: bytes, payload: Tensor, dtype: torch.dtype, code: int, shape: Sequence[int]) -> None:
        """Store a tensor of this shape that `codec.pack` has packed, as `put` does.

        Raises:
            OSError: it could not be written; the store's folder is its file name.
        """
        size = HEADER_BYTES + len(payload)
        if self.limit is None or size <= self.limit:
            with self._writing, self._naming_folder():
                self._append(key, [encode_header(key, payload, dtype, code, shape), payload.numpy()], size)

    def flush(self) -> None:
        """Make all entries that were put durable and visible to other processes.

        Raises:
            OSError: those since the last flush are lost, since after a failed fsync the disk's content is unknown.
        """
        with self._writing:
            writer = self._current_writer()
            if writer is None or not writer.pending:
                return
            try:
                with self._naming_folder():
                    writer.flush()
            except OSError:
                self._writer = None
                raise
            with self._lock:
                self._index.mark_read(writer.name, writer.index_end)

    def close(self) -> None:
        """Flush, close all files and release the shard for the next writer; the store can still be used."""
        try:
            self._stop_writing()
        finally:
            with self._lock:
                for name in [*self._files]:
                    self._close_file(name)
            for other in self._others:
                other.close()

    @contextmanager
    def _naming_folder(self) -> Iterator[None]:
        """What the disk refuses in this block says where."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self.folder)
            raise

    def _append(self, key: bytes, parts: Sequence[Any], size: int) -> None:
        writer = self._current_writer()
        if writer is not None and writer.data_end and writer.data_end + size > self._shard_bytes:
            self._stop_writing()
            writer = None
        if writer is None:
            if self.limit is not None:
                self.prune(self.limit - max(size, self._shard_bytes))
            writer = self._writer = open_writer(self.folder, size, self._shard_bytes)
            with self._lock:
                self._index.read_new(writer.name, writer.index_end)
        slot = writer.append(key_prefix(key), parts, size)
        with self._lock:
            self._index.add(writer.name, slot)
        if writer.flush_due:
            self.flush()

    def _current_writer(self) -> ShardWriter | None:
        writer = self._writer
        if writer is not None and (writer.pid != os.getpid() or writer.name in self._gone):
            writer.close()  # the parent goes on writing there, or the folder was removed
            self._writer = None
        return self._writer

    def _stop_writing(self) -> None:
        with self._writing:
            self.flush()
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    # --- size --------------------------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """Disk usage now, other processes' entries included."""
        shards = dict(list_shards(self.folder))
        size = sum(shard_size(self.folder, name) for name in shards)
        return Usage(size, sum(index_bytes // SLOT.itemsize for index_bytes in shards.values()), len(shards))

    def room(self) -> int:
        """Bytes that the store may take on its disk: those that are free, and those that it has."""
        folder = next(place for place in (self.folder, *self.folder.parents) if place.exists())
        return shutil.disk_usage(folder).free + self.usage().bytes

    def prune(self, limit: int) -> int:
        """Evict the least recently used shards until the store takes at most `limit` bytes; returns the bytes freed.

        A shard that another process writes to stays.
        """
        self._stop_writing()
        for stray in self.folder.glob("*.data"):  # an eviction was killed between two files
            if not stray.with_suffix(".index").exists():
                stray.unlink(missing_ok=True)
        shards = []
        for name, _ in list_shards(self.folder):
            with suppress(FileNotFoundError):
                used = os.stat(self.folder / f"{name}.index").st_mtime_ns
                shards.append((used, name, shard_size(self.folder, name)))
        total, freed = sum(size for _, _, size in shards), 0
        for _, name, size in sorted(shards):
            if total - freed <= limit:
                break
            if remove_shard(self.folder, name):
                freed += size
        self.refresh()
        return freed


class _Other(Store):
    """A store that is only read; reading does not mark its shards as used."""

    def _touch(self, name: str) -> None:
        pass


def other_stores(also: str) -> list[Path]:
    """Folders of the stores in other cache folders, which `cache.also` names, with commas between them.

    Raises:
        UserError: there is no store in one of them.
    """
    folders = []
    for name in filter(None, also.split(",")):
        place = Path(name).expanduser().absolute()
        store = place
        try:
            store = place / "features" if (place / "features").is_dir() else place
            os.listdir(store)
        except OSError as error:
            raise UserError(
                f"cache.also={name}: {store} cannot be read: {error.strerror}; name a folder that was EVALKIT_CACHE of "
                "another run, several with commas between them"
            ) from error
        if store == place and next(list_shards(store), None) is None:
            raise UserError(
                f"cache.also={name}: there are no features in it (no folder features); name a folder that was "
                "EVALKIT_CACHE of another run"
            )
        folders.append(store)
    return folders


def open_default(also: str = "") -> Store:
    """The store of encoded features in the cache folder, limited by EVALKIT_CACHE_GB (gigabytes; default 50).

    Args:
        also: other cache folders, as `other_stores` reads them.

    Raises:
        UserError: the variable is not a number above 0, or a cache folder cannot be used.
    """
    gigabytes = os.environ.get("EVALKIT_CACHE_GB", "50")
    try:
        limit = int(float(gigabytes) * 1e9)
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise UserError(f"EVALKIT_CACHE_GB={gigabytes}: expected gigabytes, a number above 0")
    folder, others = cache.folder() / "features", other_stores(also)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Store(folder, limit, others)
    except OSError as error:
        raise UserError(
            f"the cache {folder} cannot be used: {error.strerror}; EVALKIT_CACHE= names another folder, cache=off does "
            "without"
        ) from error
