"""From examples to features: decoding in worker processes, encoding each clip once, in the examples' order."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from evalkit.api import Clip, Views
from evalkit.features.feature_cache import FeatureCache, SourceFeatures
from evalkit.features.forward import Arriving
from evalkit.features.sources import Source, seed
from evalkit.features.writer import StoreWriter
from evalkit.runtime.machine import give_back_memory
from evalkit.runtime.progress import track
from evalkit.video.clips import Decoded, Failure, Request
from evalkit.video.decode import Decoder
from evalkit.video.workers import ClipReader

logger = logging.getLogger("evalkit")

# What is done to the pixels (V, T, C, H, W) of one example before it is encoded; the seed is the example's own.
Variant = Callable[[Tensor, int], Tensor]

NOT_FINITE = "the encoder gives NaN or infinity of it: its weights are damaged, or too large for half floats"


@dataclass
class Cost:
    """What a run spent: seconds of each phase, forward passes in clips, and parts of videos found stored and not."""

    decode_s: float = 0.0
    encode_s: float = 0.0
    fit_s: float = 0.0
    score_s: float = 0.0
    encoder_forwards: int = 0
    cache_hits: int = 0
    cache_misses: int = 0

    def __iadd__(self, other: Cost) -> Cost:
        self.decode_s += other.decode_s
        self.encode_s += other.encode_s
        self.fit_s += other.fit_s
        self.score_s += other.score_s
        self.encoder_forwards += other.encoder_forwards
        self.cache_hits += other.cache_hits
        self.cache_misses += other.cache_misses
        return self

    def add_counts(self, others: Iterable[Cost]) -> None:
        """Takes in what other processes of the run did; their seconds passed at the same time as these."""
        for other in others:
            self.encoder_forwards += other.encoder_forwards
            self.cache_hits += other.cache_hits
            self.cache_misses += other.cache_misses


# A source that waits for its batch, with its keys, and with its clips or what was found of it.
_Waiting = tuple[Source, bytes, Decoded | Failure | SourceFeatures]
WINDOWS_TOGETHER = 16  # neighboring windows of a video that are decoded together, from one key frame on
TRIM_EVERY = 512  # clips that are encoded until memory is given back
WAITING = 64  # sources at most, so that what was found does not fill the memory while few clips are missing


def unchanged(pixels: Tensor, seed: int) -> Tensor:
    """The unchanged clip."""
    return pixels


@dataclass(frozen=True)
class FeatureExtractor:
    """Reads and encodes the clips of a run.

    Attributes:
        views: frames and size resolved.
        pool: the decoding processes, which live until `close`; or files that hold the features of all there is.
        batch: clips that are gathered before they are encoded.
        decoder: what reads the frames where it is exact.
        clip: the encoder's, for how it interpolates and centers.
        gather: makes one batch (N, T, C, H, W) of clips, as `EncoderRunner.gather` does on its device.
    """

    views: Views
    pool: ClipReader
    batch: int
    cost: Cost
    decoder: Decoder = "pyav"
    clip: Clip = Clip()
    gather: Callable[[list[Tensor]], Tensor] = torch.cat

    def close(self) -> None:
        """Ends the decoding processes."""
        self.pool.close()

    def sample(self, wanted: Sequence[Source], count: int) -> list[Tensor]:
        """The first views, uint8 (T, C, H, W), of the first sources that decode, `count` of them or fewer."""
        clips: list[Tensor] = []
        left = list(wanted)
        while left and len(clips) < count:  # no more are decoded than are needed
            now, left = left[: count - len(clips)], left[count - len(clips) :]
            clips += [clip.pixels[0] for clip in self.read(now) if isinstance(clip, Decoded)]
        return clips

    def check(self, wanted: Sequence[Source], label: str) -> Iterator[SourceFeatures]:
        """Each source in order, without features, or why it cannot be decoded."""
        clips = self._timed(self.read(wanted))
        for source, clip in zip(wanted, track(clips, label, len(wanted)), strict=True):
            yield SourceFeatures(source, failure=clip.reason if isinstance(clip, Failure) else None)

    def encode(
        self,
        wanted: Sequence[Source],
        keep: Callable[[Tensor], Tensor],
        label: str,
        variants: Mapping[str, Variant],
        feature_cache: FeatureCache | None = None,
        keys: Sequence[bytes] = (),
    ) -> Iterator[SourceFeatures]:
        """Each source's features in order. `keep` maps uint8 clips (N, T, C, H, W) to what is kept, (N, ...).

        Features in the store are not decoded again; others are added to it.

        Args:
            label: of the progress on stderr; empty shows none.
            keys: of each source in the store, if they are known.
        """
        keys = keys or (feature_cache.keys(wanted, variants) if feature_cache else [b""] * len(wanted))
        there = self._there(wanted, variants, feature_cache, keys)
        encoded = 0
        arriving: Iterator[SourceFeatures] = iter(())  # of the batch before, which a GPU computes meanwhile
        with StoreWriter(feature_cache.store) if feature_cache else nullcontext() as writer:
            shown = track(there, label, len(wanted)) if label else there
            for waiting in self._batches(zip(wanted, keys, shown, strict=True)):
                stored = sum(self.pool.stored or isinstance(clip, SourceFeatures) for _, _, clip in waiting)
                self.cost.cache_hits += stored
                self.cost.cache_misses += len(waiting) - stored
                kept = self._launch(waiting, keep, variants)
                yield from arriving
                arriving = self._arrive(waiting, kept, feature_cache, writer)
                if not any(features.later for features in kept.values()):
                    yield from arriving
                encoded += sum(_views(clip) for _, _, clip in waiting)
                if encoded >= TRIM_EVERY:  # small features, among what each batch takes, keep it from being freed
                    give_back_memory()
                    encoded = 0
            yield from arriving
        if feature_cache:
            feature_cache.store.flush()

    def _batches(self, arriving: Iterable[_Waiting]) -> Iterator[list[_Waiting]]:
        """Sources that are encoded together, in order: no more views than a batch has, unless one source has more."""
        waiting: list[_Waiting] = []
        held = 0
        for entry in arriving:
            views = _views(entry[-1])
            if held and held + views > self.batch:
                yield waiting
                waiting, held = [], 0
            waiting.append(entry)
            held += views
            if not held or held >= self.batch or len(waiting) >= WAITING:
                yield waiting
                waiting, held = [], 0
        if waiting:
            yield waiting

    def _there(
        self,
        wanted: Sequence[Source],
        variants: Iterable[str],
        feature_cache: FeatureCache | None,
        keys: Sequence[bytes],
    ) -> Iterator[Decoded | Failure | SourceFeatures]:
        """The stored features of each source, in order, or its decoded clips."""
        stored = [bool(feature_cache and feature_cache.holds(source_keys)) for source_keys in keys]
        clips = self._timed(self.read([source for source, known in zip(wanted, stored, strict=True) if not known]))
        read: dict[int, SourceFeatures | None] = {}
        again = clips
        for i in range(len(wanted)):
            if feature_cache and stored[i] and i not in read:
                read[i] = feature_cache.find(wanted[i], variants, keys[i])
                if not read[i]:  # damaged or evicted, as others may be: those that come soon are read together
                    soon = [j for j in range(i + 1, min(i + WAITING, len(wanted))) if stored[j]]
                    read |= {j: feature_cache.find(wanted[j], variants, keys[j]) for j in soon}
                    again = self._timed(self.read([wanted[j] for j, features in read.items() if not features]))
            yield read.pop(i, None) or next(again if stored[i] else clips)

    def read(self, wanted: Sequence[Source]) -> Iterator[Decoded | Failure]:
        """The clips of each source in order.

        Neighbors that are augmented views of the same clip are read together, and so are windows of a video.
        """
        groups = self.groups(wanted)
        for group, clip in zip(groups, self.pool.read([*map(self._request, groups)]), strict=True):
            if isinstance(clip, Decoded):
                yield from _each_of(clip, len(group))
            elif group[0].look:  # what is wrong with one view is wrong with all
                yield from [clip] * len(group)
            elif len(group) == 1:
                yield clip
            else:  # one of the windows may be at fault
                yield from self.pool.read([self._request([source]) for source in group])

    def groups(self, wanted: Sequence[Source]) -> list[list[Source]]:
        """The sources in order, those in one list that are read together."""
        if not self.views.window and not any(source.look for source in wanted):
            return [[source] for source in wanted]  # in a moment, though there be a million
        return [group for _, run in itertools.groupby(wanted, self._together) for group in self._divided([*run])]

    def _together(self, source: Source) -> Source:
        """What is equal for sources that may be read together, where they are neighbors."""
        return source._replace(look=None) if source.look else source._replace(span=None)

    def _divided(self, run: list[Source]) -> Iterator[list[Source]]:
        size = len(run) if run[0].look else WINDOWS_TOGETHER if self.views.window else 1
        return (run[i : i + size] for i in range(0, len(run), size))

    def _request(self, group: Sequence[Source]) -> Request:
        assert self.views.frames is not None and self.views.size is not None  # resolve() filled them in
        first = group[0]
        windows = tuple(source.span for source in group if source.span) if self.views.window else ()
        return Request(
            first.video,
            first.span,
            self.views,
            self.views.frames,
            self.views.size,
            tuple(source.look for source in group if source.look),
            self.decoder,
            self.clip,
            () if first.look else windows,
        )

    def _timed(self, clips: Iterator[Decoded | Failure]) -> Iterator[Decoded | Failure]:
        """The clips, the time spent waiting for them counted as decoding."""
        while True:
            started = time.monotonic()
            clip = next(clips, None)
            self.cost.decode_s += time.monotonic() - started
            if clip is None:
                return
            yield clip

    def _launch(
        self, waiting: Sequence[_Waiting], keep: Callable[[Tensor], Tensor], variants: Mapping[str, Variant]
    ) -> dict[str, Arriving]:
        """The features of all clips that wait, by variant; a GPU may still be at work on them."""
        started = time.monotonic()
        good = [(source, clip) for source, _, clip in waiting if isinstance(clip, Decoded)]
        kept: dict[str, Arriving] = {}
        for name, variant in variants.items():
            if good:
                parts = [variant(clip.pixels, seed(source)) for source, clip in good]
                pixels = parts[0] if len(parts) == 1 else self.gather(parts)
                kept[name] = Arriving(keep(pixels), parts)
                self.cost.encoder_forwards += 0 if self.pool.stored else len(pixels)
        self.cost.encode_s += time.monotonic() - started
        return kept

    def _arrive(
        self,
        waiting: Sequence[_Waiting],
        kept: Mapping[str, Arriving],
        feature_cache: FeatureCache | None,
        writer: StoreWriter | None,
    ) -> Iterator[SourceFeatures]:
        """What was launched, source by source, on its way to the store."""
        started = time.monotonic()
        views = [_views(clip) for _, _, clip in waiting if isinstance(clip, Decoded)]
        rows = {name: features.split(views) for name, features in kept.items()}
        self.cost.encode_s += time.monotonic() - started
        for source, keys, clip in waiting:
            if isinstance(clip, SourceFeatures):
                yield clip
            elif isinstance(clip, Failure):
                yield SourceFeatures(source, failure=clip.reason)
            else:
                of_source = {name: next(each) for name, each in rows.items()}
                if not all(finite for _, finite in of_source.values()):
                    yield SourceFeatures(source, failure=NOT_FINITE)
                    continue
                features = {name: row for name, (row, _) in of_source.items()}
                encoding = SourceFeatures(source, features, decoder=None if clip.default_decoder else clip.decoder)
                yield feature_cache.put(encoding, keys, writer) if feature_cache and writer and keys else encoding


def _each_of(clip: Decoded, count: int) -> Iterator[Decoded]:
    """Splits the clips of several sources that were read together."""
    views, clips = len(clip.pixels) // count, len(clip.times) // count
    for i in range(count):
        pixels, times = clip.pixels[i * views : (i + 1) * views], clip.times[i * clips : (i + 1) * clips]
        yield replace(clip, pixels=pixels, times=times)


def _views(clip: Decoded | Failure | SourceFeatures) -> int:
    return len(clip.pixels) if isinstance(clip, Decoded) else 0
