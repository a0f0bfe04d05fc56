"""Arithmetic on several cores at once, each with work of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def map_on_cores(function: Callable[[T], R], items: Iterable[T], most: int | None = None) -> Iterator[R]:
    """What the function makes of each item, in their order; torch computes each in one thread.

    Threads that share every step of a small product wait for each other at its end, for many times what it takes.

    Args:
        function: of an item; it computes with torch, and may be at several items at once.
        items: as many at once as torch has threads.
        most: of them at once.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, most or threads)) as pool:
            yield from pool.map(function, items)
    finally:
        torch.set_num_threads(threads)
