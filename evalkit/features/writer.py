"""Writes features to a store in a thread of its own, while the next ones are computed."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from torch import Tensor

from evalkit.features.codec import Layout, pack, unpack
from evalkit.features.store import Store

# Bytes that may wait to be written: as many as a kill may lose.
WAITING_BYTES = 64 << 20


class StoreWriter:
    """The one thread that writes to a store while a block runs; what it was given is written when the block ends.

    Only this thread of the process writes to the store meanwhile; others may read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[tuple[bytes, tuple[Any, ...]]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join()
        if kind is None:
            self._raise()

    def put(self, key: bytes, tensor: Tensor, layout: Layout = "given") -> Tensor:
        """The tensor as `Store.find` will give it; it is on its way there, and must stay as it is.

        Raises:
            UserError: the layout cannot hold the values.
            OSError: an entry before this one could not be written.
        """
        tensor = tensor.detach().cpu().contiguous()
        packed = (*pack(tensor, layout), tensor.shape)
        with self._changed:
            self._changed.wait_for(lambda: self._bytes <= WAITING_BYTES or self._error)
            self._raise()
            self._waiting.append((key, packed))
            self._bytes += len(packed[0])
            self._changed.notify_all()
        if not self._thread:
            self._thread = threading.Thread(target=self._write, daemon=True)
            self._thread.start()
        return unpack(*packed)

    def _raise(self) -> None:
        if self._error:
            error, self._error = self._error, None
            raise error

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                key, packed = self._waiting.popleft()
            try:
                self._store.write(key, *packed)
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._waiting.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                self._bytes -= len(packed[0])
                self._changed.notify_all()
