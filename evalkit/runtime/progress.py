"""Progress of long work: a bar in a terminal, a note now and then where output is piped."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from evalkit.runtime import notes

T = TypeVar("T")

EVERY = 15.0  # seconds between plain lines

logger = logging.getLogger("evalkit")


def _is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; one that is not there, or is closed, is none."""
    return stream is not None and not getattr(stream, "closed", False) and stream.isatty()


def duration(seconds: float) -> str:
    """A time in s, min or h."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7_200 else f"{seconds / 3_600:.3g} h"


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """The items, with progress beside other notes: how many are done, and how many a second."""
    started = noted = time.monotonic()

    def rate(done: int) -> str:
        return f"{done / max(time.monotonic() - started, 0.1):.2f} a second"

    if notes.are_shown() and _is_terminal(sys.stderr):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        name, speed = TextColumn("{task.description:<28}"), TextColumn("{task.fields[rate]}")
        columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), speed)
        with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
            bar = progress.add_task(label, total=total, rate="")
            for done, item in enumerate(items, 1):
                yield item
                progress.update(bar, completed=done, rate=rate(done))
        return
    done = 0
    for item in items:
        yield item
        done += 1
        if time.monotonic() - noted > EVERY:
            noted = time.monotonic()
            left = (noted - started) / done * (total - done)
            logger.info(f"{label}: {done} of {total}, {noted - started:.0f} s, {rate(done)}, {duration(left)} left")
    taken = time.monotonic() - started
    logger.info(f"{label}: {done} of {total} in {taken:.0f} s, {rate(done)}")
