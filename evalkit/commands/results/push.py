"""`evalkit push results=... repo=OWNER/NAME [as=...] [confirm=true]`: opens a pull request on the Hugging Face hub."""

from __future__ import annotations

import importlib
from typing import cast


def main(words: list[str]) -> int:
    """The exit code, after the pull request was opened or its files were printed; leaderboard/ is found by name."""
    return cast(int, importlib.import_module("evalkit.leaderboard.hub").push(words))
