"""The size of a leaderboard's page, and the time a browser takes to show, open and filter it, as a table.

    PYTHONPATH=. python bench/page.py 200 5000

20 encoders on each of 10 tasks with 400 classes, as in bench/leaderboard.py, and one retrieval run with as many
queries, five for each video, and a picture of each video. The browser is headless Chromium; each time is from the
input, or the start of loading, until the next frame is drawn. Writing starts after the runs have been validated.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from evalkit.leaderboard.page.render import render_page
from evalkit.leaderboard.runs import collect

from bench.leaderboard import make
from evalkit.metrics.retrieval import retrieval
from evalkit.mini import film, language
from evalkit.results import run_folder
from evalkit.results.rows import Row
from tests.browser import browser
from tests.records import result_of

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
OPEN = "await show(board.cells.%s((cell) => board.columns[cell.column].task === '%s'))"
LATER = "while (!(%s)) await new Promise((done) => setTimeout(done))"
STEPS = {
    "filter encoders": PUT % ("encoder", "encoder1", "encoder", "input"),
    "sort by a task": "$('board').querySelectorAll('th button')[3].click()",
    "open a run, its confusion matrix and classes": OPEN % ("findIndex", "task0"),
    "look closer at its matrix": "const { left, top } = document.querySelector('canvas').getBoundingClientRect(); "
    "document.querySelector('canvas').dispatchEvent("
    "new MouseEvent('click', { clientX: left + 200, clientY: top + 200 }))",
    "put another run beside it": f"{PUT % ('beside', '0', 'beside', 'change')}; "
    + LATER % "$('sample-outcome').textContent.includes('better')",
    "filter its samples by text": PUT % ("sample-text", "12", "sample-text", "input"),
    "filter them by outcome": PUT % ("sample-outcome", "wrong", "sample-outcome", "change"),
    "open another run": OPEN % ("findLastIndex", "task9"),
    "open the retrieval browser": OPEN % ("findIndex", "task_retrieval"),
    "its queries by rank": PUT % ("sample-order", "worst", "sample-order", "change"),
}


def make_retrieval(results: Path, videos: Path, queries: int) -> None:
    """Writes a run of retrieval, and its videos, which are all one film."""
    generator = np.random.default_rng(0)
    names = [f"clip{i:06d}" for i in range(max(10, queries // 5))]
    ranks = np.minimum(generator.geometric(0.3, queries), len(names))
    rows = []
    for i, rank in enumerate(ranks.tolist()):
        right = i // 5 % len(names)
        near = generator.choice(len(names), 11, replace=False).tolist()
        near = [number for number in near if number != right][:10]
        if rank <= 10:
            near[rank - 1] = right
        found = {"nearest": [names[number] for number in near], "similarity": 0.5}
        prediction = {"t2v": float(rank), "v2t": float(rank)}
        rows.append(
            Row(f"{i:06d}", f"{names[right]}.mp4", target=[names[right], i % 5], prediction=prediction, detail=found)
        )
    record = result_of(rows, retrieval)
    record["task"] |= {"name": "task_retrieval", "published": {}}
    run_folder.write(results / "encoder00/retrieval/run", record, rows, "retrieval\n")
    videos.mkdir()
    film.write(language.clips("bench page", 1)[0], videos / f"{names[0]}.mp4", 4)
    for name in names[1:]:
        (videos / f"{name}.mp4").hardlink_to(videos / f"{names[0]}.mp4")


def main(runs: int, samples: int) -> None:
    """Makes the runs, writes their page, measures, prints."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EVALKIT_CACHE"] = f"{folder}/cache"
        results = Path(folder) / "results"
        make(results, runs, samples)
        make_retrieval(results, Path(folder) / "videos", samples)
        found, refused = collect(results)
        started = time.perf_counter()
        text = render_page(found, refused, videos=Path(folder) / "videos").encode()
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
