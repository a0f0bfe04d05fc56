"""Arithmetic on several cores at once, each with work of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def map_on_cores(function: Callable[[T], R], items: Iterable[T], most: int | None = None) -> Iterator[R]:
    """Applies a function to each item in a thread pool, in order; torch computes each item in one thread.

    If all threads shared each small product instead, waiting for each other would take many times the product itself.

    Args:
        function: computes one item with torch; called from several threads at once.
        items: computed as many at a time as torch has threads.
        most: upper limit on the number of threads; None for no further limit.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, most or threads)) as pool:
            yield from pool.map(function, items)
    finally:
        torch.set_num_threads(threads)
