"""Prints how large the page of a board is, and how long a browser takes to show, open and filter it, as a table.

    PYTHONPATH=. python bench/page.py 200 5000

20 encoders on each of 10 tasks, as in bench/leaderboard.py. The browser is Chromium without a window; each time is from
the input, or the start of loading, until the next frame was drawn. Writing is after the runs have been validated.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from evalkit.leaderboard.page.render import render_page
from evalkit.leaderboard.runs import collect

from bench.leaderboard import make
from tests.browser import browser

# Milliseconds until what a line does is drawn.
TIMED = """
const drawn = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
const started = performance.now();
%s;
await drawn();
return performance.now() - started;
"""
PUT = "$('%s').value = '%s'; $('%s').dispatchEvent(new Event('%s'))"
NAVIGATION = "performance.getEntriesByType('navigation')[0]"
STEPS = {
    "filter encoders": PUT % ("encoder", "encoder1", "encoder", "input"),
    "sort by a task": "$('board').tHead.querySelectorAll('button')[3].click()",
    "open a run": "await show(0)",
    "filter its samples by text": PUT % ("sample-text", "12", "sample-text", "input"),
    "filter them by outcome": PUT % ("sample-outcome", "wrong", "sample-outcome", "change"),
    "open another run": "await show(board.cells.length - 1)",
}


def main(runs: int, samples: int) -> None:
    """Makes the runs, writes their page, measures, prints."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EVALKIT_CACHE"] = f"{folder}/cache"
        results = Path(folder) / "results"
        make(results, runs, samples)
        found, refused = collect(results)
        started = time.perf_counter()
        text = render_page(found, refused).encode()
        took = time.perf_counter() - started
        file = Path(folder) / "board.html"
        file.write_bytes(text)
        print(f"| {runs} runs x {samples:,} samples |  |")
        print("|---|---|")
        print(f"| size | {len(text) / 1e6:.1f} MB |")
        print(f"| write | {took:.1f} s |")
        with browser(Path(folder) / "profile") as window:
            window.size(1280)
            window.open(file)
            window.open(file)  # once the browser itself has started
            for name, mark in (("table drawn", "domInteractive"), ("loaded", "loadEventEnd")):
                print(f"| {name} | {window.run(f'return {NAVIGATION}.{mark}'):.0f} ms |")
            for name, step in STEPS.items():
                print(f"| {name} | {window.run(TIMED % step):.0f} ms |")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3] or ("200", "5000")))
