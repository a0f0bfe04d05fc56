"""The time of a leaderboard of 200 runs with 5,000 samples each, as one Markdown table.

    PYTHONPATH=. python bench/leaderboard.py 200 5000

20 encoders on each of 10 tasks. Bare reading reads every prediction as JSON and does nothing with it. The first board
validates every run, which includes scoring it again; the second finds the same bytes and their scores in the cache.
Writing the runs takes longer than all that is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from evalkit.leaderboard import board

from evalkit.metrics.classification import top1_top5
from evalkit.results import run_folder
from evalkit.results.rows import Row
from tests.records import result_of

CLASSES = 400


def make(results: Path, runs: int, samples: int) -> None:
    """Writes the runs."""
    generator = np.random.default_rng(0)
    for number in range(runs):
        encoder, task = f"encoder{number // 10:02d}", f"task{number % 10}"
        guesses = generator.integers(1, CLASSES, (samples, 5))
        guesses[generator.random(samples) < 0.5 + number / runs / 5, 0] = 0  # right
        rows = [
            Row(f"{i:06d}", f"{i:06d}.mp4", target=i % CLASSES, prediction=((i + guess) % CLASSES).tolist())
            for i, guess in enumerate(guesses)
        ]
        record = result_of(rows, top1_top5)
        record["encoder"] |= {"name": encoder, "ckpt": encoder, "sha256": f"{number // 10:064x}"}
        record["task"] |= {"name": task, "published": {}}
        run_folder.write(results / encoder / task / "run", record, rows, f"{number}\n")


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(runs: int, samples: int) -> None:
    """Makes the runs, measures, prints."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EVALKIT_CACHE"] = f"{folder}/cache"
        results = Path(folder) / "results"
        make(results, runs, samples)

        def bare() -> None:
            for file in results.rglob(run_folder.PREDICTIONS):
                for line in file.read_text().splitlines():
                    json.loads(line)

        def page() -> None:
            with contextlib.redirect_stdout(sys.stderr):
                board.board([f"results={results}"])

        took = {"bare reading": seconds(bare), "board, first": seconds(page)}
        first = (results / "README.md").read_bytes()
        took["board, again"] = seconds(page)
        same = first == (results / "README.md").read_bytes()
        print(f"| {runs} runs x {samples:,} samples | s | / bare reading |")
        print("|---|---|---|")
        for name, one in took.items():
            print(f"| {name} | {one:.2f} | {one / took['bare reading']:.2f} |")
        print(f"\n{len(first) / 1e3:.0f} kB, {'the same' if same else 'OTHER'} bytes again")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3] or ("200", "5000")))
