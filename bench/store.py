"""Cost and robustness of the feature store, compared with plain files, lmdb and sqlite3.

    PYTHONPATH=. python bench/store.py [small] [folder]

The folder (default: a temporary one) should be on the disk in question; 5 GB are written and removed again, 0.4 GB with
`small`. lmdb is measured if it is installed. Files are read in random order while the system still has them in memory,
and every byte of a tensor is read (summed up). Look-ups are measured in processor time.

lmdb and sqlite3 store a crc32 per entry, which is checked at every read as in the store; their entries have no dtype
and no shape. The kill test ends a writer by SIGKILL at a random moment, many times, on one folder: entries flushed
before must be found, and none may be wrong. The damage test flips one random bit of the largest file, or cuts the file
at a random byte, in a fresh copy each time; then all entries are read, and missing ones are written again.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.store_backends import BACKENDS, Backend
from evalkit.features.store import Store

SIZES = {"full": (1_000, 10_000, 200_000), "small": (1_000, 10_000)}
LOOK_UPS = {"full": 20_000, "small": 5_000}
# name, entries, values in one (float16)
SHAPES = {
    "full": (("pooled 768", 1_000, 768), ("tokens 1568 x 768", 150, 1568 * 768)),
    "small": (("pooled 768", 1_000, 768), ("tokens 1568 x 768", 25, 1568 * 768)),
}
ROUNDS = 3
KILLS = {"full": 40, "small": 15}
DAMAGES = {"full": 200, "small": 60}


def key(i: int) -> bytes:
    """A key as hashes make them."""
    return hashlib.sha256(i.to_bytes(8, "little")).digest()


def value(i: int, width: int = 768) -> Tensor:
    """The tensor of an entry, float16 (width,)."""
    return torch.from_numpy(np.random.default_rng(i).standard_normal(width, np.float32)).half()


def look_ups(name: str, folder: Path, entries: int, count: int) -> None:
    """Print seconds to open, microseconds per look-up (found, absent) and MB of memory, in a process of its own."""
    keys = [key(random.randrange(entries)) for _ in range(count)]
    absent = [key(-1 % 2**63 - i) for i in range(count)]
    Store(folder / "none").find(keys[:10])
    before = memory()
    started = time.process_time()
    backend = BACKENDS[name](folder)
    opened = time.process_time() - started
    times = []
    for wanted in (keys, absent):
        best = float("inf")
        for _ in range(ROUNDS):
            started = time.process_time()
            for item in wanted:
                backend.find(item)
            best = min(best, time.process_time() - started)
        times.append(1e6 * best / count)
    print(opened, *times, memory() - before)


def memory() -> float:
    """Resident memory of this process in MB; of lmdb, the pages of its file that were read count, too."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def sync(path: Path) -> None:
    """Make a file survive a power failure."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.close(file)


def ways(folder: Path, rows: Tensor) -> dict[str, tuple[Callable[[], object], Callable[[int], Tensor]]]:
    """Per way: a function that writes all rows so that they survive a power failure, and one that reads a row."""
    count, width = rows.shape
    mapped: dict[str, Any] = {}
    sums = [zlib.crc32(row.numpy()) for row in rows]

    def through(backend: Backend) -> tuple[Callable[[], object], Callable[[int], Tensor]]:
        def write() -> None:
            for i in range(count):
                backend.put(key(i), rows[i])
            backend.flush()

        def read(i: int) -> Tensor:
            tensor = backend.find(key(i))
            assert tensor is not None
            return tensor

        return write, read

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
        **{name: through(make(folder / name)) for name, make in BACKENDS.items()},
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
        shutil.rmtree(place)
    return best


def killed(make: Callable[[Path], Backend], folder: Path, kills: int) -> tuple[int, int, int]:
    """Kill one writer after another; returns the numbers of entries flushed, of those lost, and of wrong ones."""
    chance = random.Random(0)
    flushed: list[int] = []
    wrong = 0
    for start in range(0, kills * 1_000_000, 1_000_000):
        listener, teller = os.pipe()
        child = os.fork()
        if not child:
            backend = make(folder)
            for i in range(start, start + 1_000_000):
                backend.put(key(i), value(i))
                if i % 7 == 0:
                    backend.flush()
                    os.write(teller, i.to_bytes(8, "little"))
        time.sleep(0.02 + chance.random() * 0.2)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(teller)
        with open(listener, "rb") as pipe:
            last = pipe.read()[-8:]
        stop = int.from_bytes(last, "little") + 1 if last else start
        flushed += range(start, stop)
        backend = make(folder)
        after = [backend.find(key(i)) for i in range(stop, stop + 20)]  # not flushed: right or absent
        wrong += sum(tensor is not None and not tensor.equal(value(stop + i)) for i, tensor in enumerate(after))
        backend.close()
    backend = make(folder)
    tensors = {i: backend.find(key(i)) for i in flushed}
    backend.close()
    wrong += sum(tensor is not None and not tensor.equal(value(i)) for i, tensor in tensors.items())
    return len(flushed), sum(tensor is None for tensor in tensors.values()), wrong


def damaged(make: Callable[[Path], Backend], folder: Path, trials: int, how: str) -> dict[str, int]:
    """Damage a store of 100 entries in many ways; returns how often each outcome was seen."""
    whole, entries = folder / "whole", 100
    backend = make(whole)
    for i in range(entries):
        backend.put(key(i), value(i))
    backend.close()
    outcomes: Counter[str] = Counter()
    names = {0: "all found", 1: "missed, then repaired", 2: "missed for good", 3: "unusable", 4: "WRONG VALUES"}
    for trial in range(trials):
        chance = random.Random(trial)
        copy = folder / "copy"
        shutil.copytree(whole, copy)
        file = max(copy.iterdir(), key=lambda path: path.stat().st_size)
        position = chance.randrange(file.stat().st_size)
        if how == "cut":
            os.truncate(file, position)
        else:
            content = bytearray(file.read_bytes())
            content[position] ^= 1 << chance.randrange(8)
            file.write_bytes(content)
        child = os.fork()  # an invalid page may end the process
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os._exit(read_and_repair(make, copy, entries))
        status = os.waitpid(child, 0)[1]
        outcomes["ended by a signal" if os.WIFSIGNALED(status) else names[os.WEXITSTATUS(status)]] += 1
        shutil.rmtree(copy)
    return dict(outcomes)


def read_and_repair(make: Callable[[Path], Backend], folder: Path, entries: int) -> int:
    """Read all entries, write the missing ones and read them again; the key of `damaged`'s outcome."""
    try:
        backend = make(folder)
        tensors = {i: backend.find(key(i)) for i in range(entries)}
        if any(tensor is not None and not tensor.equal(value(i)) for i, tensor in tensors.items()):
            return 4
        missing = [i for i, tensor in tensors.items() if tensor is None]
        if not missing:
            return 0
        for i in missing:
            backend.put(key(i), value(i))
        backend.close()
        backend = make(folder)
        again = [backend.find(key(i)) for i in range(entries)]
        return 1 if all(tensor is not None and tensor.equal(value(i)) for i, tensor in enumerate(again)) else 2
    except Exception:
        return 3


