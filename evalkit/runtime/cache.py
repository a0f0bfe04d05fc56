"""Where evalkit keeps what it can make again: generated data and encoded features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import UserError

if TYPE_CHECKING:
    from evalkit.features.store import Store


def folder() -> Path:
    """The cache folder: the variable EVALKIT_CACHE, else the platform's user cache. It need not exist yet."""
    if place := os.environ.get("EVALKIT_CACHE"):
        return Path(place).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("evalkit", appauthor=False)


def features() -> Store:
    """The store of encoded features, no larger than the variable EVALKIT_CACHE_GB says; 50 without it.

    Raises:
        UserError: the variable is no number above 0.
    """
    from evalkit.features.store import Store

    given = os.environ.get("EVALKIT_CACHE_GB", "50")
    try:
        limit = int(float(given) * 1e9)
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise UserError(f"EVALKIT_CACHE_GB={given}: expected gigabytes, a number above 0")
    place = folder() / "features"
    try:
        place.mkdir(parents=True, exist_ok=True)
        return Store(place, limit)
    except OSError as error:
        raise UserError(
            f"the cache {place} cannot be used: {error.strerror}; EVALKIT_CACHE= names another folder, cache=off does "
            "without"
        ) from error


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
