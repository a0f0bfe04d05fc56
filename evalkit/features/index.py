"""In-memory index of a store: where in its shards a key may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.features.shards import ALIGN, SLOT, key_prefix, list_shards

# Entries that wait before they are sorted in.
RECENT = 4096
# A place is a shard's number and an offset in units of ALIGN, in one 64-bit number.
OFFSET_BITS = 40


@dataclass
class _Shard:
    """A shard's name, and the bytes of its index file that have been read."""

    name: str
    known: int = 0


class Index:
    """Places of entries by the first 8 bytes of their keys.

    Keys are hashes, so that 8 bytes tell them apart. Sorted, an entry takes 16 bytes; in a dict it would take about
    130. A place is a hint, which the record there confirms.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shards: list[_Shard] = []  # by number; one that is gone keeps its number
        self._numbers: dict[str, int] = {}  # of the present ones, by name
        self._prefixes: NDArray[np.uint64] = np.empty(0, np.uint64)  # ascending
        self._places: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._recent: dict[int, int] = {}  # place by prefix: those not sorted in yet

    def candidates(self, key: bytes) -> Iterator[tuple[str, int]]:
        """Shards and byte offsets where a key may be, newest first as far as known."""
        prefix = key_prefix(key)
        if prefix in self._recent:
            yield self._location(self._recent[prefix])
        prefixes, places = self._prefixes, self._places
        last = int(np.searchsorted(prefixes, np.uint64(prefix), "right")) - 1
        while last >= 0 and prefixes[last] == prefix:
            yield self._location(int(places[last]))
            last -= 1

    def refresh(self) -> set[str]:
        """Read what was written to the folder, and drop entries of shards that are gone; returns their names."""
        listed = dict(list_shards(self.folder))
        gone = self._numbers.keys() - listed.keys()
        if gone:
            numbers = [self._numbers.pop(name) for name in gone]
            kept = ~np.isin(self._places >> np.uint64(OFFSET_BITS), np.array(numbers, np.uint64))
            self._prefixes, self._places = self._prefixes[kept], self._places[kept]
            self._recent = {p: place for p, place in self._recent.items() if place >> OFFSET_BITS not in numbers}
        slots = {name: self._new_slots(name, size) for name, size in sorted(listed.items())}
        self._add({name: new for name, new in slots.items() if len(new)})
        return gone

    def read_new(self, name: str, index_bytes: int) -> None:
        """Read the entries of one shard up to this size of its index file."""
        self._add({name: self._new_slots(name, index_bytes)})

    def add(self, name: str, slot: tuple[int, int, int]) -> None:
        """Add one entry of a shard: prefix, offset, size."""
        if len(self._recent) < self._most_recent:
            self._recent[slot[0]] = self._number(name) << OFFSET_BITS | slot[1] // ALIGN
        else:
            self._add({name: np.array([slot], SLOT)})

    def mark_read(self, name: str, index_bytes: int) -> None:
        """Take the entries of a shard up to this size of its index file as added."""
        self._shards[self._number(name)].known = index_bytes

    @property
    def _most_recent(self) -> int:
        return max(RECENT, len(self._prefixes) // 8)

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self._shards)
            self._shards.append(_Shard(name))
        return self._numbers[name]

    def _location(self, place: int) -> tuple[str, int]:
        return self._shards[place >> OFFSET_BITS].name, (place & ((1 << OFFSET_BITS) - 1)) * ALIGN

    def _new_slots(self, name: str, index_bytes: int) -> NDArray[Any]:
        """The slots of a shard that have not been read, up to this size of its index file."""
        shard = self._shards[self._number(name)]
        whole = index_bytes - index_bytes % SLOT.itemsize
        start = shard.known = min(shard.known, whole)
        if start == whole:
            return np.empty(0, SLOT)
        try:
            count = (whole - start) // SLOT.itemsize
            slots = np.fromfile(self.folder / f"{name}.index", SLOT, count=count, offset=start)
        except OSError:  # evicted meanwhile
            return np.empty(0, SLOT)
        # A shared file system may show the end of what another machine writes as zeros, or not at all, for a while.
        slots = slots[: len(slots) - int((slots["size"][::-1] != 0).argmax())] if slots["size"].any() else slots[:0]
        shard.known += slots.nbytes
        return slots

    def _add(self, slots: dict[str, NDArray[Any]]) -> None:
        """Add entries by shard, the newest last."""
        if not slots:
            return
        prefixes = np.concatenate([new["prefix"] for new in slots.values()])
        places = np.concatenate([_places(self._number(name), new["offset"]) for name, new in slots.items()])
        if len(prefixes) + len(self._recent) <= self._most_recent:
            self._recent.update(zip(prefixes.tolist(), places.tolist(), strict=True))
            return
        waiting = len(self._recent)
        all_prefixes = [self._prefixes, np.fromiter(self._recent.keys(), np.uint64, waiting), prefixes]
        all_places = [self._places, np.fromiter(self._recent.values(), np.uint64, waiting), places]
        self._prefixes, self._places = np.concatenate(all_prefixes), np.concatenate(all_places)
        order = np.argsort(self._prefixes, kind="stable")
        self._prefixes, self._places = self._prefixes[order], self._places[order]
        self._recent = {}


def _places(number: int, offsets: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # A damaged slot may hold any offset; what does not fit wraps within its own shard, where the header is checked.
    inside = (offsets // np.uint64(ALIGN)) & np.uint64((1 << OFFSET_BITS) - 1)
    return inside | np.uint64(number << OFFSET_BITS)
