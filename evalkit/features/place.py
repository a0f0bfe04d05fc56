"""Where training reads features from: memory, the store, or the videos, which are then encoded in each epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from evalkit.api import FeatureSpec
from evalkit.features.feature_cache import FeatureCache
from evalkit.runtime import machine

logger = logging.getLogger("evalkit")

# The share of the free memory that features may take.
MEMORY_SHARE = 0.5

Place = Literal["memory", "store", "videos"]


@dataclass(frozen=True)
class Room:
    """Available space for features, in bytes.

    Attributes:
        free: of memory.
        limit: of the store as a whole; None where it has none, 0 without a store.
        disk: that are free on the store's disk.
    """

    free: int
    limit: int | None
    disk: int

    @property
    def memory(self) -> int:
        """Bytes that features may take in memory."""
        return int(MEMORY_SHARE * self.free)

    @property
    def store(self) -> int:
        """Bytes that they may take in the store."""
        return self.disk if self.limit is None else min(self.limit, self.disk)

    def place(self, row: Tensor, rows: int, spec: FeatureSpec | None) -> Place:
        """Where this many rows of this size are read from; pixels are never stored and have no `spec`."""
        if rows * row.nbytes <= self.memory:
            return "memory"
        return "store" if spec and stored_bytes(row, rows, spec) <= self.store else "videos"


def room(cache: FeatureCache | None, holders: int = 1) -> Room:
    """The space that is available now.

    Args:
        cache: the features that are stored; None where none are.
        holders: processes of this machine that hold as much, this one among them.
    """
    limit, disk = (cache.store.limit, cache.store.room()) if cache else (0, 0)
    return Room(machine.free_memory() // holders, limit, disk)


def stored_bytes(row: Tensor, rows: int, spec: FeatureSpec) -> int:
    """Size on disk of this many rows of this shape, in bytes."""
    return rows * (_int8_bytes(row.shape) if spec.layout == "int8" else row.nbytes)


def chosen(
    row: Tensor,
    rows: int,
    sources: int,
    label: str,
    cache: FeatureCache | None,
    saving: Collection[str] = (),
    holders: int = 1,
    files: bool = False,
) -> Place:
    """Chooses where this many rows are read from; logs the choice unless it is memory.

    Args:
        row: one of them.
        rows: how many there are.
        sources: parts of videos that they are of.
        label: of the message.
        cache: the features that are stored; None where none are.
        saving: settings of the adapter that make features smaller.
        holders: processes of this machine that hold as much, this one among them.
        files: whether the features are there already, in files of the user's, which stand for the videos.
    """
    there, spec = room(cache, holders), cache.key.feature_spec if cache else None
    place = there.place(row, rows, spec)
    kind = "video" if row.dtype == torch.uint8 else "features"
    message = f"{label}: {_gigabytes(rows * row.nbytes)} of {kind}, {_gigabytes(there.free)} of memory free"
    if place == "store":
        logger.info(f"{message}: they are read from the store for every batch")
    elif files and place == "videos":
        logger.info(f"{message}: they are read from their files for every batch")
    elif place == "videos":
        how = "decoded" if kind == "video" else "decoded and encoded"
        advice = "" if kind == "video" else f"; {instead(row, rows, spec, there, saving)}"
        logger.warning(f"{message}: {sources} parts of videos are {how} again in each epoch{advice}")
    return place


def instead(row: Tensor, rows: int, spec: FeatureSpec | None, there: Room, saving: Collection[str]) -> str:
    """Advice on avoiding repeated encoding if features fit nowhere.

    Args:
        row: one of them.
        rows: how many there are.
        spec: of them; None where none are stored.
        there: the room for them.
        saving: settings of the adapter that make features smaller.
    """
    if spec is None:
        return "cache=on stores them"
    size = stored_bytes(row, rows, spec)
    free = f" on another disk: {_gigabytes(there.disk)} are free for them on this one" if size > there.disk else ""
    mend = f"EVALKIT_CACHE_GB= above {_gigabytes(size)} stores them{free}"
    smaller = _smaller(row, rows, there.store, spec, saving)
    return f"{mend}; or {smaller}" if smaller else mend


def _smaller(row: Tensor, rows: int, room: int, spec: FeatureSpec, saving: Collection[str]) -> str:
    """The settings with which the features fit and lose the least, and their size; empty if there are none."""
    shapes: dict[str, tuple[int, ...]] = {"": row.shape}
    if spec.what == "tokens" and not spec.grid and "token_grid" in saving:
        side = math.isqrt(row.shape[-2])
        grids = [grid for grid in range(side - 1, 0, -1) if side**2 == row.shape[-2] and side % grid == 0]
        shapes |= {f"adapter.token_grid={grid}": (*row.shape[:-2], grid**2, row.shape[-1]) for grid in grids}
    sizes: dict[str, int] = {}
    for words, shape in shapes.items():
        if words:
            sizes[words] = rows * (_int8_bytes(shape) if spec.layout == "int8" else math.prod(shape) * row.itemsize)
        if "stored" in saving and spec.layout != "int8":
            sizes[f"{words} adapter.stored=int8".strip()] = rows * _int8_bytes(shape)
    fitting = {words: size for words, size in sizes.items() if size <= room}
    if not fitting:
        return ""
    words = max(fitting, key=lambda name: fitting[name])
    return f"{words}, which takes {_gigabytes(fitting[words])}"


def _int8_bytes(shape: Sequence[int]) -> int:
    """Bytes of a tensor of this shape with 8 bits per number and a scale per vector."""
    return math.prod(shape) + 4 * math.prod(shape[:-1])


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
