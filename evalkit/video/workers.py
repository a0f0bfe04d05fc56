"""Decoding processes: requests in, uint8 clips or failures out, in order, within a time limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from evalkit.runtime import machine
from evalkit.runtime.processes import ProcessPool
from evalkit.video import media
from evalkit.video.clips import Decoded, Failure, Read, Request, read_clip


class ClipReader(Protocol):
    """A source of clips: decoding processes, or files with precomputed features.

    Attributes:
        stored: whether nothing is decoded or encoded.
    """

    stored: bool

    def read(self, requests: Sequence[Request]) -> Iterator[Decoded | Failure]:
        """The clips of each request, in order."""

    def exists(self, video: Path) -> bool:
        """Whether a video can be read."""

    def close(self) -> None:
        """Ends all processes."""


class DecodePool:
    """The decoding processes of one run: started at the first request, kept until `close`.

    Args:
        workers: number of processes, at least 1; each uses one core.
        time_limit: seconds that one sample may take.
        read: what the processes call with a request; a function that they can import.
        beside: pools of so many processes that work on this machine at once, this one among them.
        shared: bytes of shared memory for clips; None: by what is free. Of 0 they are copied through pipes.
        pinned: whether a GPU is to copy clips from there.
    """

    stored = False

    def __init__(
        self,
        workers: int,
        time_limit: float = 120.0,
        read: Read = read_clip,
        beside: int = 1,
        shared: int | None = None,
        pinned: bool = False,
    ) -> None:
        shared = machine.shared_clips(beside, pinned) if shared is None else shared
        self._processes = ProcessPool(workers, "decoding", read.__module__, beside, shared, pinned)
        self._time_limit, self._read = time_limit, read

    def read(self, requests: Sequence[Request]) -> Iterator[Decoded | Failure]:
        """The clips of each request, in the order of the requests, decoded ahead.

        A process that takes longer than the time limit over a sample is killed and the sample fails; one that dies is
        replaced and its sample tried once more. Several of these may be open at once. The clips lie in memory that is
        shared with the processes, and is used again once nothing refers to them.

        Raises:
            RuntimeError: the processes do not start.
        """
        arguments = [(self._read, request) for request in requests]
        sizes = [*map(_bytes_of, requests)]
        return self._processes.map(_read, arguments, time_limit=self._time_limit, lost=Failure, sizes=sizes)

    def exists(self, video: Path) -> bool:
        """Whether the file is there."""
        return media.exists(video)

    def close(self) -> None:
        """Ends the processes."""
        self._processes.close()


def read_clips(
    requests: Sequence[Request], *, workers: int, time_limit: float = 120.0, read: Read = read_clip
) -> Iterator[Decoded | Failure]:
    """The clips of each request by processes of its own, which end with the iterator; as `DecodePool.read`."""
    pool = DecodePool(workers, time_limit, read)
    try:
        yield from pool.read(requests)
    finally:
        pool.close()


def _bytes_of(request: Request) -> int:
    """Bytes of the clips that a request gives."""
    views = request.looks[0].cut(request.views) if request.looks else request.views
    parts = max(1, len(request.looks)) * max(1, len(request.windows))
    return parts * views.clips * views.crops * request.frames * 3 * request.size**2


def _read(read: Read, request: Request) -> Decoded | Failure:
    try:
        return read(*request)
    except Exception as error:
        return Failure(" ".join(f"{type(error).__name__}: {error}".split()))