def main(folder: Path, scale: str) -> None:
    """Print the tables."""
    print("| look-up of float16 (768) | open, ms | found, us | absent, us | memory, MB |\n|---|---|---|---|---|")
    row = value(0)
    for name, make in BACKENDS.items():
        backend = make(folder / name)
        for i in range(max(SIZES[scale])):
            if i in SIZES[scale]:
                backend.flush()
                report_look_ups(name, folder / name, i, scale)
            backend.put(key(i), row)
        backend.close()
        report_look_ups(name, folder / name, max(SIZES[scale]), scale)
        shutil.rmtree(folder / name)
    for shape, count, width in SHAPES[scale]:
        print(f"\n| {shape}, float16, {count:,} entries | write MB/s | read MB/s | write x store | read x store |")
        print("|---|---|---|---|---|")
        speeds = throughput(folder, count, width)
        ours = speeds["store"]
        for way, (write, read) in speeds.items():
            print(f"| {way} | {write:.0f} | {read:.0f} | {write / ours[0]:.2f} | {read / ours[1]:.2f} |")
    print(f"\n| {KILLS[scale]} writers killed | entries flushed | of those lost | wrong |\n|---|---|---|---|")
    for name, make in BACKENDS.items():
        print(f"| {name} |", " | ".join(map(str, killed(make, folder / f"{name}-killed", KILLS[scale]))), "|")
    print(f"\n| damage, {DAMAGES[scale]} times | outcomes |\n|---|---|")
    for how in ("bit flipped", "cut"):
        for name, make in BACKENDS.items():
            place = folder / f"{name}-{how.split()[0]}"
            place.mkdir()
            outcomes = damaged(make, place, DAMAGES[scale], how)
            print(f"| {name}, {how} | {', '.join(f'{n} {outcome}' for outcome, n in sorted(outcomes.items()))} |")
    print(f"\n`python bench/store.py` on {os.cpu_count()} cores; torch {torch.__version__}, one thread.")


def report_look_ups(name: str, folder: Path, entries: int, scale: str) -> None:
    """Print one row of look-ups."""
    words = [sys.executable, __file__, "look-ups", name, str(folder), str(entries), str(LOOK_UPS[scale])]
    output = subprocess.run(words, capture_output=True, check=True).stdout.split()
    opened, present, absent, grown = map(float, output)
    print(f"| {name}, {entries:,} entries | {1000 * opened:.1f} | {present:.1f} | {absent:.1f} | {grown:.1f} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    words = sys.argv[1:]
    if words[:1] == ["look-ups"]:
        look_ups(words[1], Path(words[2]), int(words[3]), int(words[4]))
    else:
        scale = "small" if words[:1] == ["small"] else "full"
        places = words[1:] if scale == "small" else words
        with tempfile.TemporaryDirectory(dir=places[0] if places else None) as made:
            main(Path(made), scale)
