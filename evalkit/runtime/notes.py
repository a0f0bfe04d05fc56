"""Notes on stderr: the messages of the logger "evalkit" as they stand, on the command line and where Python asks."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

logger = logging.getLogger("evalkit")


class _Stderr(logging.Handler):
    """Writes the bare message to sys.stderr, as it is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None:  # as in a process without a console
            print(record.getMessage(), file=sys.stderr, flush=True)


_STDERR = _Stderr()


def are_shown() -> bool:
    """Whether notes go to stderr by evalkit's own handler, and not by one of the user's or not at all."""
    return _STDERR in logger.handlers


@contextlib.contextmanager
def on_stderr(shown: bool = True) -> Iterator[None]:
    """Shows notes (level INFO and above) on stderr while the block runs; or keeps them off it, with shown=False."""
    level, were_shown = logger.level, are_shown()
    _show(shown, logging.INFO if shown else logging.NOTSET)
    try:
        yield
    finally:
        _show(were_shown, level)


def _show(shown: bool, level: int) -> None:
    (logger.addHandler if shown else logger.removeHandler)(_STDERR)
    logger.setLevel(level)
