"""`evalkit cache [prune=GB]`: shows the cache, and removes the least recently used."""

from __future__ import annotations

from evalkit.config.values import convert
from evalkit.errors import UserError, counted
from evalkit.features.store import open_default
from evalkit.runtime import cache


def main(words: list[str]) -> int:
    """Prints what is stored, after pruning where `prune=` says so.

    Raises:
        UserError: a word is none that it takes.
    """
    store = open_default()
    if words:
        key, _, value = words[0].partition("=")
        try:
            limit = convert(value, float) * 1e9
        except ValueError:
            limit = -1.0
        if len(words) != 1 or key != "prune" or limit < 0:
            raise UserError(
                f"cache takes nothing or prune=GIGABYTES, got {' '.join(words)}: prune=10 leaves ten gigabytes, "
                "prune=0 none"
            )
        print(f"freed {store.prune(int(min(limit, 2**62))) / 1e9:.2f} GB")
    usage = store.usage()
    print(
        f"{store.folder}: {usage.bytes / 1e9:.2f} GB of {(store.limit or 0) / 1e9:g}, "
        f"{counted(usage.entries, 'feature')}"
    )
    print(f"{cache.folder()}: {cache.size() / 1e9:.2f} GB with generated films")
    return 0
