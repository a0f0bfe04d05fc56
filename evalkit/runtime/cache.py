"""The cache folder: generated data and encoded features, all of which can be made again."""

from __future__ import annotations

import os
from pathlib import Path

TICK_S = 0.02  # the clock by which the kernel stamps files may be behind the one that is asked for the time


def folder() -> Path:
    """The cache folder: the variable EVALKIT_CACHE, else the platform's user cache. It need not exist yet."""
    if place := os.environ.get("EVALKIT_CACHE"):
        return Path(place).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("evalkit", appauthor=False)


def has_stored(since: float) -> bool:
    """Whether anything that a run goes on from was stored: generated films, features or answers.

    Args:
        since: seconds since the epoch.
    """
    since -= TICK_S
    for kind in ("mini", "features", "journals"):
        for root, _, files in os.walk(folder() / kind):
            for name in files:
                try:
                    if os.lstat(os.path.join(root, name)).st_mtime >= since:
                        return True
                except FileNotFoundError:
                    continue
    return False


def size() -> int:
    """Bytes in the cache's files; files that vanish meanwhile count as nothing."""
    total = 0
    for root, _, files in os.walk(folder()):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total
