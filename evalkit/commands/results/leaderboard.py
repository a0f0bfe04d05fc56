"""`evalkit leaderboard [results=results out=results/README.md]`: compares all results, with published scores."""

from __future__ import annotations

import importlib
from typing import cast


def main(words: list[str]) -> int:
    """The exit code, after the board was written; leaderboard/ is found by name, as the core imports none of it."""
    return cast(int, importlib.import_module("evalkit.leaderboard.board").board(words))
