"""Memory of a run with very many samples: resident megabytes of its processes while the samples are processed.

    PYTHONPATH=. python bench/memory.py [samples]

Every sample is a clip of its own, so each is decoded, encoded and stored; then the same run again, which finds them
stored. Only examples and predictions grow with the number of samples: of the features, one batch is in memory.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from evalkit.api import Example, Task, Views
from evalkit.metrics.classification import top1_top5
from evalkit.mini import film, world

FILMS, SECONDS = 50, 30.0


def task(root: Path, samples: int = 100_000) -> Task:
    """Clips of one second of a few films, all but a few of them to test on.

    Args:
        root: folder of the films.
        samples: to test on.
    """
    apart = (SECONDS - 2) / (samples / FILMS + 2)

    def clip(i: int) -> Example:
        start = (i // FILMS) * apart
        return Example(f"{i:06d}", root / f"{i % FILMS:02d}.mp4", i % 2, (start, start + 1))

    return Task(
        train=[clip(i) for i in range(2 * FILMS)],
        test=[clip(i) for i in range(2 * FILMS, 2 * FILMS + samples)],
        score=top1_top5,
        classes=("even", "odd"),
        views=Views("uniform", frames=2),
        chance=50.0,
        license="generated (Apache-2.0)",
    )


def resident(process: int) -> float:
    """Megabytes of a process and all that it started; memory that several share counts once."""
    total = 0.0
    waiting = [process]
    while waiting:
        one = waiting.pop()
        try:
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text(), re.M)
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(found[1]) / 1024 if found else 0.0
    return total


def watch(command: list[str], cache: Path) -> tuple[dict[int, float], float, float]:
    """Runs a command: megabytes after so many samples encoded, the most at any time, and seconds."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=os.environ | {"EVALKIT_CACHE": str(cache)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    most = 0.0

    def sample() -> None:
        nonlocal most
        while process.poll() is None:
            most = max(most, resident(process.pid))
            time.sleep(1)

    sampler = threading.Thread(target=sample)
    sampler.start()
    found: dict[int, float] = {}
    assert process.stderr
    for line in process.stderr:
        if told := re.match(rb"predict: (\d+) of", line):
            found[int(told[1])] = resident(process.pid)
    sampler.join()
    if process.wait():
        raise SystemExit(f"the run ended with {process.returncode}")
    return found, most, time.perf_counter() - started


def main(samples: int) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as place:
        films = Path(place) / "films"
        films.mkdir()
        for i in range(FILMS):
            thing = world.Thing(list(world.COLORS)[i % 6], world.SHAPES[i % 5])
            step = world.Step(thing, "moves left", thing, SECONDS, 6, 0.5)
            film.write(world.Story((step,), (40, 40, 40)), films / f"{i:02d}.mp4", fps=4)
        words = [f"task={Path(__file__).resolve()}", f"data.root={films}", f"data.samples={samples}", "ckpt=demo"]
        command = [sys.executable, "-m", "evalkit", "run", *words, f"out={place}/out", "controls=false"]
        command += ["adapter.heads=0", "adapter.epochs=1", "batch=64", "canary=false"]
        print("| features | samples encoded | MB |\n|---|---|---|")
        for name, more in (("streamed", ["cache=off"]), ("stored", []), ("found stored", [])):
            found, most, taken = watch([*command, *more], Path(place) / "cache")
            near = (next((n for n in found if n >= tenth * samples // 10), samples) for tenth in range(1, 11, 3))
            for n in dict.fromkeys(near):
                print(f"| {name} | {n:,} | {found[n]:,.0f} |")
            print(f"| {name} | all, scored; {taken:.0f} s | {most:,.0f} at most |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
