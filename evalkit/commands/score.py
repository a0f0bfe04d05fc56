"""`evalkit score RUN`: scores a result's predictions again."""

from __future__ import annotations

from pathlib import Path

from evalkit.errors import UserError
from evalkit.results.scores import task_files
from evalkit.results.table import table
from evalkit.results.validate import rescore


def main(words: list[str]) -> int:
    """1 where the new scores differ from the stored ones, else 0.

    Raises:
        UserError: not one run is named, or it cannot be scored.
    """
    runs, files = task_files(words)
    if len(runs) != 1:
        raise UserError(f"score takes the folder of one run, got {' '.join(runs) or 'nothing'}")
    rescored = rescore(Path(runs[0]), files)
    print(table(rescored))
    return 1 if rescored["differences"] else 0
