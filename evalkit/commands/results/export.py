"""`evalkit export to=FORMAT [results=results out=FOLDER]`: results as lm_eval, mteb, hf, eee, csv, ... have them."""

from __future__ import annotations

import importlib
from typing import cast


def main(words: list[str]) -> int:
    """The exit code, after the files were written; leaderboard/ is found by name, as the core imports none of it."""
    return cast(int, importlib.import_module("evalkit.leaderboard.exports").export(words))
