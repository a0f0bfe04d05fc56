"""Decoding processes: requests in, uint8 clips or failures out, in order, within a time limit."""

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
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from evalkit.video.clips import Decoded, Failure, Read, Request, read_clip

# Clips that may wait for their reader, per worker: what is held in memory does not grow with the number of requests.
AHEAD = 2
# Seconds in which a worker must be ready; it imports torch first, perhaps from a slow disk.
START_S = 120.0


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


class Worker:
    """A process that reads one request at a time; a plain subprocess, so nothing of the caller's main module runs."""

    def __init__(self, time_limit: float) -> None:
        self.connection, theirs = Pipe()
        code = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import evalkit.video.workers as w; w.serve()"
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
    pool: list[Worker] = []
    waiting = deque(range(len(requests)))
    died: set[int] = set()
    done: dict[int, Decoded | Failure] = {}
    handed = taken = late = 0
    try:
        while handed < len(requests):
            busy = sum(worker.job is not None for worker in pool)
            while len(pool) < min(workers, busy + len(waiting)):
                pool.append(Worker(time_limit))
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


def serve() -> None:
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
