"""From video files to the uint8 clips that an encoder takes, in worker processes.

A file that cannot be decoded gives a `Failure` with its reason: no exception comes out of a worker, and no other frame
or sample takes its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evalkit.api import Views
from evalkit.video.augment import Look, box
from evalkit.video.decode import Decoder, open_video
from evalkit.video.randaugment import distorted
from evalkit.video.sampling import frame_indices
from evalkit.video.timeline import DecodeError

# Clips that may wait for their reader, per worker: what is held in memory does not grow with the number of requests.
AHEAD = 2
# Seconds in which a worker must be ready; it imports torch first, perhaps from a slow disk.
START_S = 120.0


@dataclass(frozen=True)
class Decoded:
    """The clips of one sample.

    Attributes:
        pixels: uint8 RGB (V, T, C, H, W) with V = temporal clips x crops; all crops of the first clip come first.
        times: for each temporal clip, the seconds at which its frames start in the video.
        decoder: name and version of what decoded them, and in brackets why, where it is not the default.
        default_decoder: whether that is the default decoder.
    """

    pixels: Tensor
    times: tuple[tuple[float, ...], ...]
    decoder: str
    default_decoder: bool


@dataclass(frozen=True)
class Failure:
    """Why a sample has no clips, in one line."""

    reason: str


class Request(NamedTuple):
    """What to read: the arguments of `read_clip`."""

    video: Path
    span: tuple[float, float] | None
    views: Views
    frames: int
    size: int
    looks: tuple[Look, ...] = ()
    decoder: Decoder = "pyav"


Read = Callable[[Path, "tuple[float, float] | None", Views, int, int, tuple[Look, ...], Decoder], "Decoded | Failure"]


def read_clip(
    video: Path,
    span: tuple[float, float] | None,
    views: Views,
    frames: int,
    size: int,
    looks: tuple[Look, ...] = (),
    decoder: Decoder = "pyav",
) -> Decoded | Failure:
    """The clips of one sample, decoded in this process; a `Failure` for whatever is wrong with file or span.

    Args:
        video: path of the file.
        span: start and end in seconds; None means the whole video.
        views: which frames and crops; its own `frames` and `size` are not looked at.
        frames: frames in one clip.
        size: height and width of the clips in pixels.
        looks: augmented views, which differ in their number only, in place of the plain ones.
        decoder: what reads the frames where it is exact.
    """
    if looks:
        views = looks[0].cut(views)
    each = [look._replace(clip=clip) for look in looks for clip in range(views.clips)]
    try:
        source = open_video(video, decoder)
        drawn = [look.stream("time", video, span) if look.augment.time else None for look in looks]
        clips = [
            indices
            for one in drawn or [None]
            for indices in frame_indices(source.times, source.duration, views, frames, span, one)
        ]
        places: dict[int, list[tuple[int, int]]] = {}
        for clip, indices in enumerate(clips):
            for step, index in enumerate(indices):
                places.setdefault(int(index), []).append((clip, step))
        pixels = torch.empty((len(clips), views.crops, frames, 3, size, size), dtype=torch.uint8)
        # frame by frame, so that only the small ones are ever all in memory
        for index, frame in source.frames(places):
            whole, resize = torch.from_numpy(frame), views.resize or "crop"
            crops = None if looks else _crops(whole, size, resize, views.crops, views.share)
            for clip, step in places[index]:
                if crops is None:
                    pixels[clip, :, step] = _seen(whole, size, resize, views.share, each[clip], video, span)
                else:
                    pixels[clip, :, step] = crops
        for view, look in zip(pixels[:, 0], each, strict=False):
            if look.augment.randaugment:
                view.copy_(distorted(view, *look.augment.randaugment, look.stream("operations", video, span)))
    except (DecodeError, ValueError, OSError) as error:
        return Failure(" ".join(str(error).split()))
    times = tuple(tuple(source.times[indices].tolist()) for indices in clips)
    return Decoded(pixels.flatten(0, 1), times, source.decoder, source.default_decoder)


def read_clips(
    requests: Sequence[Request], *, workers: int, time_limit: float = 120.0, read: Read = read_clip
) -> Iterator[Decoded | Failure]:
    """The clips of each request, in the order of the requests, decoded ahead by worker processes.

    A worker that takes longer than `time_limit` seconds over a sample is killed and the sample fails; a worker that
    dies is replaced and its sample tried once more, and so is one that does not become ready. No process outlives the
    iterator or this process.

    Args:
        requests: what to read.
        workers: number of processes, at least 1; each uses one core.
        time_limit: seconds that one sample may take.
        read: what the workers call with a request; a function that they can import.

    Raises:
        RuntimeError: the worker processes do not start.
    """
    if workers < 1:
        raise ValueError(f"workers={workers}: at least 1 is needed")
    taken, driver_end = Pipe()
    results: queue.SimpleQueue[Decoded | Failure | BaseException] = queue.SimpleQueue()
    driver = threading.Thread(
        target=_drive, args=(requests, workers, time_limit, read, driver_end, results), daemon=True
    )
    driver.start()
    try:
        for _ in requests:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
            with contextlib.suppress(OSError):  # the driver is gone once it has handed over the last one
                taken.send_bytes(b".")
    finally:
        taken.close()
        driver.join()


def _crops(frame: Tensor, size: int, resize: Literal["crop", "squash"], crops: int, share: float = 1.0) -> Tensor:
    """Square crops (crops, 3, size, size) of one frame (H, W, 3), both uint8; share as in `evalkit.api.Views`."""
    height, width = frame.shape[:2]
    if resize == "squash":
        shape = (size, size)
    else:
        short, wanted = min(height, width), int(size / share)
        shape = (max(wanted, height * wanted // short), max(wanted, width * wanted // short))
    scaled = frame.permute(2, 0, 1)[None]
    if shape != (height, width):
        scaled = interpolate(scaled, shape, mode="bilinear", antialias=True)
    down, right = shape[0] - size, shape[1] - size
    parts = [0.5] if crops == 1 else [0.0, 0.5, 1.0]
    corners = [(round(down * part), round(right * part)) for part in parts]
    return torch.cat([scaled[..., top : top + size, left : left + size] for top, left in corners])


def _seen(
    frame: Tensor,
    size: int,
    resize: Literal["crop", "squash"],
    share: float,
    look: Look,
    video: Path,
    span: tuple[float, float] | None,
) -> Tensor:
    """What an augmented view shows of one frame (H, W, 3), (1, 3, size, size), both uint8."""
    if look.augment.area != (1, 1):
        height, width, _ = frame.shape
        top, left, height, width = box(height, width, look.augment, look.stream("crop", video, span))
        frame, resize = frame[top : top + height, left : left + width], "squash"
    crop = _crops(frame, size, resize, 1, share)
    mirrored = look.augment.flip and look.stream("flip", video, span).random() < 0.5
    return crop.flip(-1) if mirrored else crop


class _Worker:
    """A process that reads one request at a time; a plain subprocess, so nothing of the caller's main module runs."""

    def __init__(self, time_limit: float) -> None:
        self.connection, theirs = Pipe()
        code = (
            "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from evalkit.video import clips; clips._serve()"
        )
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(sys.path), str(theirs.fileno()), str(time_limit)],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        self.ready = False
        self.job: int | None = None
        self.deadline = time.monotonic() + START_S

    def start(self, job: int, read: Read, request: Request, deadline: float) -> None:
        self.job, self.deadline = job, deadline
        with contextlib.suppress(OSError):  # it has died: the closed connection tells
            self.connection.send((read, request))

    def receive(self) -> Decoded | Failure | None:
        """The result of its job, or None when it has just become ready. Raises OSError or EOFError once it is dead."""
        message = self.connection.recv()
        if isinstance(message, tuple):
            shape, times, decoder, default = message
            pixels = torch.empty(shape, dtype=torch.uint8)
            if pixels.numel():
                self.connection.recv_bytes_into(pixels.view(-1).numpy().data)
            message = Decoded(pixels, times, decoder, default)
        self.ready, self.job, self.deadline = True, None, float("inf")
        return message  # type: ignore[no-any-return]

    def kill(self) -> int:
        """Its exit status: negative is the signal that ended it."""
        self.connection.close()
        self.process.kill()
        return self.process.wait()


