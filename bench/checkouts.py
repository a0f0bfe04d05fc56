"""Processor time of commands in this checkout and in another one, in turn.

    git worktree add --detach /tmp/before COMMIT
    OMP_NUM_THREADS=1 PYTHONPATH=. python bench/checkouts.py /tmp/before [rounds]

The seconds of all processes of a command count, in user code and in the system. Each checkout has its own cache, which
a first round fills with films; this round does not count. Both checkouts use the packages of this interpreter.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = ["run", "task=folder", "mini=true", "ckpt=demo", "adapter=knn", "cache=off"]
COMMANDS = {"--help": ["--help"], " ".join(RUN): RUN}
WANTED = {"--help": 1.0, " ".join(RUN): 0.6}


def processor_s(checkout: Path, words: list[str], place: Path) -> float:
    """Seconds of a command in a checkout, with a cache in a folder of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "EVALKIT_CACHE": str(place / "cache")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = [f"out={place / 'out'}"] if words[0] == "run" else []
    subprocess.run(
        [sys.executable, "-m", "evalkit", *words, *out], cwd=checkout, env=environment, check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(other: Path, rounds: int) -> None:
    """Prints the medians and their ratios."""
    checkouts = [other.resolve(), Path(__file__).resolve().parents[1]]
    print("| evalkit | before, s | now, s | now / before | wanted |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for label, words in COMMANDS.items():
            seconds: list[list[float]] = [[], []]
            for _ in range(1 + rounds):
                for i, checkout in enumerate(checkouts):
                    place = Path(name) / str(i)
                    place.mkdir(exist_ok=True)
                    seconds[i].append(processor_s(checkout, words, place))
            before, now = (statistics.median(taken[1:]) for taken in seconds)
            print(f"| {label} | {before:.2f} | {now:.2f} | {now / before:.2f} | <= {WANTED[label]:g} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5)
