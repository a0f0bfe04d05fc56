"""How processes share a run: how evenly, how fast, with which scores, and what happens if one of them is killed.

    PYTHONPATH=. python bench/processes.py [rounds [kills]]

A million sources are divided among 64 processes. Two processes with one thread each, which stand for two devices, are
compared with one process with two threads. One, two and three processes run one after the other on one store. In each
kill, one of two processes gets SIGKILL, each time at another moment; the run is then repeated on what is stored, with
one, two or three processes, and must have the scores of an undisturbed one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import psutil

from bench.killed import films
from evalkit.api import Views
from evalkit.features.extract import Cost, FeatureExtractor
from evalkit.features.sources import Source
from evalkit.runtime.ranks import Ranks

CORES = 2


def start(words: Sequence[str], cache: Path, count: int) -> subprocess.Popen[str]:
    """A run of so many processes with a store of its own; of more than there are cores by torchrun, which lets them."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m"] if count > CORES else []
    own = [] if launcher else [f"devices={count}"]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "evalkit", "run", *words, *own],
        env=os.environ | {"EVALKIT_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def record(words: Sequence[str], cache: Path, out: Path, count: int) -> dict[str, Any]:
    """The record of a run that ends well."""
    process = start([*words, f"out={out}"], cache, count)
    _, messages = process.communicate()
    if process.returncode:
        sys.exit(f"a run ended with {process.returncode}: {messages[-2000:]}")
    return dict(json.loads(max(out.rglob("result.json"), key=lambda file: file.stat().st_mtime).read_text()))


def scores(result: dict[str, Any]) -> Any:
    """What must be equal."""
    return [result["status"], result["scores"], result["selection"]["val_scores"], result["data"]["n_expected"]]


def stored(cache: Path) -> int:
    """Bytes of features."""
    return sum(file.stat().st_size for file in (cache / "features").glob("*.data"))


def simulated(count: int, sources: int) -> None:
    """Prints how so many processes divide so many sources, each in its turn here."""
    wanted = [Source(Path(f"{i % 400:03d}", f"{i:07d}.mp4"), None) for i in range(sources)]
    extractor = FeatureExtractor(Views(), cast(Any, None), 16, Cost())
    shares, seconds, memory = [], [], []
    for rank in range(count):
        begun = time.process_time()
        shares.append(sum(map(len, Ranks(rank, count).share(extractor.groups(wanted)))))
        seconds.append(time.process_time() - begun)
        memory.append(psutil.Process().memory_info().rss / 1e6)
    print("| processes | sources | least and most of one | processor seconds of one, at most | MB, first and last |")
    print("|---|---|---|---|---|")
    print(
        f"| {count} | {sources:,} | {min(shares):,} and {max(shares):,} | {max(seconds):.2f} | {memory[0]:.0f} and "
        f"{memory[-1]:.0f} |\n"
    )


def shared(rounds: int) -> None:
    """Prints the encode phase of one process and of two."""
    words = ["task=kinetics400", "mini=true", "ckpt=demo", "adapter=knn", "canary=false", "device=cpu"]
    times: dict[int, list[float]] = {1: [], 2: []}
    kept: dict[int, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        films_of = home / "films"
        record(words, films_of, home / "out-films", 1)  # makes the films
        for i in range(rounds):
            for devices in (1, 2):
                cache = home / f"cache-{devices}-{i}"
                cache.mkdir()
                (cache / "mini").symlink_to(films_of / "mini")
                each = CORES // devices
                result = record([*words, f"threads={each}", f"workers={each}"], cache, cache / "out", devices)
                times[devices].append(result["cost"]["decode_s"] + result["cost"]["encode_s"])
                kept[devices] = scores(result), stored(cache), result["cost"]["encoder_forwards"]
    one, two = min(times[1]), min(times[2])
    print("| processes | threads each | encode phase, s | / one | bytes stored | forward passes |")
    print("|---|---|---|---|---|---|")
    print(f"| 1 | 2 | {one:.2f} | 1.00 | {kept[1][1]:,} | {kept[1][2]} |")
    print(f"| 2 | 1 | {two:.2f} | {two / one:.2f} | {kept[2][1]:,} | {kept[2][2]} |")
    print(f"\nScores {'equal' if kept[1][0] == kept[2][0] else 'NOT equal'}. Least of {rounds}. Wanted: <= 1.10.\n")


def ranks_of(process: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    """The processes that share a run, once all are there; none where it has ended."""
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children()
            if len(ranks := [child for child in children if "run_rank" in str(child.cmdline())]) == count:
                return ranks
        time.sleep(0.02)
    return []


def in_turn(words: Sequence[str], home: Path) -> Any:
    """Prints what runs of one, two and three processes on one store did, and returns their scores."""
    of_all = []
    print("| processes, on one store | forward passes | scores as before |\n|---|---|---|")
    for count in (1, 2, 3):
        result = record(words, home / "cache", home / f"out-{count}", count)
        of_all.append(scores(result))
        equal = "yes" if of_all[-1] == of_all[0] else "NO"
        print(f"| {count} | {result['cost']['encoder_forwards']} | {equal if count > 1 else ''} |", flush=True)
    print()
    return of_all[0]


def killed(kills: int) -> int:
    """Prints what came of each kill; 1 where a run after it has other scores."""
    rng = random.Random(0)
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        table = films(home)
        words = ["task=folder", f"data.root={table}", "ckpt=demo", "adapter.epochs=60", "batch=4", "canary=false"]
        words += ["threads=1", "workers=1", "device=cpu"]
        whole = in_turn(words, home)
        process = start([*words, f"out={home / 'out'}"], home / "cache-whole", 2)
        ranks_of(process, 2)
        begun = time.monotonic()
        process.communicate()
        lasts = time.monotonic() - begun
        print(f"The two processes of an undisturbed run last {lasts:.1f} s.\n")
        print("| killed, of two | after, s | it ended, s later, and said | run again with | encoded again | scores |")
        print("|---|---|---|---|---|---|", flush=True)
        for kill in rng.sample(range(kills), kills):  # so that some of them are moments of the whole run, too
            cache, rank, count = home / f"cache-{kill}", kill % 2, 1 + kill % 3
            process = start([*words, f"out={home / f'out-{kill}'}"], cache, 2)
            ranks = ranks_of(process, 2)
            moment = lasts * (0.2 + 0.8 * (kill + rng.random()) / kills)
            time.sleep(moment)
            begun = time.monotonic()
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):  # it has ended
                ranks[rank].kill()
            _, messages = process.communicate()
            said = f"process {rank} of 2 was killed by signal 9"
            reason = said if said in messages else f"exit code {process.returncode}"
            later = time.monotonic() - begun
            result = record(words, cache, home / f"out-{kill}-again", count)
            equal = scores(result) == whole
            wrong += not equal
            again = f"{count} | {result['cost']['encoder_forwards']} of 24 | {'equal' if equal else 'OTHERS'}"
            print(f"| {rank} | {moment:.1f} | {later:.1f}, {reason} | {again} |", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    simulated(64, 1_000_000)
    if rounds := int(sys.argv[1]) if len(sys.argv) > 1 else 3:
        shared(rounds)
    sys.exit(killed(int(sys.argv[2]) if len(sys.argv) > 2 else 20))
