"""The way of decoded clips from the workers: through pipes, as before, and in shared memory.

    OMP_NUM_THREADS=1 PYTHONPATH=. python bench/delivery.py [workers]

The first part measures the transfer alone: clips that cost nothing to make are read and copied once to a buffer that
stands for the device, in turns, as the median of several rounds. The second part decodes real videos for an encoder
that costs nothing, and compares with workers that decode as much but pass nothing on.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from bench.media import write_films
from evalkit.api import Clip, Views
from evalkit.features.extract import Cost, FeatureExtractor, unchanged
from evalkit.features.sources import Source, resolve_views
from evalkit.runtime import shared
from evalkit.runtime.machine import cores
from evalkit.video.clips import Decoded, Failure, Request, read_clip
from evalkit.video.workers import DecodePool

SHAPE, CLIPS, BATCH = (1, 16, 3, 288, 288), 200, 16
WAYS, ROUNDS = 10, 5  # how often each is measured: the way alone takes a second
BYTES = torch.Size(SHAPE).numel()
_made: list[torch.Tensor] = []


def made_elsewhere(*request: Any) -> Decoded:
    """A clip that the worker has to copy to where it is read."""
    if not _made:
        _made.append(torch.randint(0, 256, SHAPE, dtype=torch.uint8))
    return Decoded(_made[0], ((0.0,),), "none", True)


def made_in_place(*request: Any) -> Decoded:
    """A clip that the worker makes where it is read, as `read_clip` does."""
    return Decoded(torch.from_numpy(shared.empty(BYTES)).view(SHAPE), ((0.0,),), "none", True)


def kept_back(*request: Any) -> Decoded | Failure:
    """Decodes as much, and hands nothing over."""
    clip = read_clip(*request)
    return Failure(clip.reason) if isinstance(clip, Failure) else Failure("")


def processor_s() -> float:
    """Processor time of this process, all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def way(read: Any, workers: int, bytes_shared: int | None) -> tuple[float, float]:
    """Bytes a second from worker to device, and seconds of this process's processor time a clip."""
    device = torch.zeros(SHAPE, dtype=torch.uint8)
    requests = [Request(Path("none"), None, Views(), 16, 288)] * CLIPS
    with closing(DecodePool(workers, read=read, shared=bytes_shared)) as pool:
        for clip in pool.read(requests[: 4 * workers]):
            assert isinstance(clip, Decoded)
        started, busy = time.perf_counter(), processor_s()
        for clip in pool.read(requests):
            assert isinstance(clip, Decoded)
            device.copy_(clip.pixels)
        return CLIPS * BYTES / (time.perf_counter() - started), (processor_s() - busy) / CLIPS


def memcpy() -> float:
    """Bytes a second of one thread that copies clips."""
    clips, device = [torch.randint(0, 256, SHAPE, dtype=torch.uint8) for _ in range(8)], torch.zeros(SHAPE).byte()
    started = time.perf_counter()
    for number in range(CLIPS):
        device.copy_(clips[number % 8])
    return CLIPS * BYTES / (time.perf_counter() - started)


class Device:
    """Stands for a device's memory: each clip is copied there from where it lies, as on a GPU."""

    def __init__(self) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8)

    def gather(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """One batch of the clips."""
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        if self.memory.shape[1:] != shape[1:] or len(self.memory) < shape[0]:
            self.memory = torch.empty(shape, dtype=torch.uint8)
        return torch.cat(parts, out=self.memory[: shape[0]])


def delivered(films: Sequence[Path], workers: int, bytes_shared: int | None, gather: Any = torch.cat) -> float:
    """Seconds in which clips are decoded and gathered to batches for an encoder that costs nothing."""
    views = resolve_views(Views("uniform"), Clip(frames=16, size=224), {})
    sources = [Source(film, None) for film in films]
    pool = DecodePool(workers, shared=bytes_shared)
    with closing(FeatureExtractor(views, pool, BATCH, Cost(), gather=gather)) as extractor:
        list(extractor.read(sources[:workers]))
        started = time.perf_counter()
        for encoding in extractor.encode(sources, lambda clips: clips[:, 0, 0, 0, :8].float(), "", {"": unchanged}):
            assert not encoding.failure
        return time.perf_counter() - started


def decoded_only(films: Sequence[Path], workers: int) -> float:
    """Seconds in which the workers decode the same, and hand nothing over."""
    requests = [Request(film, None, Views("uniform"), 16, 224) for film in films]
    with closing(DecodePool(workers, read=kept_back, shared=0)) as pool:
        list(pool.read(requests[:workers]))
        started = time.perf_counter()
        assert all(clip == Failure("") for clip in pool.read(requests))
        return time.perf_counter() - started


def print_ways(workers: int) -> None:
    """Prints what goes from worker to device a second, each way."""
    ways = {
        "pipes, as before": (made_elsewhere, 0),
        "shared, copied by the worker": (made_elsewhere, None),
        "shared, made in place": (made_in_place, None),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    copies: list[float] = []
    for _ in range(WAYS):
        copies.append(memcpy())
        for name, (read, bytes_shared) in ways.items():
            rates[name].append(way(read, workers, bytes_shared))
    print(f"16 x 3 x 288 x 288 clips, {workers} workers, median of {WAYS}\n")
    print("| from worker to device | GB/s | / pipes | wanted | ms of the main process a clip |\n|---|---|---|---|---|")
    before = statistics.median(rate for rate, _ in rates["pipes, as before"])
    for name, values in rates.items():
        rate, busy = (statistics.median(column) for column in zip(*values, strict=True))
        wanted = "" if "pipes" in name else ">= 5"
        print(f"| {name} | {rate / 1e9:.2f} | {rate / before:.1f} | {wanted} | {1e3 * busy:.2f} |")
    copied = statistics.median(copies)
    print(f"| memcpy by one thread | {copied / 1e9:.2f} | {copied / before:.1f} | | |")


def print_delivered(workers: int) -> None:
    """Prints what arrives at an encoder that costs nothing."""
    ways: dict[str, tuple[int | None, Any]] = {
        "pipes, as before": (0, torch.cat),
        "shared, to the CPU": (None, torch.cat),
        "shared, to a device": (None, Device().gather),
    }
    with tempfile.TemporaryDirectory() as folder:
        films = write_films(Path(folder)) * 3
        seconds: dict[str, list[float]] = {"decoded, nothing handed over": [], **{name: [] for name in ways}}
        for _ in range(ROUNDS):
            seconds["decoded, nothing handed over"].append(decoded_only(films, workers))
            for name, (bytes_shared, gather) in ways.items():
                seconds[name].append(delivered(films, workers, bytes_shared, gather))
    least = min(seconds["decoded, nothing handed over"])
    print(f"\n{len(films)} clips of 16 x 224 x 224 in batches of {BATCH}, least of {ROUNDS}\n")
    print("| clips to an encoder that costs nothing | clips/s | / decoded | wanted |\n|---|---|---|---|")
    for name, values in seconds.items():
        wanted = ">= 0.95" if "device" in name else ""
        print(f"| {name} | {len(films) / min(values):.1f} | {least / min(values):.2f} | {wanted} |")


if __name__ == "__main__":
    from bench import delivery  # what the workers call must have a name that they can import

    count = int(sys.argv[1]) if len(sys.argv) > 1 else cores()
    delivery.print_ways(count)
    delivery.print_delivered(count)
