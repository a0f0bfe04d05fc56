"""Progress of long work: a bar in a terminal; lines with the time, now and then, where output is piped."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

from evalkit.runtime import notes

T = TypeVar("T")

FIRST, EVERY = 2.0, 15.0  # seconds until the first plain line, and between those that follow
SHOWN = 0.1  # seconds between changes of a bar

logger = logging.getLogger("evalkit")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; one that is not there, or is closed, is none."""
    return stream is not None and not getattr(stream, "closed", False) and stream.isatty()


def duration(seconds: float) -> str:
    """A time in s, min or h."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7_200 else f"{seconds / 3_600:.3g} h"


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """The items, with progress beside other notes: how many are done, how many a second, and how long the rest takes.

    Where output is piped, lines come by the clock, not with the items: the first item may take minutes.
    """
    started, done = time.monotonic(), 0

    def rate() -> str:
        return f"{done / max(time.monotonic() - started, 0.1):.2f} a second"

    if notes.are_shown() and is_terminal(sys.stderr):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        name, speed = TextColumn("{task.description:<28}"), TextColumn("{task.fields[rate]}")
        columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), speed)
        with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
            bar, changed = progress.add_task(label, total=total, rate=""), started
            for done, item in enumerate(items, 1):
                yield item
                if done == total or time.monotonic() - changed > SHOWN:
                    changed = time.monotonic()
                    progress.update(bar, completed=done, rate=rate())
        return

    def so_far() -> str:
        passed = time.monotonic() - started
        left = f", {duration(passed / done * (total - done))} left" if done else ""
        return f"{label}: {done:,} of {total:,}, {passed:.0f} s, {rate()}{left}"

    with _lines(so_far):
        for item in items:
            yield item
            done += 1
    if total:
        logger.info(f"{label}: {done:,} of {total:,} in {time.monotonic() - started:.0f} s, {rate()}")


@contextlib.contextmanager
def phase(label: str) -> Iterator[None]:
    """Says, every now and then, that the block is still at it: for work whose end is not known; nothing if it is short.

    Args:
        label: of the work, such as `read the data of kinetics400`.
    """
    started = time.monotonic()
    with _lines(lambda: f"{label}: {time.monotonic() - started:.0f} s so far"):
        yield


@contextlib.contextmanager
def _lines(line: Callable[[], str]) -> Iterator[None]:
    """Logs a line with the time of day by the clock while the block runs."""
    ended = threading.Event()

    def tell() -> None:
        wait = FIRST
        while not ended.wait(wait):
            logger.info(f"{time.strftime('%H:%M:%S')} {line()}")
            wait = EVERY

    # In this thread's context: whether its notes are shown counts for the lines, too.
    teller = threading.Thread(target=contextvars.copy_context().run, args=(tell,), daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
