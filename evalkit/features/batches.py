"""The features of many sources by row: in memory where they fit, else read again for every batch.

What does not fit comes from the store, a batch ahead of its use, or, where that is off or too small, from the videos. A
head that is trained on either ends the same, as far as the encoder gives a clip the same features in any batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from evalkit.errors import UserError
from evalkit.features import place
from evalkit.features.extract import Cost, FeatureExtractor, unchanged
from evalkit.features.feature_cache import FeatureCache, SourceFeatures
from evalkit.features.reader import FeatureReader
from evalkit.features.sources import Source
from evalkit.runtime.ranks import ALONE, Ranks
from evalkit.video.augment import AugmentedView
from evalkit.video.media import shown

_PLAIN = {"": unchanged}

T = TypeVar("T")


class FeatureSource(Protocol):
    """Features by row, from 0."""

    def read(self, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """The rows (B, V, ...) of each batch, in order; a row may come several times."""


@dataclass(frozen=True)
class InMemoryFeatures:
    """Features in memory (n, V, ...)."""

    features: Tensor

    def read(self, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """The rows (B, V, ...) of each batch."""
        return (self.features[list(batch)] for batch in batches)


@dataclass(frozen=True)
class StreamedFeatures:
    """Features that are read again for every batch: from the store, and from the videos where it lacks them.

    Attributes:
        sources: of each row.
        keys: of each row in the store; empty without a store.
        pin: batches lie in page-locked memory, from which a GPU takes them while the CPU goes on.
    """

    extractor: FeatureExtractor
    keep: Callable[[Tensor], Tensor]
    sources: Sequence[Source]
    feature_cache: FeatureCache | None
    keys: Sequence[bytes]
    pin: bool = False

    def read(self, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """The rows (B, V, ...) of each batch.

        Raises:
            UserError: a source that could be decoded before no longer can.
        """
        return _ahead(self._read(batches)) if self.feature_cache else self._read(batches)

    def _read(self, batches: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        distinct = [list(dict.fromkeys(batch)) for batch in batches]
        order = [row for rows in distinct for row in rows]
        extractor = replace(self.extractor, cost=Cost())
        # A store of its own, since this runs in a thread of its own.
        feature_cache = self.feature_cache and replace(self.feature_cache, store=self.feature_cache.store.another())
        keys = [self.keys[row] for row in order] if feature_cache else []
        encodings = extractor.encode([self.sources[row] for row in order], self.keep, "", _PLAIN, feature_cache, keys)
        try:
            for batch, rows in zip(batches, distinct, strict=True):
                first = _known(next(encodings))
                features = torch.empty(len(rows), *first.shape, dtype=first.dtype, pin_memory=self.pin)
                features[0] = first
                for i in range(1, len(rows)):
                    features[i] = _known(next(encodings))
                at = {row: i for i, row in enumerate(rows)}
                yield features if len(rows) == len(batch) else features[[at[row] for row in batch]]
        finally:
            encodings.close()  # type: ignore[attr-defined]
            if feature_cache:
                feature_cache.store.close()
            cost = self.extractor.cost
            cost += replace(extractor.cost, cache_hits=0, cache_misses=0)  # those of the run are counted once


class FeatureSet(NamedTuple):
    """The features of sources.

    Attributes:
        rows: of each source that could be decoded, one for each look.
        first: the first row of each source; those of its other looks follow.
        failed: what could not be decoded, or one of whose looks could not.
    """

    rows: FeatureSource
    first: dict[Source, int]
    failed: list[SourceFeatures]


def gather(
    reader: FeatureReader,
    wanted: Sequence[Source],
    looks: Sequence[AugmentedView | None],
    label: str,
    video: bool = False,
    ranks: Ranks = ALONE,
    divided: bool = False,
) -> FeatureSet:
    """The features of sources, or their uint8 video.

    Without a store, each of several processes encodes its share and hands it to the others; all call this at once then.

    Args:
        reader: of the features.
        wanted: distinct sources, plain.
        looks: the augmented views of each, a row each; None is the plain views, which are one row.
        label: of the progress.
        video: give uint8 video, for an adapter that trains the encoder.
        ranks: this process's place.
        divided: all processes need the features; else the first alone does, and the others get none.
    """
    feature_cache, extractor = reader.cache, reader.extractor
    sharing = ALONE if feature_cache else ranks
    if video:  # it stays on the CPU
        extractor = replace(extractor, gather=torch.cat)
    keep = _pixels if video else reader.keep
    views = [source._replace(look=look) for source in wanted for look in looks]
    keys = feature_cache.keys(views, _PLAIN) if feature_cache else []
    encode = partial(extractor.encode, keep=keep, label=label, variants=_PLAIN, feature_cache=feature_cache, keys=keys)
    encodings = _exchanged(extractor, views, encode, sharing)
    held: Tensor | None = None
    first: dict[Source, int] = {}
    good: list[int] = []
    failed: list[SourceFeatures] = []
    for number, source in enumerate(wanted):
        of_source = list(itertools.islice(encodings, len(looks)))
        if failures := [encoding for encoding in of_source if encoding.failure]:
            failed.append(failures[0])
            continue
        if not good:
            row, done = of_source[0].features[""], (number + 1) * len(looks)
            files = extractor.pool.stored
            holders = ranks.local_size if divided else 1
            where = place.chosen(row, len(views), len(wanted), label, feature_cache, reader.saving, holders, files)
            where = sharing.broadcast(where)
            if where == "memory" and (divided or ranks.first):
                held = torch.empty(len(views), *row.shape, dtype=row.dtype)
            elif where == "store" and feature_cache:
                encodings = _filled(extractor, views[done:], keep, label, feature_cache, keys[done:])
            elif where == "videos":
                keep, feature_cache = _pixels if video else replace(reader, cache=None).keep, None
                encodings = _exchanged(extractor, views[done:], partial(extractor.check, label=label), sharing)
        first[source] = len(good)
        if held is not None:
            for i, encoding in enumerate(of_source, len(good)):
                held[i] = encoding.features[""]
        good += range(number * len(looks), (number + 1) * len(looks))
    next(encodings, None)  # lets it flush
    if held is not None:
        return FeatureSet(InMemoryFeatures(held), first, failed)
    sources, own_keys = [views[i] for i in good], [keys[i] for i in good if feature_cache]
    return FeatureSet(
        StreamedFeatures(extractor, keep, sources, feature_cache, own_keys, reader.encoder.device.type == "cuda"),
        first,
        failed,
    )


def _exchanged(
    extractor: FeatureExtractor,
    wanted: Sequence[Source],
    read: Callable[[list[Source]], Iterator[SourceFeatures]],
    ranks: Ranks,
) -> Iterator[SourceFeatures]:
    """What `read` gives of each source, in order: in each process of its share, and of the others' from them."""
    if ranks.size == 1:
        yield from read([*wanted])
        return
    groups = extractor.groups(wanted)
    own = read([source for group in ranks.share(groups) for source in group])
    for start in range(0, len(groups), ranks.size):
        together = groups[start : start + ranks.size]
        count = len(together[ranks.rank]) if ranks.rank < len(together) else 0
        share = [_alone(encoding) for encoding in itertools.islice(own, count)]
        for of_process in ranks.gather_all(share):
            yield from of_process
    next(own, None)  # lets it flush


