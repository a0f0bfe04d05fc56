"""`evalkit sweep task=NAME ckpt=ENCODER adapter.lr=A,B ...`: runs all combinations of values."""

from __future__ import annotations

from evalkit.launch import sweep


def main(words: list[str]) -> int:
    """1 where a pass failed, else 0.

    Raises:
        UserError: a word is wrong; nothing has been run then.
    """
    return sweep.sweep(words)
