"""A process that makes one call at a time, and the template that it is forked from: both ends of their connection."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.runtime import parent, shared
from evalkit.runtime.shared import Bytes, SharedMemory

# Seconds in which a process must be ready; it imports modules first, perhaps from a slow disk.
START_S = 120.0
# Elsewhere libraries that are imported may have started threads, or may not be used after a fork.
FORKS = sys.platform == "linux"
# Seconds that the kernel's timer takes at most; a longer limit is none.
LONGEST_S = 1e8


class Template:
    """A process that imports a module once and then forks workers; where it cannot fork, it becomes the only one.

    Args:
        imports: the module.
        memory: bytes that each worker may take beyond what is imported.
    """

    def __init__(self, imports: str, memory: int) -> None:
        self.lock, self.forked = threading.Lock(), False
        self.control, theirs = Pipe()
        code = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import evalkit.runtime.worker as w; w.main()"
        words = [json.dumps([str(place) for place in sys.path]), imports, str(theirs.fileno()), "fork" if FORKS else ""]
        words += [str(os.getpid()), str(memory)]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", code, *words],  # -P: else a json.py in the current folder would be run
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is ours to handle
            )

    def share(self, memory: SharedMemory) -> None:
        """Has the workers that are forked from now on map this memory."""
        with contextlib.suppress(OSError), self.lock:  # as in `fork`
            self.control.send(memory.size)
            send_handle(self.control, memory.descriptor, self.process.pid)

    @property
    def takes_more(self) -> bool:
        """Whether workers can be forked from it."""
        return self.process.poll() is None and (FORKS or not self.forked)

    @property
    def killed(self) -> bool:
        """Whether `kill` was called."""
        return self.control.closed

    def fork(self, connection: Connection[Any, Any]) -> None:
        """Has a worker serve the other end of a connection, as soon as the module is imported."""
        self.forked = True
        with contextlib.suppress(OSError), self.lock:  # it has died: the closed connection tells
            self.control.send(None)
            send_handle(self.control, connection.fileno(), self.process.pid)

    def end(self, pid: int, kill: bool) -> int:
        """The exit status of a worker, which is killed or has ended by itself; negative is a signal."""
        if pid == self.process.pid:
            return self.kill() if kill else self.process.wait()
        try:
            with self.lock:
                self.control.send((pid, kill))
                return int(self.control.recv())
        except (OSError, EOFError):  # the template has died, and its workers are the system's
            if kill and not self.killed:
                with contextlib.suppress(OSError):
                    _kill_other(pid)
            return -signal.SIGKILL

    def kill(self) -> int:
        """Ends the template and whatever it has forked; its exit status."""
        self.control.close()
        with contextlib.suppress(ProcessLookupError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


def _kill_other(pid: int) -> None:
    """Ends a process that is no child of this one, and waits for it: it may be writing to shared memory."""
    if not hasattr(os, "pidfd_open"):
        return os.kill(pid, signal.SIGKILL)
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [], 10.0)
    finally:
        os.close(process)


class Worker:
    """A process that makes one call at a time.

    Attributes:
        extent: shared memory for the result of its call, where there is some.
    """

    def __init__(self, template: Template) -> None:
        self.template, self.pid = template, 0
        self.extent: Bytes | None = None
        self.connection, theirs = Pipe()
        with theirs:
            template.fork(theirs)
        self.call: int | None = None
        self.deadline = time.monotonic() + START_S

    @property
    def ready(self) -> bool:
        """Whether it has said that it takes calls."""
        return bool(self.pid)

    @property
    def usable(self) -> bool:
        """Whether it is alive, as far as can be seen of an idle one."""
        return not self.connection.poll() if self.ready else self.template.process.poll() is None

    def start(
        self,
        call: int,
        function: Callable[..., Any],
        arguments: Any,
        time_limit: float | None,
        memory: SharedMemory | None = None,
        size: int = 0,
    ) -> None:
        """Sends it a call, with so many bytes of shared memory for the result, if as many are free.

        Raises:
            OSError: the system has no memory left to share.
        """
        self.extent = memory.take(size) if memory and size else None
        place = memory.place(self.extent) if memory and self.extent is not None else None
        self.call, self.deadline = call, time.monotonic() + (float("inf") if time_limit is None else time_limit)
        with contextlib.suppress(OSError):  # it has died: the closed connection tells
            self.connection.send((function, arguments, time_limit, place))

    def receive(self) -> tuple[bool, Any]:
        """Whether its call came to an end, and the result or what was raised; (True, None) when it has become ready.

        Raises:
            OSError, EOFError: it is dead.
        """
        message = self.connection.recv()
        self.deadline = float("inf")
        if not self.ready:
            self.pid = message
            return True, None
        sizes, places, data = message
        extent, self.extent = None if self.extent is None else self.extent.data, None
        buffers: list[memoryview] = []
        for size, place in zip(sizes, places, strict=True):
            if place is not None and extent is not None:
                buffers.append(extent[place : place + size])
                continue
            buffers.append(np.empty(size, np.uint8).data)
            if size:
                self.connection.recv_bytes_into(buffers[-1])
        self.call = None
        done, result = pickle.loads(data, buffers=buffers)
        return bool(done), result

    def ended(self) -> int:
        """The exit status of a process that has ended by itself."""
        self.connection.close()
        self.extent = None
        if self.ready:
            return self.template.end(self.pid, kill=False)
        try:
            return self.template.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return self.template.kill()

    def kill(self) -> None:
        """Ends it at once; where it is not ready, as soon as it notices that nobody is at the other end."""
        self.connection.close()
        if self.ready:
            self.template.end(self.pid, kill=True)
        elif not FORKS:
            self.template.kill()
        self.extent = None  # now that nobody writes there


# --- in the processes ------------------------------------------------------------------------------------------------


def main() -> None:
    """Runs a template.

    argv holds sys.path, a module, the descriptor of its connection, whether it forks, its parent, and each worker's
    bytes of memory.
    """
    template, starter, memory = os.getpid(), int(sys.argv[5]), int(sys.argv[6])
    gc.disable()  # nothing is garbage yet: saves a tenth
    __import__(sys.argv[2])
    gc.enable()
    gc.freeze()  # what is imported stays in memory that all workers share
    control: Connection[Any, Any] = Connection(int(sys.argv[3]))
    # what libraries have to say about a file is not for the user's terminal
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    while True:
        # Whatever the parent forked by itself holds the other end, too: it need not be closed when the parent ends.
        while not control.poll(parent.EVERY_S):
            if parent.gone(starter):
                os._exit(0)
        try:
            message = control.recv()
            if not isinstance(message, tuple):
                descriptor = recv_handle(control)
        except (EOFError, OSError):
            os._exit(0)
        if isinstance(message, int):
            with contextlib.suppress(OSError, ValueError):  # results go through the connection
                shared.attach(descriptor, message)
        elif message is not None:
            pid, kill = message
            if kill:
                os.kill(pid, signal.SIGKILL)
            control.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        elif not sys.argv[4]:
            parent.end_with(starter)
            limit_memory(memory)
            serve(Connection(descriptor))
        elif os.fork():
            os.close(descriptor)
        else:
            parent.killed_with(template)  # whose main thread forks, and lives as long as it does
            control.close()
            limit_memory(memory)
            serve(Connection(descriptor))


def limit_memory(most: int) -> None:
    """Lets this process take so many bytes beyond what it has: of its own data, not of the libraries that it maps."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        most += pages * resource.getpagesize()
    except (OSError, ValueError, IndexError):  # macOS
        most += resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def serve(connection: Connection[Any, Any]) -> None:
    """Makes the calls that come over a connection, until it is closed."""
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        # a thread, so that the process ends with its parent even in the middle of a call
        while True:
            try:
                calls.put(connection.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    connection.send(os.getpid())
    while True:
        call = calls.get()
        result: tuple[bool, Any]
        try:
            function, arguments, time_limit, place = pickle.loads(call)
            shared.begin(place)
            # should the parent be gone and this process be stuck where no thread runs, the kernel ends it
            signal.setitimer(signal.ITIMER_REAL, min(time_limit + 10, LONGEST_S) if time_limit else 0)
            result = True, function(*arguments)
        except Exception as error:
            error.add_note(traceback.format_exc())
            result = False, error
        signal.setitimer(signal.ITIMER_REAL, 0)
        data, buffers = _pickled(result)
        places = [shared.put(buffer) if buffer.nbytes else None for buffer in buffers]
        connection.send(([buffer.nbytes for buffer in buffers], places, data))
        for buffer, place in zip(buffers, places, strict=True):
            if buffer.nbytes and place is None:
                connection.send_bytes(buffer)
        shared.begin(None)


def _pickled(result: tuple[bool, Any]) -> tuple[bytes, list[memoryview]]:
    """A result as bytes, with the arrays in it apart; where it cannot be pickled, the error that says so."""
    buffers: list[memoryview] = []
    try:
        data = pickle.dumps(result, 5, buffer_callback=lambda buffer: buffers.append(buffer.raw()))
        if not result[0]:
            pickle.loads(data)  # an exception may not give what makes it
    except Exception:
        what = f"{type(result[1]).__name__}: {result[1]}"
        return pickle.dumps((False, RuntimeError(f"a result that cannot be pickled: {what}"))), []
    return data, buffers
