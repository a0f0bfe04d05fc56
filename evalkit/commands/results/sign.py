"""`evalkit sign RUN key=FILE`: signs a result with an SSH key."""

from __future__ import annotations

from pathlib import Path

from evalkit.errors import UserError
from evalkit.results.scores import task_files
from evalkit.results.signature import sign


def main(words: list[str]) -> int:
    """0, after the signature's file was printed.

    Raises:
        UserError: not one run and one key are named, the run does not validate, or it cannot be signed.
    """
    words, files = task_files(words)
    keys = [word.removeprefix("key=") for word in words if word.startswith("key=")]
    runs = [word for word in words if not word.startswith("key=")]
    if len(runs) != 1 or len(keys) != 1 or not keys[0]:
        raise UserError(f"sign takes one run and key=FILE, a private SSH key; got {' '.join(words) or 'nothing'}")
    print(sign(Path(runs[0]), Path(keys[0]).expanduser(), files))
    return 0
