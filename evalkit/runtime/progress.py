"""Progress of long work: a bar in a terminal, a plain line now and then where output is piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

EVERY = 15.0  # seconds between plain lines


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Yields the items and shows progress on stderr, where there is one: how many are done, and how many a second."""
    stream = sys.stderr  # None in a process without a console
    if stream is None:
        yield from items
        return
    started = shown = time.monotonic()

    def rate(done: int) -> str:
        return f"{done / max(time.monotonic() - started, 0.1):.2f} a second"

    if stream.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]}"),
        )
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
        if time.monotonic() - shown > EVERY:
            shown = time.monotonic()
            print(f"{label}: {done} of {total}, {shown - started:.0f} s, {rate(done)}", file=stream, flush=True)
    taken = time.monotonic() - started
    print(f"{label}: {done} of {total} in {taken:.0f} s, {rate(done)}", file=stream, flush=True)
