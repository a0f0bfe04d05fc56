"""The stores that bench/store.py compares: evalkit's, LMDB and SQLite, behind one interface."""

from __future__ import annotations

import importlib.util
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from evalkit.features.store import Store

# Bytes between two commits, as the store flushes.
COMMIT_BYTES = 64 << 20


class Backend(Protocol):
    """Float16 vectors by key in a folder."""

    def put(self, key: bytes, tensor: Tensor) -> None:
        """Write an entry; durable after the next flush."""

    def flush(self) -> None:
        """Make everything that was put durable."""

    def find(self, key: bytes) -> Tensor | None:
        """The entry, on memory of its own; None if it is absent or damaged."""

    def close(self) -> None:
        """Flush and release the folder."""


class StoreBackend:
    """evalkit's store."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)

    def put(self, key: bytes, tensor: Tensor) -> None:
        """Write an entry."""
        self.store.put(key, tensor)

    def flush(self) -> None:
        """Make everything durable."""
        self.store.flush()

    def find(self, key: bytes) -> Tensor | None:
        """The entry, or None."""
        return self.store.find([key]).get(key)

    def close(self) -> None:
        """Flush and release."""
        self.store.close()


class LmdbBackend:
    """An LMDB environment: a memory-mapped B+ tree, one writer at a time."""

    def __init__(self, folder: Path) -> None:
        import lmdb  # type: ignore[import-not-found, unused-ignore]  # not among the dependencies

        self.environment = lmdb.open(str(folder), map_size=1 << 36)
        self.transaction: Any = None
        self.pending = 0

    def put(self, key: bytes, tensor: Tensor) -> None:
        """Write an entry."""
        data = tensor.numpy().view(np.uint8).data
        self.transaction = self.transaction or self.environment.begin(write=True)
        self.transaction.put(key, b"".join([zlib.crc32(data).to_bytes(4, "little"), data]))
        self.pending += len(data)
        if self.pending >= COMMIT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Make everything durable."""
        if self.transaction:
            self.transaction.commit()
        self.transaction, self.pending = None, 0

    def find(self, key: bytes) -> Tensor | None:
        """The entry, or None."""
        with self.environment.begin(buffers=True) as transaction:
            value = transaction.get(key)
            if value is None or zlib.crc32(value[4:]) != int.from_bytes(value[:4], "little"):
                return None
            return torch.from_numpy(np.frombuffer(value, np.float16, offset=4).copy())

    def close(self) -> None:
        """Flush and release."""
        self.flush()
        self.environment.close()


class SqliteBackend:
    """A SQLite table with a write-ahead log, one writer at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.connection = sqlite3.connect(folder / "features.sqlite", timeout=60)
        self.connection.execute("PRAGMA page_size=32768")
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, checksum INT, value BLOB)")
        self.pending = 0

    def put(self, key: bytes, tensor: Tensor) -> None:
        """Write an entry."""
        data = tensor.numpy().view(np.uint8).data
        row = (key, zlib.crc32(data), data)
        self.connection.execute("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", row)
        self.pending += len(data)
        if self.pending >= COMMIT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Make everything durable."""
        self.connection.commit()
        self.pending = 0

    def find(self, key: bytes) -> Tensor | None:
        """The entry, or None."""
        row = self.connection.execute("SELECT checksum, value FROM features WHERE key = ?", (key,)).fetchone()
        if row is None or zlib.crc32(row[1]) != row[0]:
            return None
        return torch.from_numpy(np.frombuffer(row[1], np.float16).copy())

    def close(self) -> None:
        """Flush and release."""
        self.flush()
        self.connection.close()


BACKENDS: dict[str, Callable[[Path], Backend]] = {"store": StoreBackend}
if importlib.util.find_spec("lmdb"):
    BACKENDS["lmdb"] = LmdbBackend
BACKENDS["sqlite3"] = SqliteBackend
