"""Test processes that die or hang: the test fails, the others are run, and the suite ends.

Hooks that tests/conftest.py takes over.
"""

import faulthandler
import os
import threading
import time
from collections.abc import Generator
from typing import Any, TextIO

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.patience import patience

# Seconds that a test may take on an idle machine; the slowest takes a tenth of it.
LIMIT = float(os.environ.get("EVALKIT_TEST_LIMIT", "300"))


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Whole files, as `--dist loadfile` hands them out, also after a process has died.

    xdist's own puts all files of a dead process back, those that are done and the test that killed it included: the
    test kills the next process too, and a file without a test left is handed out as nothing, after which a process
    waits forever. And of two new processes it hands files to the one that has not collected the tests yet.
    """

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
    """Ends this process, with the stack of each thread, when a test takes longer than the machine explains."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._started: float | None = None
        threading.Thread(target=self._prolong, daemon=True).start()

    def start(self) -> None:
        with self._lock:
            self._started = time.monotonic()
            faulthandler.dump_traceback_later(LIMIT, exit=True, file=self._output)

    def stop(self) -> None:
        with self._lock:
            self._started = None
            faulthandler.cancel_dump_traceback_later()

    def _prolong(self) -> None:
        """Moves the alarm while a test runs, by how slow the machine is at that time."""
        while True:
            time.sleep(LIMIT / 30)
            with self._lock:
                if self._started is None:
                    continue
            limit = patience(LIMIT)
            with self._lock:
                if self._started is not None:
                    left = max(0.01, self._started + limit - time.monotonic())
                    faulthandler.dump_traceback_later(left, exit=True, file=self._output)


WATCH = pytest.StashKey[Watch]()


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    config.stash[WATCH] = Watch(os.fdopen(os.dup(2), "w"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    watch = item.config.stash[WATCH]
    watch.start()
    try:
        return (yield)
    finally:
        watch.stop()
