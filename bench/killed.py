"""Runs that are killed: SIGKILL at random moments of decoding, encoding, fitting and scoring, then the same run again.

    python bench/killed.py [kills [phase]]

Kills in each phase in turn, or only in the given one: 0 for "encode train", 1 for "fit", 2 for "encode test", 3 for
"score". Prints, per phase, how many runs were killed in it, how many of their features were found again, and whether
the repeated run, with another number of workers, has the scores of an undisturbed one. The exit code is 1 if one has
not.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evalkit.mini import film, world

PHASES = ("encode train", "fit", "encode test", "score")


def films(folder: Path) -> Path:
    """A csv of 24 two-second films in two classes, half of them to train on."""
    rows = ["path,label,split"]
    for i in range(24):
        thing = world.Thing(list(world.COLORS)[i % 6], world.SHAPES[i % 5])
        step = world.Step(thing, ("moves left", "moves right")[i % 2], thing, 2.0, 1, 0.5)
        film.write(world.Story((step,), (40, 40, 40)), folder / f"{i:02d}.mp4", fps=8)
        rows.append(f"{i:02d}.mp4,{step.action},{'train' if i < 12 else 'test'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


def words(table: Path, home: Path, workers: int) -> list[str]:
    """Those of a run with results of its own."""
    given = ["run", "task=folder", f"data.root={table}", "ckpt=demo", "adapter.epochs=600", "batch=4", "canary=false"]
    return [*given, f"workers={workers}", f"out={home / 'out'}"]


def start(table: Path, home: Path, workers: int) -> subprocess.Popen[str]:
    """A run with a store of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "evalkit", *words(table, home, workers)],
        env=os.environ | {"EVALKIT_CACHE": str(home / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def phase_ends(process: subprocess.Popen[str]) -> Iterator[float]:
    """Seconds from now at which each phase of a run ends, as it does."""
    began = time.monotonic()
    assert process.stderr
    for line in process.stderr:
        if line.startswith(("encode train: ", "fit: ", "predict: ")) and " in " in line:
            yield time.monotonic() - began
    if process.wait():
        raise SystemExit(f"the run ended with {process.returncode}")
    yield time.monotonic() - began


def record(home: Path) -> dict[str, Any]:
    """The one result under a folder; a killed run has left none, or it is whole."""
    (file,) = sorted((home / "out").glob("*/*/[!.]*/result.json"))[-1:]
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def main(kills: int, phases: Sequence[int] = range(len(PHASES))) -> int:
    """Measures and prints; 1 where a score differs."""
    rng = random.Random(0)
    counts = {phase: [0, 0, 0] for phase in PHASES}
    with tempfile.TemporaryDirectory() as place:
        table = films(Path(place))
        whole = Path(place) / "whole"
        ends = list(phase_ends(start(table, whole, 1)))
        expected = record(whole)["scores"]
        lasts = [ends[0], *(end - before for before, end in itertools.pairwise(ends))]
        for number in range(kills):
            which = phases[number % len(phases)]
            home = Path(place) / str(number)
            process = start(table, home, 1)
            for _, _ in zip(range(which), phase_ends(process), strict=False):
                continue
            # Most of the first phase is Python and torch; a store is closed in the first moments of the next.
            time.sleep(lasts[which] * rng.uniform(0.2 if which else 0.6, 1))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            list(phase_ends(start(table, home, 2)))
            found = record(home)
            counts[PHASES[which]][0] += 1
            counts[PHASES[which]][1] += found["cost"]["cache_hits"]
            counts[PHASES[which]][2] += found["scores"] == expected
    print("| killed in | runs | features found again, of 24 | equal scores |\n|---|---|---|---|")
    for phase, (runs, hits, equal) in counts.items():
        if runs:
            print(f"| {phase} | {runs} | {hits / runs:.1f} | {equal} of {runs} |")
    return int(any(runs != equal for runs, _, equal in counts.values()))


if __name__ == "__main__":
    kills, *phases = map(int, sys.argv[1:] or ["50"])
    sys.exit(main(kills, phases or range(len(PHASES))))
