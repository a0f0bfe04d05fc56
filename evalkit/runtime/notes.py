"""Notes on stderr: the messages of the logger "evalkit" as they stand, on the command line and where Python asks."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar

logger = logging.getLogger("evalkit")

# Of the block that a thread is in; None in a thread that a block has started, such as one that waits for a process.
_shown: ContextVar[bool | None] = ContextVar("shown", default=None)


class _Stderr(logging.Handler):
    """Writes the bare message to sys.stderr, as it is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        if _shown.get() is not False and sys.stderr is not None:  # as in a process without a console
            with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
                print(record.getMessage(), file=sys.stderr, flush=True)


_STDERR = _Stderr(logging.INFO)
# What score functions have remarked on the run that is made; None where none is.
_remarks: ContextVar[set[str] | None] = ContextVar("remarks", default=None)
_lock = threading.Lock()
_blocks = 0  # that show notes, in whichever thread
_level_is_ours = False


def are_shown() -> bool:
    """Whether this thread's notes go to stderr by evalkit's own handler, not by one of the user's or not at all."""
    return _shown.get() is True


def have_handlers() -> bool:
    """Whether handlers of the user's own take the notes; ours would tell them twice."""
    own = [handler for handler in logger.handlers if handler is not _STDERR]
    return any(not isinstance(handler, logging.NullHandler) for handler in [*own, *logging.getLogger().handlers])


@contextlib.contextmanager
def on_stderr(shown: bool = True) -> Iterator[None]:
    """Shows notes (level INFO and above) on stderr while the block runs; or keeps them off it, with shown=False.

    It counts for this thread and those that the block starts. A level that the user has given the logger holds, and so
    do handlers of the user's own.
    """
    before = _shown.set(shown)
    if shown:
        _count(1)
    try:
        yield
    finally:
        if shown:
            _count(-1)
        _shown.reset(before)


@contextlib.contextmanager
def remarks() -> Iterator[None]:
    """Logs what score functions remark while the block runs: where a run is made, and not where it is scored again."""
    before = _remarks.set(set())
    try:
        yield
    finally:
        _remarks.reset(before)


def remark(message: str) -> None:
    """Logs a warning of a score function, once in a block of `remarks`, and outside of one not at all."""
    said = _remarks.get()
    if said is not None and message not in said:
        said.add(message)
        logger.warning(message)


def _count(change: int) -> None:
    """Begins or ends a block that shows notes: the first one sets the logger up, the last one puts it back."""
    global _blocks, _level_is_ours
    with _lock:
        before, _blocks = _blocks, _blocks + change
        if not before:
            logger.addHandler(_STDERR)
            _level_is_ours = logger.level == logging.NOTSET
            if _level_is_ours:
                logger.setLevel(logging.INFO)
        elif not _blocks:
            logger.removeHandler(_STDERR)
            if _level_is_ours and logger.level == logging.INFO:
                logger.setLevel(logging.NOTSET)
