"""From examples to what an adapter keeps of their videos: decode in workers, encode once, in the examples' order."""

from __future__ import annotations

import os
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
from evalkit.progress import track

# What is done to the pixels (V, T, C, H, W) of one example before it is encoded; the seed is the example's own.
Variant = Callable[[Tensor, int], Tensor]


class Source(NamedTuple):
    """A part of a video that is decoded and encoded once, however many examples ask about it."""

    video: Path
    span: tuple[float, float] | None


@dataclass
class Cost:
    """What a run spent: seconds of each phase and forward passes, counted in clips."""

    decode_s: float = 0.0
    encode_s: float = 0.0
    fit_s: float = 0.0
    score_s: float = 0.0
    encoder_forwards: int = 0


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


def resolve(views: Views, clip: Clip, overrides: Mapping[str, object]) -> Views:
    """The task's views with the user's `clip.*` words, and the encoder's own frames and size where none are given."""
    views = replace(views, **overrides)  # type: ignore[arg-type]
    return replace(views, frames=views.frames or clip.frames, size=views.size or clip.size)


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
        batch: clips in one forward pass.
        time_limit: seconds that one video may take to decode.
    """

    views: Views
    workers: int
    batch: int
    time_limit: float
    cost: Cost

    def encode(
        self,
        wanted: Sequence[Source],
        keep: Callable[[Tensor], Tensor],
        label: str,
        variants: Mapping[str, Variant],
    ) -> Iterator[Encoding]:
        """Each source's features in order. `keep` maps uint8 clips (N, T, C, H, W) to what is kept, (N, ...)."""
        assert self.views.frames and self.views.size  # resolve() filled them in
        requests = [
            Request(source.video, source.span, self.views, self.views.frames, self.views.size) for source in wanted
        ]
        clips = read_clips(requests, workers=self.workers or os.cpu_count() or 1, time_limit=self.time_limit)
        waiting: list[tuple[Source, Decoded | Failure]] = []
        held = 0
        for pair in track(self._timed(zip(wanted, clips, strict=True)), label, len(wanted)):
            waiting.append(pair)
            held += _views(pair[1])
            if held >= self.batch:
                yield from self._flush(waiting, keep, variants)
                waiting, held = [], 0
        yield from self._flush(waiting, keep, variants)

    def _timed(self, pairs: Iterator[tuple[Source, Decoded | Failure]]) -> Iterator[tuple[Source, Decoded | Failure]]:
        """The pairs, the time spent waiting for them counted as decoding."""
        while True:
            started = time.monotonic()
            pair = next(pairs, None)
            self.cost.decode_s += time.monotonic() - started
            if pair is None:
                return
            yield pair

    def _flush(
        self,
        waiting: Sequence[tuple[Source, Decoded | Failure]],
        keep: Callable[[Tensor], Tensor],
        variants: Mapping[str, Variant],
    ) -> Iterator[Encoding]:
        started = time.monotonic()
        good = [(source, clip) for source, clip in waiting if isinstance(clip, Decoded)]
        kept: dict[str, Iterator[Tensor]] = {}
        for name, variant in variants.items():
            if good:
                pixels = torch.cat([variant(clip.pixels, _seed(source)) for source, clip in good])
                features = torch.cat([keep(part) for part in torch.split(pixels, self.batch)])
                self.cost.encoder_forwards += len(pixels)
                kept[name] = iter(torch.split(features, [_views(clip) for _, clip in good]))
        self.cost.encode_s += time.monotonic() - started
        for source, clip in waiting:
            if isinstance(clip, Failure):
                yield Encoding(source, failure=clip.reason)
            else:
                features_of = {name: next(rows) for name, rows in kept.items()}
                yield Encoding(source, features_of, decoder=None if clip.default_decoder else clip.decoder)


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
