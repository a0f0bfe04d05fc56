"""From examples to what an adapter keeps of their videos: decode in workers, encode once, in the examples' order."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from evalkit.api import Clip, Example, UserError, Views
from evalkit.clips import Decoded, Failure, Request, read_clips
from evalkit.identity import FeatureKey, identify
from evalkit.machine import cores
from evalkit.progress import track
from evalkit.store import Store

# What is done to the pixels (V, T, C, H, W) of one example before it is encoded; the seed is the example's own.
Variant = Callable[[Tensor, int], Tensor]


class Source(NamedTuple):
    """A part of a video that is decoded and encoded once, however many examples ask about it."""

    video: Path
    span: tuple[float, float] | None


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


@dataclass(frozen=True)
class Encoding:
    """One source, encoded.

    Attributes:
        features: per variant, what the adapter keeps: (V, ...) on the CPU. Empty where decoding failed.
        failure: why there are none, or None.
        decoder: how it was decoded, where that was not the default way; else None.
    """

    source: Source
    features: Mapping[str, Tensor] = field(default_factory=dict)
    failure: str | None = None
    decoder: str | None = None


@dataclass(frozen=True)
class Shelf:
    """Where the features of one encoder, kept one way, are stored.

    Attributes:
        key: all that changes a feature but for the video, the span and the variant.
    """

    store: Store
    key: FeatureKey

    def keys(self, source: Source, variants: Iterable[str]) -> dict[str, bytes]:
        """A key per variant, and `decoder` for what decoded the source; none where there is no such file."""
        try:
            video = identify(source.video)
        except OSError:  # decoding will say why
            return {}
        own = replace(self.key, video=video, span=source.span)
        names = {name: f"{name} {_seed(source)}" if name else "unchanged" for name in variants}
        return {name: replace(own, variant=text).digest() for name, text in {**names, "decoder": "decoder"}.items()}

    def find(self, source: Source, keys: Mapping[str, bytes]) -> Encoding | None:
        """What is stored of a source; None where any part of it is missing or damaged."""
        found = self.store.find(keys.values())
        if len(found) < len(keys):
            return None
        decoder = bytes(found[keys["decoder"]].tolist()).decode()
        features = {name: found[key] for name, key in keys.items() if name != "decoder"}
        return Encoding(source, features, decoder=decoder or None)

    def put(self, encoding: Encoding, keys: Mapping[str, bytes]) -> None:
        """Stores what was encoded."""
        for name, feature in encoding.features.items():
            self.store.put(keys[name], feature)
        text = torch.tensor(list((encoding.decoder or "").encode()), dtype=torch.uint8)
        self.store.put(keys["decoder"], text)


# A source that waits for its batch, with its clips, or with what was found of it.
_Waiting = tuple[Source, Decoded | Failure | Encoding]
# Sources that wait at most, so that what was found does not fill the memory while few clips are missing.
WAITING = 64


def resolve(views: Views, clip: Clip, overrides: Mapping[str, object]) -> Views:
    """The task's views with the user's `clip.*` words, and the encoder's own clip where none are given."""
    views = replace(views, **overrides)  # type: ignore[arg-type]
    return replace(
        views,
        frames=views.frames or clip.frames,
        size=views.size or clip.size,
        resize=views.resize or clip.resize,
    )


def sources(examples: Iterable[Example]) -> list[Source]:
    """The distinct parts of videos that examples ask about, in order of first appearance."""
    return list(dict.fromkeys(Source(example.video, example.span) for example in examples))


def shuffled(pixels: Tensor, seed: int) -> Tensor:
    """The frames in random order, the same order in every view."""
    order = torch.randperm(pixels.shape[1], generator=torch.Generator().manual_seed(seed))
    return pixels[:, order]


def single_frame(pixels: Tensor, seed: int) -> Tensor:
    """The middle frame, held for the whole clip."""
    middle = pixels.shape[1] // 2
    return pixels[:, middle : middle + 1].expand_as(pixels)


def unchanged(pixels: Tensor, seed: int) -> Tensor:
    """The clip itself."""
    return pixels


