"""Decoding from tars, parquet rows and a web server compared with files, and the index of a tar of a million members.

    PYTHONPATH=. python bench/media.py

Films of the size of a Kinetics clip, 16 frames of 224 x 224 of each, the least of several rounds in turn. The server is
on loopback and waits 20 ms before each reply; clips come from decoding processes, as in a run.
"""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np

from evalkit.api import Clip, Views
from evalkit.video import media, tar
from evalkit.video.clips import Decoded, Request, read_clip
from evalkit.video.workers import DecodePool
from tests.video.packed import pack, served

FILMS, DISTINCT, SECONDS, ROUNDS, LATENCY_S = 40, 8, 10.0, 4, 0.02
MEMBERS = 1_000_000


def request(path: Path) -> Request:
    """How a clip of a film is read."""
    return Request(path, None, Views("uniform"), 16, 224, clip=Clip())


def write_films(folder: Path) -> list[Path]:
    """Films of the size of a clip of Kinetics: a texture that moves, with grain; several copies of each."""
    draw = np.random.default_rng(0)
    paths = [folder / f"{i:03d}.mp4" for i in range(FILMS)]
    for i, path in enumerate(paths):
        if i >= DISTINCT:
            shutil.copyfile(paths[i % DISTINCT], path)
            continue
        coarse = draw.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        texture = av.VideoFrame.from_ndarray(coarse, format="rgb24").reformat(900, 600).to_ndarray().astype(np.int16)
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"crf": "23", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
            for k in range(int(25 * SECONDS)):
                y, x = (40 + i + k) % 340, (3 * k + 20 * i) % 560
                grain = draw.integers(-6, 7, (256, 340, 1), dtype=np.int16)
                picture = np.clip(texture[y : y + 256, x : x + 340] + grain, 0, 255).astype(np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(stream.encode(None))
    return paths


def write_parquet(file: Path, films: Sequence[Path]) -> Path:
    """The films as Hugging Face has videos, 20 rows in a group."""
    import pyarrow
    from pyarrow import parquet

    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in films]
    parquet.write_table(pyarrow.table({"video": rows}), file, row_group_size=20)
    return file


def decode_ms(folders: dict[str, Path], names: Sequence[str]) -> dict[str, float]:
    """Milliseconds of processor time in which each place gives a clip: the mean of each film's least, in turns."""
    best: dict[tuple[str, str], float] = {}
    for _ in range(2 * ROUNDS):
        for name in names:
            for place, folder in folders.items():
                started = time.process_time()
                clip = read_clip(*request(folder / name))
                seconds = time.process_time() - started
                assert isinstance(clip, Decoded), clip
                best[place, name] = min(seconds, best.get((place, name), seconds))
    return {place: 1e3 * sum(best[place, name] for name in names) / len(names) for place in folders}


def least(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The least time of each call, in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: min(of) for name, of in times.items()}


def serve(folder: str, ready: Any) -> None:
    """Serves a folder until the process is ended."""
    with served(Path(folder), latency=LATENCY_S) as (url, _):
        ready.send(url)
        time.sleep(3600)


def decode_by(pool: DecodePool, paths: Sequence[Path]) -> None:
    """Decodes each by processes."""
    for clip in pool.read([request(path) for path in paths]):
        assert isinstance(clip, Decoded), clip


def million(folder: Path) -> tuple[float, float, float]:
    """Seconds and megabytes that indexing takes, and microseconds to find a member."""
    file = folder / "million.tar"
    info, names = tarfile.TarInfo(), [f"train/{i % 400:03d}/{i:011d}_000012_000022.mp4" for i in range(MEMBERS)]
    info.size = 100
    with file.open("wb") as out:
        for name in names:
            info.name = name
            out.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(512))
        out.write(bytes(1024))
    told = subprocess.run([sys.executable, "-c", INDEX, str(file)], capture_output=True, text=True, check=True).stdout
    seconds, megabytes = map(float, told.split())
    with media.open_bytes(file) as opened:
        index = tar.Index(tar.build(opened.read_at, opened.size))
    started = time.perf_counter()
    for name in names[::1000]:
        index.find(name)
    return seconds, megabytes, (time.perf_counter() - started) / len(names[::1000]) * 1e6


INDEX = """
import re, sys, time
from pathlib import Path
from evalkit.video import media, tar
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e3
before, started = peak(), time.perf_counter()
with media.open_bytes(Path(sys.argv[1])) as opened:
    tar.build(opened.read_at, opened.size)
print(time.perf_counter() - started, peak() - before)
"""


def main() -> None:
    """Prints the tables."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "films").mkdir()
        films = write_films(root / "films")
        shard = pack(root / "000.tar", films)
        rows = write_parquet(root / "clips.parquet", films)
        size = sum(path.stat().st_size for path in films) / FILMS / 1e3
        print(f"{FILMS} films of {SECONDS:g} s, {size:,.0f} kB each; least of {ROUNDS}\n")
        folders = {"files": root / "films", "a tar": shard, "a parquet file": rows}
        times = decode_ms(folders, [path.name for path in films[:DISTINCT]])
        print("| from | ms of processor time a clip | / files | wanted |\n|---|---|---|---|")
        for name, ms in times.items():
            print(f"| {name} | {ms:.2f} | {ms / times['files']:.2f} | {'' if name == 'files' else '<= 1.05'} |")

        process = multiprocessing.get_context("spawn")
        ours, theirs = process.Pipe()
        server = process.Process(target=serve, args=(str(root), theirs), daemon=True)
        server.start()
        url = ours.recv()
        remote = {
            "files": films,
            "files at a URL": [media.path_of(f"{url}/films/{path.name}") for path in films],
            "a tar at a URL": [media.path_of(f"{url}/000.tar/{path.name}") for path in films],
        }
        print(f"\nClips a second from a server with {1e3 * LATENCY_S:g} ms before each answer\n")
        print("| decoding processes | from | first pass | later | later / files | wanted |\n|---|---|---|---|---|---|")
        for workers in (2, 4, 6):
            with closing(DecodePool(workers)) as pool:
                decode_by(pool, films)
                first: dict[str, float] = {}
                for name, paths in remote.items():
                    started = time.perf_counter()
                    decode_by(pool, paths)
                    first[name] = time.perf_counter() - started
                later = least({name: (lambda of=of: decode_by(pool, of)) for name, of in remote.items()})
            for name in remote:
                ratio, wanted = later["files"] / later[name], "" if name == "files" else ">= 0.8"
                rates = f"{FILMS / first[name]:.1f} | {FILMS / later[name]:.1f} | {ratio:.2f}"
                print(f"| {workers} | {name} | {rates} | {wanted} |", flush=True)
        server.terminate()

        seconds, megabytes, find_us = million(root)
        print("\n| a tar of a million members | measured | wanted |\n|---|---|---|")
        print(f"| seconds to index | {seconds:.1f} | < 60 |\n| MB of memory for it | {megabytes:.0f} | < 200 |")
        print(f"| us to find a member | {find_us:.0f} | |")


if __name__ == "__main__":
    main(*sys.argv[1:])
