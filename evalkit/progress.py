"""Progress of long work: a bar in a terminal, a plain line now and then where output is piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

EVERY = 15.0  # seconds between plain lines


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """The items, with progress on stderr."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
            yield from progress.track(items, total=total, description=label)
        return
    started = said = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        if time.monotonic() - said > EVERY:
            said = time.monotonic()
            print(f"{label}: {done} of {total}, {said - started:.0f} s", file=sys.stderr, flush=True)
    print(f"{label}: {done} of {total} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
