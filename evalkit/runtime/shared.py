"""Memory that a process and its workers map at once: what a worker makes there is read there, without a copy.

It has no name in the file system (memfd_create), so that nothing is left behind however the processes end, and the size
of /dev/shm does not matter. Its pages are allocated before they are handed out: where there are none, that is an error
here and not a signal (SIGBUS) later.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
# Start and size of an extent.
Place = tuple[int, int]

PAGE = 4096  # extents begin at multiples


def _unpin(runtime: Any, address: int, memory: mmap.mmap) -> None:
    runtime.cudaHostUnregister(address)


class SharedMemory:
    """Shared memory that is handed out in extents.

    Args:
        size: bytes; what is not handed out takes no memory, and what was once handed out is used again.
        pinned: allocate all of it now, page-locked if CUDA can, so that a GPU copies from it by itself.

    Attributes:
        descriptor: by which another process maps it with `attach`.

    Raises:
        OSError: the system has none.
    """

    def __init__(self, size: int, pinned: bool = False) -> None:
        self.size = size
        self.descriptor = os.memfd_create("evalkit")
        self.close = weakref.finalize(self, os.close, self.descriptor)
        os.ftruncate(self.descriptor, size)
        if pinned:
            os.posix_fallocate(self.descriptor, 0, size)
        self._memory = mmap.mmap(self.descriptor, size)
        self._taken: dict[int, int] = {}  # size by start
        self._returned: deque[int] = deque()  # starts; a finalizer may run in any thread, even in `take`
        self._allocated = size if pinned else 0
        self._lock = threading.Lock()
        if pinned:
            self._pin()

    def _pin(self) -> None:
        import torch

        try:
            runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError):  # no CUDA
            return
        address = _address(np.frombuffer(self._memory, np.uint8, 1))
        if int(runtime.cudaHostRegister(address, self.size, 0)) == 0:  # else copies wait for the GPU, and are right
            # The arguments of a finalizer live until it runs: the memory is mapped until then.
            self.unpin = weakref.finalize(self, _unpin, runtime, address, self._memory)

    def take(self, count: int) -> Bytes | None:
        """An extent of so many bytes, which is free again once nothing refers to the array; None where none is free.

        Raises:
            OSError: the system has no more memory.
        """
        with self._lock:
            while self._returned:
                del self._taken[self._returned.popleft()]
            start = 0
            for at, size in sorted(self._taken.items()):
                if start + count <= at:
                    break
                start = at + -(-size // PAGE) * PAGE
            end = start + count
            if end > self.size:
                return None
            if end > self._allocated:
                os.posix_fallocate(self.descriptor, self._allocated, end - self._allocated)
                self._allocated = end
            self._taken[start] = count
        extent = np.frombuffer(self._memory, np.uint8, count, start)
        weakref.finalize(extent, self._returned.append, start).atexit = False
        return extent

    def place(self, extent: Bytes) -> Place:
        """Where an extent lies, for `begin`."""
        return _address(extent) - _address(np.frombuffer(self._memory, np.uint8, 1)), extent.nbytes


# --- in a worker -----------------------------------------------------------------------------------------------------

_memory: mmap.mmap | None = None
_extent: Bytes | None = None  # of the present call
_used = 0  # bytes of it


def attach(descriptor: int, size: int) -> None:
    """Maps what another process shares, and closes the descriptor."""
    global _memory
    try:
        _memory = mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def begin(place: Place | None) -> None:
    """From now on `empty` takes memory from the extent at this place; None: from no extent."""
    global _extent, _used
    _extent = None if place is None or _memory is None else np.frombuffer(_memory, np.uint8, place[1], place[0])
    _used = 0


def empty(count: int) -> Bytes:
    """So many bytes for what a call gives, not set: shared with the process that wants it, if it has left room."""
    global _used
    if _extent is None or _used + count > _extent.nbytes:
        return np.empty(count, np.uint8)
    memory = _extent[_used : _used + count]
    _used = -(-(_used + count) // 64) * 64
    return memory


def put(buffer: memoryview) -> int | None:
    """Where in the extent a buffer lies, copied to it if it does not; None where no room is left."""
    if _extent is None:
        return None
    content = np.frombuffer(buffer, np.uint8)
    at = _address(content) - _address(_extent)
    if 0 <= at < _extent.nbytes:
        return at
    copy = empty(content.nbytes)
    at = _address(copy) - _address(_extent)
    if not 0 <= at < _extent.nbytes:
        return None
    copy[:] = content
    return at


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
