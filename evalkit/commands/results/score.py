"""`evalkit score RUN`: recomputes a result's scores; with predictions=FILE, scores those of another program."""

from __future__ import annotations

from pathlib import Path

from evalkit.errors import UserError
from evalkit.results.run_folder import RESULT, below, load
from evalkit.results.scores import task_files
from evalkit.results.table import table
from evalkit.results.validate import rescore


def main(words: list[str]) -> int:
    """1 where the new scores differ from the stored ones, else 0.

    Raises:
        UserError: not one run is named, or it cannot be scored; or predictions made elsewhere are not as they should.
    """
    if any(word.startswith("predictions=") for word in words):
        from evalkit.pipeline.foreign.record import score_predictions  # imports torch

        folder = score_predictions(words)
        print(table(load(folder)))
        print(folder / RESULT)
        return 0
    runs, files = task_files(words)
    if len(runs) != 1:
        there = "" if runs else below(Path("results"), "results")
        raise UserError(f"score takes the folder of one run, got {' '.join(runs) or 'nothing'}{there}")
    rescored = rescore(Path(runs[0]), files)
    print(table(rescored))
    return 1 if rescored["differences"] else 0
