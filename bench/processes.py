"""A run that two processes share against one process; and runs of one, two and three, one of which is killed each time.

    PYTHONPATH=. python bench/processes.py [rounds [kills]]

Two processes with one thread each stand for two devices, against one process with two threads. In each kill, one of two
processes gets SIGKILL at a moment of its own; the run is then given again, with one, two and three processes in turn,
on what is stored, and must have the scores of an undisturbed one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.killed import films

CORES = 2


def start(words: Sequence[str], cache: Path) -> subprocess.Popen[str]:
    """A run with a store of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "evalkit", "run", *words],
        env=os.environ | {"EVALKIT_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def record(words: Sequence[str], cache: Path, out: Path) -> dict[str, Any]:
    """The record of a run that ends well."""
    process = start([*words, f"out={out}"], cache)
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


def shared(rounds: int) -> None:
    """Prints the encode phase of one process and of two."""
    words = ["task=kinetics400", "mini=true", "ckpt=demo", "adapter=knn", "canary=false", "device=cpu"]
    times: dict[int, list[float]] = {1: [], 2: []}
    kept: dict[int, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        films_of = home / "films"
        record([*words, "devices=1"], films_of, home / "out-films")  # makes the films
        for i in range(rounds):
            for devices in (1, 2):
                cache = home / f"cache-{devices}-{i}"
                cache.mkdir()
                (cache / "mini").symlink_to(films_of / "mini")
                each = CORES // devices
                result = record(
                    [*words, f"devices={devices}", f"threads={each}", f"workers={each}"], cache, cache / "out"
                )
                times[devices].append(result["cost"]["decode_s"] + result["cost"]["encode_s"])
                kept[devices] = scores(result), stored(cache), result["cost"]["encoder_forwards"]
    one, two = min(times[1]), min(times[2])
    print("| processes | threads each | encode phase, s | / one | bytes stored | forward passes |")
    print("|---|---|---|---|---|---|")
    print(f"| 1 | 2 | {one:.2f} | 1.00 | {kept[1][1]:,} | {kept[1][2]} |")
    print(f"| 2 | 1 | {two:.2f} | {two / one:.2f} | {kept[2][1]:,} | {kept[2][2]} |")
    print(f"\nScores {'equal' if kept[1][0] == kept[2][0] else 'NOT equal'}. Least of {rounds}. Wanted: <= 1.10.\n")


def killed(kills: int) -> int:
    """Prints what came of each kill; 1 where a run after it has other scores."""
    rng = random.Random(0)
    wrong = ended_before = 0
    seen: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        table = films(home)
        words = ["task=folder", f"data.root={table}", "ckpt=demo", "adapter.epochs=60", "batch=4", "canary=false"]
        words += ["threads=1", "workers=1", "device=cpu"]
        begun = time.monotonic()
        whole = scores(record([*words, "devices=2"], home / "cache", home / "out"))
        lasts = time.monotonic() - begun
        for kill in range(kills):
            cache = home / f"cache-{kill}"
            process = start([*words, "devices=2", f"out={home / f'out-{kill}'}"], cache)
            time.sleep(lasts * (0.1 + 0.9 * (kill + rng.random()) / kills))
            children = [child for child in psutil.Process(process.pid).children() if "run_rank" in str(child.cmdline())]
            for child in children[kill % 2 :][:1]:
                child.kill()
            _, messages = process.communicate()
            ended_before += not process.returncode
            seen += [line for line in messages.splitlines() if "was killed by signal" in line][:1]
            devices = 1 + kill % 3
            result = record([*words, f"devices={devices}"], cache, home / f"out-{kill}-again")
            wrong += scores(result) != whole
    print("| kills | told as such | runs that had ended before | runs after it with other scores |\n|---|---|---|---|")
    print(f"| {kills} | {len(seen)} | {ended_before} | {wrong} |")
    return 1 if wrong else 0


if __name__ == "__main__":
    shared(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    sys.exit(killed(int(sys.argv[2]) if len(sys.argv) > 2 else 20))