def _drive(
    requests: Sequence[Request],
    workers: int,
    time_limit: float,
    read: Read,
    consumer: Connection[Any, Any],
    results: queue.SimpleQueue[Decoded | Failure | BaseException],
) -> None:
    """Keeps the workers busy and hands results over in order, until all are handed over or the consumer has left."""
    pool: list[_Worker] = []
    waiting = deque(range(len(requests)))
    died: set[int] = set()
    done: dict[int, Decoded | Failure] = {}
    handed = taken = late = 0
    try:
        while handed < len(requests):
            busy = sum(worker.job is not None for worker in pool)
            while len(pool) < min(workers, busy + len(waiting)):
                pool.append(_Worker(time_limit))
            for worker in pool:
                if worker.ready and worker.job is None and waiting and waiting[0] < taken + AHEAD * workers:
                    upcoming = waiting.popleft()
                    worker.start(upcoming, read, requests[upcoming], time.monotonic() + time_limit)

            soonest = min(worker.deadline for worker in pool) - time.monotonic() if pool else float("inf")
            timeout = None if soonest == float("inf") else max(0.0, soonest)
            events = wait([consumer, *(worker.connection for worker in pool)], timeout)
            if consumer in events:
                try:
                    consumer.recv_bytes()
                except EOFError:
                    return
                taken += 1
            for worker in [worker for worker in pool if worker.connection in events]:
                job = worker.job
                try:
                    result = worker.receive()
                except (EOFError, OSError):
                    pool.remove(worker)
                    status = worker.process.wait()
                    worker.kill()
                    if not worker.ready:
                        raise RuntimeError(f"the decoder process does not start ({_ending(status)})") from None
                    if job is not None and job in died:
                        done[job] = Failure(f"the decoder process died twice ({_ending(status)})")
                    elif job is not None:
                        died.add(job)
                        waiting.appendleft(job)
                else:
                    if job is not None and result is not None:
                        done[job] = result
            now = time.monotonic()
            for worker in [worker for worker in pool if worker.deadline <= now]:
                pool.remove(worker)
                worker.kill()
                if worker.job is not None:
                    done[worker.job] = Failure(f"decoding took longer than {time_limit:g} s")
                elif (late := late + 1) > workers:
                    raise RuntimeError(f"decoder processes do not start (not ready in {START_S:g} s)")
            while handed in done:
                results.put(done.pop(handed))
                handed += 1
    except BaseException as error:
        results.put(error)
    finally:
        consumer.close()
        for worker in pool:
            worker.kill()


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    return f"signal {-status}, {signal.Signals(-status).name}" + (": out of memory?" if status == -9 else "")