@dataclass(frozen=True)
class Reader:
    """How clips are read and encoded in one run.

    Attributes:
        views: frames and size resolved.
        workers: decoding processes; 0 means one per core.
        batch: clips that are gathered before they are encoded.
        time_limit: seconds that one video may take to decode.
    """

    views: Views
    workers: int
    batch: int
    time_limit: float
    cost: Cost

    def sample(self, wanted: Sequence[Source], count: int) -> list[Tensor]:
        """The first views, uint8 (T, C, H, W), of the first sources that decode, `count` of them or fewer."""
        found: list[Tensor] = []
        left = list(wanted)
        while left and len(found) < count:  # no more are decoded than are needed
            now, left = left[: count - len(found)], left[count - len(found) :]
            found += [clip.pixels[0] for clip in self._read(now) if isinstance(clip, Decoded)]
        return found

    def encode(
        self,
        wanted: Sequence[Source],
        keep: Callable[[Tensor], Tensor],
        label: str,
        variants: Mapping[str, Variant],
        shelf: Shelf | None = None,
    ) -> Iterator[Encoding]:
        """Each source's features in order. `keep` maps uint8 clips (N, T, C, H, W) to what is kept, (N, ...).

        What the shelf holds is not decoded, and what it lacks is put there.
        """
        keys = {source: shelf.keys(source, variants) for source in wanted} if shelf else {}
        stored = {one for one, own in keys.items() if own and shelf and all(key in shelf.store for key in own.values())}
        clips = self._timed(self._read([source for source in wanted if source not in stored]))
        waiting: list[_Waiting] = []
        held = 0
        for source in track(wanted, label, len(wanted)):
            found = shelf.find(source, keys[source]) if shelf and source in stored else None
            if found:
                self.cost.cache_hits += 1
                waiting.append((source, found))
            else:
                self.cost.cache_misses += 1
                # What was stored and is damaged is not among those that are being read.
                clip = next(self._timed(self._read([source])) if source in stored else clips)
                waiting.append((source, clip))
                held += _views(clip)
            if not held or held >= self.batch or len(waiting) >= WAITING:
                yield from self._flush(waiting, keep, variants, shelf, keys)
                waiting, held = [], 0
        yield from self._flush(waiting, keep, variants, shelf, keys)
        if shelf:
            shelf.store.flush()

    def _read(self, wanted: Sequence[Source]) -> Iterator[Decoded | Failure]:
        assert self.views.frames and self.views.size  # resolve() filled them in
        requests = [
            Request(source.video, source.span, self.views, self.views.frames, self.views.size) for source in wanted
        ]
        return read_clips(requests, workers=self.workers or cores(), time_limit=self.time_limit)

    def _timed(self, clips: Iterator[Decoded | Failure]) -> Iterator[Decoded | Failure]:
        """The clips, the time spent waiting for them counted as decoding."""
        while True:
            started = time.monotonic()
            clip = next(clips, None)
            self.cost.decode_s += time.monotonic() - started
            if clip is None:
                return
            yield clip

    def _flush(
        self,
        waiting: Sequence[_Waiting],
        keep: Callable[[Tensor], Tensor],
        variants: Mapping[str, Variant],
        shelf: Shelf | None,
        keys: Mapping[Source, Mapping[str, bytes]],
    ) -> Iterator[Encoding]:
        started = time.monotonic()
        good = [(source, clip) for source, clip in waiting if isinstance(clip, Decoded)]
        kept: dict[str, Iterator[Tensor]] = {}
        for name, variant in variants.items():
            if good:
                pixels = torch.cat([variant(clip.pixels, _seed(source)) for source, clip in good])
                features = keep(pixels)
                self.cost.encoder_forwards += len(pixels)
                kept[name] = iter(torch.split(features, [_views(clip) for _, clip in good]))
        self.cost.encode_s += time.monotonic() - started
        for source, clip in waiting:
            if isinstance(clip, Encoding):
                yield clip
            elif isinstance(clip, Failure):
                yield Encoding(source, failure=clip.reason)
            else:
                features_of = {name: next(rows) for name, rows in kept.items()}
                encoding = Encoding(source, features_of, decoder=None if clip.default_decoder else clip.decoder)
                if shelf and keys[source]:
                    shelf.put(encoding, keys[source])
                yield encoding


def report(failed: Sequence[Encoding], total: int) -> None:
    """Says which training videos were left out.

    Raises:
        UserError: all of them were, with the first reason.
    """
    if failed and len(failed) == total:
        raise UserError(
            f"none of the {total} training videos could be decoded; {failed[0].source.video}: {failed[0].failure}"
        )
    for one in failed[:3]:
        print(f"left out of training: {one.source.video}: {one.failure}", file=sys.stderr)
    if len(failed) > 3:
        print(f"left out of training: {len(failed) - 3} more", file=sys.stderr)


def _views(clip: Decoded | Failure) -> int:
    return len(clip.pixels) if isinstance(clip, Decoded) else 0


def _seed(source: Source) -> int:
    return zlib.crc32(f"{source.video.name} {source.span}".encode())
