"""Takes the pictures of the leaderboard's page that docs/ shows, from the results in leaderboard/results.

    PYTHONPATH=. python bench/pictures.py

The films of the miniatures come from the cache, which `make demo-all` has filled.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from evalkit.leaderboard.page.render import render_page
from evalkit.leaderboard.runs import collect

from evalkit.runtime import cache
from tests.browser import browser

ROOT = Path(__file__).parents[1]
OPEN = "await show(board.cells.findIndex((cell) => board.columns[cell.column].task === '%s'))"
SHOTS = {  # width, height, what is done before
    "page": (1400, 1000, ""),
    "page_run": (1400, 1000, f"{OPEN % 'ssv2@mini'}; $('classes').scrollIntoView()"),
    "page_phone": (390, 844, f"{OPEN % 'retrieval@mini'}; $('sample-order').value = 'worst';"
                   "$('sample-order').dispatchEvent(new Event('change')); $('samples').scrollIntoView()"),
}  # fmt: skip


def main() -> None:
    """Writes the page, opens it, writes the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "board.html"
        runs, refused = collect(ROOT / "leaderboard/results")
        file.write_text(render_page(runs, refused, videos=cache.folder() / "mini"), encoding="utf-8")
        with browser(Path(folder) / "profile") as window:
            for name, (width, height, script) in SHOTS.items():
                window.size(width, height)
                window.open(file)
                window.run(f"{script}; await new Promise((done) => setTimeout(done, 500))")
                (ROOT / f"docs/{name}.png").write_bytes(window.picture())


if __name__ == "__main__":
    main()
