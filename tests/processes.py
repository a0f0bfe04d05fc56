"""Test processes that die or hang: the test fails, the others are run, and the suite ends.

And what makes them start faster.

Hooks that tests/conftest.py takes over.
"""

import contextlib
import faulthandler
import gc
import os
import signal
import threading
import time
from collections.abc import Generator
from typing import Any, TextIO

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.patience import patience

# Seconds that a test may take on an idle machine; the slowest takes a fifth of it.
LIMIT = float(os.environ.get("EVALKIT_TEST_LIMIT", "300"))
# As many times that on a machine that is slow, and no more: where a test hangs, the suite ends all the same.
SLOWEST = 3
# As many times that may lie between two reports of all test processes, which may have to start anew.
BETWEEN = 8


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Whole files, as `--dist loadfile` hands them out, also after a process has died.

    xdist's own puts all files of a dead process back, those that are done and the test that killed it included: the
    test kills the next process too, and a file without a test left is handed out as nothing, after which a process
    waits forever. And of two new processes it hands files to the one that has not collected the tests yet.

    Files are handed out in the order in which they were collected.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _reschedule(self, node: Any) -> None:
        if node in self.registered_collections:
            super()._reschedule(node)

    def remove_node(self, node: Any) -> str | None:
        """Returns the test that a process died of, and hands out the rest of its files again."""
        files: dict[str, dict[str, bool]] = self.assigned_work.pop(node)
        left = {file: [test for test, done in tests.items() if not done] for file, tests in files.items()}
        crashed = next((tests.pop(0) for tests in left.values() if tests), None)
        if crashed is not None:
            self.workqueue.update({file: dict.fromkeys(tests, False) for file, tests in left.items() if tests})
            for other in self.assigned_work:
                self._reschedule(other)
        return crashed


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    return FileScheduling(config, log) if config.getoption("dist") == "loadfile" else None


class Watch:
    """Ends this process, with the stack of each thread, when something takes longer than the machine explains.

    Args:
        output: for the stacks.
        limit: seconds that it may take on an idle machine.
    """

    def __init__(self, output: TextIO, limit: float) -> None:
        self._output, self._limit = output, limit
        self._lock = threading.Lock()
        self._started: float | None = None
        threading.Thread(target=self._prolong, daemon=True).start()

    def start(self) -> None:
        with self._lock:
            self._started = time.monotonic()
            faulthandler.dump_traceback_later(self._limit, exit=True, file=self._output)

    def stop(self) -> None:
        with self._lock:
            self._started = None
            faulthandler.cancel_dump_traceback_later()

    def _prolong(self) -> None:
        """Moves the alarm while a test runs, by how slow the machine is at that time."""
        while True:
            time.sleep(self._limit / 30)
            with self._lock:
                if self._started is None:
                    continue
            limit = min(patience(self._limit), SLOWEST * self._limit)
            with self._lock:
                if self._started is not None:
                    left = max(0.01, self._started + limit - time.monotonic())
                    faulthandler.dump_traceback_later(left, exit=True, file=self._output)


WATCH = pytest.StashKey[Watch]()


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    # A shell's background jobs ignore Ctrl-C, and nohup's a hangup; so would all that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    leads = _leads(config)
    config.stash[WATCH] = watch = Watch(os.fdopen(os.dup(2), "w"), BETWEEN * LIMIT if leads else LIMIT)
    if leads:
        config.pluginmanager.register(_Reports(watch))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imports make millions of objects that stay: the garbage collector looks through them neither now nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def _leads(config: pytest.Config) -> bool:
    """Whether this process hands the tests out to others."""
    return config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")


class _Reports:
    """Expects the next report in time: test processes may also hang between two tests."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def pytest_runtest_logreport(self) -> None:
        self._watch.start()

    def pytest_sessionfinish(self) -> None:
        self._watch.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    watch = item.config.stash[WATCH]
    watch.start()
    try:
        return (yield)
    finally:
        watch.stop()
        _give_way()


def _give_way() -> None:
    """Lets other processes run, too: SVT-AV1, where root encodes with it, makes this one a real-time process.

    A test that then keeps its core busy would leave no time to any other process on it, for as long as it takes.
    """
    if not hasattr(os, "sched_setscheduler"):
        return
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(OSError):  # it has ended
            if os.sched_getscheduler(thread) != os.SCHED_OTHER:
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