def _alone(encoding: SourceFeatures) -> SourceFeatures:
    """The same without the rest of its batch, which a view would take along to another process."""
    return replace(encoding, features={name: row.clone() for name, row in encoding.features.items()})


def _filled(
    extractor: FeatureExtractor,
    wanted: Sequence[Source],
    keep: Callable[[Tensor], Tensor],
    label: str,
    feature_cache: FeatureCache,
    keys: Sequence[bytes],
) -> Iterator[SourceFeatures]:
    """Each source in order, encoded if the store lacks it; stored ones are not read now and have no features."""
    stored = [feature_cache.holds(key) for key in keys]
    missing = [i for i, there in enumerate(stored) if not there]
    encodings = extractor.encode(
        [wanted[i] for i in missing], keep, label, _PLAIN, feature_cache, [keys[i] for i in missing]
    )
    for source, there in zip(wanted, stored, strict=True):
        extractor.cost.cache_hits += there
        yield SourceFeatures(source) if there else next(encodings)
    next(encodings, None)  # lets it flush


def _pixels(pixels: Tensor) -> Tensor:
    return pixels


def _known(encoding: SourceFeatures) -> Tensor:
    if encoding.failure:
        raise UserError(f"{shown(encoding.source.video)}: {encoding.failure}, though it could be decoded before")
    return encoding.features[""]


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each made by a thread while the one before it is used."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        try:
            coming = thread.submit(next, items, end)
            while (item := coming.result()) is not end:
                coming = thread.submit(next, items, end)
                yield item  # type: ignore[misc]
        finally:
            thread.submit(items.close)  # type: ignore[attr-defined]
