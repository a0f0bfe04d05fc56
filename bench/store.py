"""What the feature store costs: look-ups by number of entries, and writing and reading against plain files.

    python bench/store.py [folder]

The folder (default: a temporary one) should lie on the disk in question; 3 GB are written and removed again. Reads are
of files that the system still holds in memory, in random order, and every byte of a tensor is looked at (summed up).
Look-ups are counted in processor time.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evalkit.features.store import Store

SIZES = (1_000, 10_000, 200_000)
LOOK_UPS = 20_000
# name, entries, values in one (float16)
SHAPES = (("pooled 768", 1_000, 768), ("tokens 1568 x 768", 150, 1568 * 768))
ROUNDS = 3


def key(i: int) -> bytes:
    """A key as hashes make them."""
    return hashlib.sha256(i.to_bytes(8, "little")).digest()


def look_ups(folder: Path, entries: int) -> None:
    """Prints seconds to open, microseconds per look-up (found, absent) and MB of memory, in a process of its own."""
    keys = [key(random.randrange(entries)) for _ in range(LOOK_UPS)]
    absent = [key(-1 % 2**63 - i) for i in range(LOOK_UPS)]
    Store(folder / "none").find(keys[:10])
    before = memory()
    started = time.process_time()
    store = Store(folder)
    opened = time.process_time() - started
    times = []
    for wanted in (keys, absent):
        best = float("inf")
        for _ in range(ROUNDS):
            started = time.process_time()
            for one in wanted:
                store.find([one])
            best = min(best, time.process_time() - started)
        times.append(1e6 * best / LOOK_UPS)
    print(opened, *times, memory() - before)


def memory() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def sync(path: Path) -> None:
    """Makes a file survive a power failure."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.close(file)


def ways(folder: Path, rows: Tensor) -> dict[str, tuple[Callable[[], object], Callable[[int], Tensor]]]:
    """Per way: what writes all rows so that they survive a power failure, and what reads one."""
    count, width = rows.shape
    store = Store(folder / "store")
    mapped: dict[str, Any] = {}
    sums = [zlib.crc32(row.numpy()) for row in rows]

    def write_store() -> None:
        for i in range(count):
            store.put(key(i), rows[i])
        store.flush()

    def read_store(i: int) -> Tensor:
        return store.find([key(i)])[key(i)]

    def write_files() -> None:
        for i in range(count):
            save_file({"x": rows[i]}, folder / f"{i}.safetensors")
            sync(folder / f"{i}.safetensors")

    def read_files(i: int) -> Tensor:
        return load_file(folder / f"{i}.safetensors")["x"]

    def write_memmap() -> None:
        mapped["x"] = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float16, (count, width))
        for i in range(count):
            mapped["x"][i] = rows[i].numpy()
        mapped["x"].flush()
        sync(folder / "x.npy")

    def read_memmap(i: int) -> Tensor:
        return torch.from_numpy(mapped["x"][i])

    def read_checked(i: int) -> Tensor:
        row = mapped["x"][i]
        if zlib.crc32(row) != sums[i]:
            raise ValueError(f"row {i} is damaged")
        return torch.from_numpy(row)

    return {
        "store": (write_store, read_store),
        "safetensors, a file and an fsync per entry": (write_files, read_files),
        "numpy memmap, one fsync, nothing checked": (write_memmap, read_memmap),
        "numpy memmap, checked by crc32": (write_memmap, read_checked),
    }


def throughput(folder: Path, count: int, width: int) -> dict[str, tuple[float, float]]:
    """Per way, MB/s of writing and of reading: the best of some rounds that take turns."""
    rows = torch.randn(count, width).half()
    order = random.sample(range(count), count)
    size = rows.numel() * 2 / 1e6
    best: dict[str, tuple[float, float]] = {}
    for turn in range(ROUNDS):
        place = folder / f"{width}-{turn}"
        place.mkdir()
        for name, (write, read) in ways(place, rows).items():
            started = time.perf_counter()
            write()
            written = time.perf_counter()
            for i in order:
                read(i).view(torch.int16).sum()
            done = time.perf_counter()
            speeds = size / (written - started), size / (done - written)
            best[name] = max(best.get(name, speeds)[0], speeds[0]), max(best.get(name, speeds)[1], speeds[1])
    return best


def main(folder: Path) -> None:
    """Prints the table."""
    print("| look-up of float32 (768) | open, ms | found, us | absent, us | memory, MB |\n|---|---|---|---|---|")
    value = torch.randn(768)
    with Store(folder / "look-ups") as store:
        for i in range(max(SIZES)):
            if i in SIZES:
                store.flush()
                report_look_ups(folder / "look-ups", i)
            store.put(key(i), value)
    report_look_ups(folder / "look-ups", max(SIZES))
    for name, count, width in SHAPES:
        print(f"| **{name}, float16, {count:,} entries** | write MB/s | read MB/s | write x store | read x store |")
        speeds = throughput(folder, count, width)
        for way, (write, read) in speeds.items():
            ours = speeds["store"]
            print(f"| {way} | {write:.0f} | {read:.0f} | {write / ours[0]:.2f} | {read / ours[1]:.2f} |")
    print(f"\n`python bench/store.py` on {os.cpu_count()} cores; torch {torch.__version__}, one thread.")


def report_look_ups(folder: Path, entries: int) -> None:
    """Prints one row of look-ups."""
    words = [sys.executable, __file__, "look-ups", str(folder), str(entries)]
    opened, found, absent, grown = map(float, subprocess.run(words, capture_output=True, check=True).stdout.split())
    print(f"| {entries:,} entries | {1000 * opened:.1f} | {found:.1f} | {absent:.1f} | {grown:.1f} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["look-ups"]:
        look_ups(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as made:
            main(Path(made))