def _serve() -> None:
    """The life of a worker process; argv holds sys.path, the connection's descriptor and the time limit."""
    connection: Connection[Any, Any] = Connection(int(sys.argv[2]))
    time_limit = float(sys.argv[3])
    torch.set_num_threads(1)
    # what FFmpeg and decord have to say about a file is not for the user's terminal
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    jobs: queue.SimpleQueue[tuple[Read, Request]] = queue.SimpleQueue()

    def listen() -> None:
        # a thread, so that the process ends with its parent even in the middle of a sample
        while True:
            try:
                jobs.put(connection.recv())
            except (EOFError, OSError):
                os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    connection.send(None)
    while True:
        read, request = jobs.get()
        # should the parent be gone and this process be stuck where no thread runs, the kernel ends it
        signal.setitimer(signal.ITIMER_REAL, time_limit + 10)
        try:
            result = read(*request)
        except Exception as error:
            result = Failure(" ".join(f"{type(error).__name__}: {error}".split()))
        signal.setitimer(signal.ITIMER_REAL, 0)
        if isinstance(result, Failure):
            connection.send(result)
        else:
            connection.send((tuple(result.pixels.shape), result.times, result.decoder, result.default_decoder))
            if result.pixels.numel():
                connection.send_bytes(result.pixels.contiguous().view(-1).numpy().data)
