"""Processes that call functions: results in order, a time limit for each call, another process where one dies.

They are plain subprocesses: those of `multiprocessing` import the caller's main module again, and a script without
`if __name__ == "__main__"` would run once more in each. On Linux a template process imports what the calls need once
and forks the others. None outlives the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from evalkit.runtime import machine
from evalkit.runtime.shared import SharedMemory
from evalkit.runtime.worker import START_S, Template, Worker

logger = logging.getLogger("evalkit")

T = TypeVar("T")

# Results that may wait for their reader, per process: what is held in memory does not grow with the number of calls.
AHEAD = 2
# Seconds between two looks at the deadlines; a day is more than the system waits for.
LONGEST_WAIT_S = 3600.0


class ProcessPool:
    """Processes that call functions; started when they are needed, and kept for later calls until `close`.

    Args:
        size: number of processes, at least 1; each uses one core, and its share of the machine's memory at most.
        name: what they do, for errors: "decoding".
        imports: module that is imported before processes are forked.
        beside: pools of this size that work on this machine at once, this one among them.
        shared: bytes of memory that large results may take, in which their reader finds them without a copy.
        pinned: whether a GPU is to copy from there.
    """

    def __init__(
        self, size: int, name: str, imports: str, beside: int = 1, shared: int = 0, pinned: bool = False
    ) -> None:
        if size < 1:
            raise ValueError(f"workers={size}: at least 1 is needed")
        self.size, self.name, self.imports = size, name, imports
        self.beside, self.shared, self.pinned = beside, shared, pinned
        self.memory: SharedMemory | None = None
        self._refused = False  # the system has none
        self._lock = threading.Lock()
        self._templates: list[Template] = []  # the last is in use
        self._idle: list[Worker] = []
        self._process = os.getpid()
        self.close = weakref.finalize(self, _close, self._process, self._templates, self._idle)

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def map(
        self,
        function: Callable[..., T],
        arguments: Sequence[tuple[Any, ...]],
        *,
        time_limit: float | None = None,
        lost: Callable[[str], T] | None = None,
        sizes: Sequence[int] = (),
    ) -> Iterator[T]:
        """The result of each call, in the order of the arguments, worked out ahead of their reader.

        A process that dies is replaced and its call tried once more. Several of these may be open at once.

        Args:
            function: what is called; the processes import it by its name.
            arguments: of each call.
            time_limit: seconds that one call may take before its process is killed; None means no limit.
            lost: makes the result of a call that took too long or whose process died twice, from the reason.
            sizes: bytes of the arrays in each result, as far as is known. Results that wait for their reader take half
                of the shared memory at most, unless one alone takes more.

        Raises:
            RuntimeError: the processes do not start; or a call is lost, without `lost`.
            Exception: what a call raises, when its result is due.
        """
        taken, driver_end = Pipe()
        results: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        calls = _Calls(self, function, arguments, time_limit, sizes or [0] * len(arguments), driver_end, results)
        driver = threading.Thread(target=calls.run, daemon=True)
        driver.start()
        try:
            for _ in arguments:
                done, result = results.get()
                if isinstance(result, _Lost) and lost is not None:
                    result = lost(str(result))
                elif not done:
                    raise result
                yield result
                with contextlib.suppress(OSError):  # the driver is gone once it has handed over the last one
                    taken.send_bytes(b".")
        finally:
            taken.close()
            driver.join()

    def take(self) -> Worker:
        """A process that is idle, or a new one."""
        with self._lock:
            if not self.close.alive:
                raise RuntimeError(f"the pool of {self.name} processes is closed")
            if self._process != os.getpid():
                raise RuntimeError(f"the {self.name} processes belong to process {self._process}, which was forked")
            while self._idle:
                worker = self._idle.pop()
                if worker.usable:
                    return worker
                worker.kill()
            if not (self._templates and self._templates[-1].takes_more):
                self._templates.append(Template(self.imports, machine.share(self.size * self.beside)))
                if self.shared and self.memory is None and not self._refused:
                    self.share()
                if self.memory is not None:
                    self._templates[-1].share(self.memory)
            return Worker(self._templates[-1])

    def share(self) -> None:
        """Makes the shared memory; without it results are copied through pipes, and a note says why."""
        if not hasattr(os, "memfd_create"):  # macOS
            self._refused = True
            return
        try:
            self.memory = SharedMemory(self.shared, self.pinned)
        except (OSError, ValueError, OverflowError) as error:
            self.share_no_more(error)

    def share_no_more(self, error: Exception) -> None:
        """From now on results are copied through pipes; a note says why."""
        if not self._refused:
            logger.warning(f"no memory to share with the {self.name} processes ({error}): clips are copied from them")
        self.memory, self._refused = None, True

    def give_back(self, workers: Sequence[Worker]) -> None:
        """Keeps those that are idle, and ends the others."""
        with self._lock:
            for worker in workers:
                if worker.call is None and len(self._idle) < self.size and self.close.alive:
                    self._idle.append(worker)
                else:
                    worker.kill()


def _close(process: int, templates: list[Template], workers: list[Worker]) -> None:
    if process != os.getpid():  # a fork ends; the processes go on working for whoever started them
        return
    for worker in workers:
        worker.kill()
    for template in templates:
        template.kill()
    workers.clear()
    templates.clear()


class _Lost(RuntimeError):
    """A call that took too long, or whose process died twice."""


class _Calls:
    """One `map`: keeps processes busy and hands results over in order, until all are or the consumer has left."""

    def __init__(
        self,
        pool: ProcessPool,
        function: Callable[..., Any],
        arguments: Sequence[tuple[Any, ...]],
        time_limit: float | None,
        sizes: Sequence[int],
        consumer: Connection[Any, Any],
        results: queue.SimpleQueue[tuple[bool, Any]],
    ) -> None:
        self.pool, self.function, self.arguments, self.time_limit = pool, function, arguments, time_limit
        self.sizes, self.consumer, self.results = sizes, consumer, results
        self.workers: list[Worker] = []
        self.waiting = deque(range(len(arguments)))
        self.died: set[int] = set()
        self.done: dict[int, tuple[bool, Any]] = {}
        self.handed = self.taken = self.late = 0

    def run(self) -> None:
        try:
            while self.handed < len(self.arguments):
                self.feed()
                if not self.collect():
                    return
                self.expire()
                while self.handed in self.done:
                    self.results.put(self.done.pop(self.handed))
                    self.handed += 1
        except BaseException as error:
            self.results.put((False, error))
        finally:
            self.consumer.close()
            self.pool.give_back(self.workers)

    def feed(self) -> None:
        """Gives calls to idle processes, of which there are as many as there is work for."""
        busy = sum(worker.call is not None for worker in self.workers)
        while len(self.workers) < min(self.pool.size, busy + len(self.waiting)):
            self.workers.append(self.pool.take())
        for worker in self.workers:
            if worker.ready and worker.call is None and self.waiting and self.may_start(self.waiting[0]):
                call = self.waiting.popleft()
                what = call, self.function, self.arguments[call], self.time_limit
                try:
                    worker.start(*what, self.pool.memory, self.sizes[call])
                except OSError as error:
                    self.pool.share_no_more(error)
                    worker.start(*what)

    def may_start(self, call: int) -> bool:
        """Whether its result may be worked out now: the next one that is due always, others while there is room."""
        if call <= self.taken or not self.pool.shared:
            return call < self.taken + AHEAD * self.pool.size
        room = self.pool.shared // 2 - sum(self.sizes[self.taken : call + 1])
        return call < self.taken + AHEAD * self.pool.size and room >= 0

    def collect(self) -> bool:
        """Waits for processes until the next deadline, and takes what they have; False once the consumer has left."""
        soonest = min((worker.deadline for worker in self.workers), default=float("inf"))
        timeout = min(max(0.0, soonest - time.monotonic()), LONGEST_WAIT_S)
        events = wait([self.consumer, *(worker.connection for worker in self.workers)], timeout)
        if self.consumer in events:
            try:
                self.consumer.recv_bytes()
            except EOFError:
                return False
            self.taken += 1
        for worker in [worker for worker in self.workers if worker.connection in events]:
            call = worker.call
            try:
                result = worker.receive()
            except (EOFError, OSError):
                self.workers.remove(worker)
                self.replace(worker, call)
            else:
                if call is not None:
                    self.done[call] = result
        return True

    def replace(self, worker: Worker, call: int | None) -> None:
        """Puts the call of a process that died back to be tried once more; raises where none starts."""
        if not worker.ready and worker.template.killed:  # by `expire`, which counts
            return
        ready, status = worker.ready, worker.ended()
        if not ready:
            raise RuntimeError(f"the {self.pool.name} process does not start ({_ending(status)})")
        if call is not None and call in self.died:
            self.done[call] = False, _Lost(f"the {self.pool.name} process died twice ({_ending(status)})")
        elif call is not None:
            self.died.add(call)
            self.waiting.appendleft(call)

    def expire(self) -> None:
        """Kills the processes whose time is over; raises where too many do not become ready."""
        now = time.monotonic()
        for worker in [worker for worker in self.workers if worker.deadline <= now]:
            self.workers.remove(worker)
            worker.kill()
            if worker.call is not None:
                self.done[worker.call] = False, _Lost(f"{self.pool.name} took longer than {self.time_limit:g} s")
                continue
            worker.template.kill()  # it does not get so far as to fork
            self.late += 1
            if self.late > self.pool.size:
                raise RuntimeError(f"{self.pool.name} processes do not start (not ready in {START_S:g} s)")


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    return f"signal {-status}, {signal.Signals(-status).name}" + (": out of memory?" if status == -9 else "")
