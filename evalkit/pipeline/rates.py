"""How fast this machine decodes, encodes and stores a sample of a task's videos."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evalkit.features.extract import Cost, unchanged
from evalkit.features.sources import Source
from evalkit.features.store import Store
from evalkit.pipeline.setup import Experiment
from evalkit.video.clips import Decoded

DECODE_S = 16.0  # seconds that decoding the sample should take at most: videos of unlike length need many
SAMPLE_S = 8.0  # seconds that decoding, encoding and storing a part of it should take at most


@dataclass(frozen=True)
class Reading:
    """What is read of the videos for one split.

    Attributes:
        name: train, val or test.
        parts: parts of videos, each augmented view counted.
        clips: clips of each part, those of controls included.
        stored: the share of the parts that is stored already, of a sample.
        bytes: of all their features, as stored.
        times: how often each part is encoded: once, or once an epoch where neither memory nor store hold the features.
        again: how often each part is read from the store after that: once an epoch where memory does not hold them.
    """

    name: str
    parts: int
    clips: int
    stored: float
    bytes: int
    times: int = 1
    again: int = 0

    @property
    def from_store(self) -> float:
        """Parts that are read from the store."""
        return self.parts * (self.stored + self.again)

    @property
    def left(self) -> float:
        """Parts that are decoded and encoded."""
        return self.parts * (1 - self.stored) * self.times


class Rates(NamedTuple):
    """How fast this machine is with a sample of the task's own videos.

    Attributes:
        sample: parts that were measured.
        clips: clips of each, without those of controls.
        decode_s: seconds for one part, by all decoding processes, while nothing is encoded.
        encode_s: seconds for one clip on one device.
        both_s: seconds for one part while one process decodes, encodes and stores.
        stored_s: seconds to read the features of one part from the store.
    """

    sample: int
    clips: int
    decode_s: float
    encode_s: float
    both_s: float
    stored_s: float = 0.0

    def seconds(self, reading: Reading, devices: int, nodes: int, on_gpu: bool) -> float:
        """Seconds for what is left to read, by so many devices on each of so many machines like this one.

        On a CPU, the devices of a machine share its cores, on which it decodes, too.
        """
        one = self.both_s + self.encode_s * (reading.clips - self.clips)
        left = reading.left * (max(self.decode_s, one / devices) if on_gpu else one)
        return (left + reading.from_store * self.stored_s) / nodes


def measure(experiment: Experiment, sample: Sequence[Source]) -> tuple[list[Tensor], Rates | None]:
    """The clips (V, T, C, H, W) of parts of the sample, and how fast they are decoded and encoded."""
    extractor, encoder = replace(experiment.extractor, cost=Cost()), experiment.encoder
    clips = extractor.views.clips * extractor.views.crops
    first = sample[: min(4, len(sample))]
    list(extractor.read(first[:1]))  # starts the processes
    pilot = seconds_of(lambda: list(extractor.read(first))) / len(first)
    chosen = sample[: max(2, 2 * encoder.batch // clips, int(DECODE_S / max(pilot, 1e-6)))]
    chosen = chosen[: max(2, (512 << 20) // _clip_bytes(experiment) // clips)]  # whose pixels fit the memory
    decoded: list[Any] = []
    times = [time.monotonic()]
    for clip in extractor.read(chosen):
        decoded.append(clip)
        times.append(time.monotonic())
    decode_s = (times[-1] - times[0]) / len(chosen)
    pixels = [clip.pixels for clip in decoded if isinstance(clip, Decoded)]
    if not pixels:
        return [], None
    batch = torch.cat(pixels[: max(1, encoder.batch // clips)])
    keep = experiment.reader.keep
    keep(batch).cpu()  # as the first batch, which allocates and compiles, takes longer
    encode_s = min(seconds_of(lambda: keep(batch).cpu()) for _ in range(3)) / len(batch)
    few = chosen[: max(2, 2 * len(batch) // clips, int(SAMPLE_S / (decode_s + encode_s * clips)))]
    both_s, stored_s = _with_store(experiment, few)
    if experiment.device.type == "cpu":  # whose cores do both; how the few differ from all shows while they are decoded
        both_s = max(encode_s * clips, both_s + decode_s - (times[len(few)] - times[0]) / len(few))
    return pixels, Rates(len(chosen), clips, decode_s, encode_s, both_s, stored_s)


def _with_store(experiment: Experiment, sample: Sequence[Source]) -> tuple[float, float]:
    """Seconds for one part while one process decodes, encodes and stores, after its first batch; and to find one."""
    extractor, cache = replace(experiment.extractor, cost=Cost()), experiment.reader.cache
    with tempfile.TemporaryDirectory(prefix=".plan-", dir=cache.store.folder.parent if cache else None) as folder:
        fresh = cache and replace(cache, store=Store(Path(folder), cache.store.limit))
        times, stored_s = [time.monotonic()], 0.0

        def encode() -> Iterator[object]:
            return extractor.encode(sample, experiment.reader.keep, "", {"": unchanged}, fresh)

        for _ in encode():
            times.append(time.monotonic())
        if fresh:
            stored_s = seconds_of(lambda: list(encode())) / len(sample)
            fresh.store.close()
    # Features come batch by batch, and a GPU waits for its first one, which a long run forgets. On a CPU nothing waits:
    # its cores decode ahead meanwhile, so that what comes after the first batch was paid for in part before.
    first = max(1, extractor.batch // (extractor.views.clips * extractor.views.crops))
    start = first if experiment.device.type != "cpu" and len(sample) >= 2 * first else 0
    return (times[-1] - times[start]) / (len(sample) - start), stored_s


def _clip_bytes(experiment: Experiment) -> int:
    views = experiment.extractor.views
    assert views.frames and views.size  # resolve_views() filled them in
    return views.frames * 3 * views.size**2


def seconds_of(work: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started
