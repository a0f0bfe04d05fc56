"""Ctrl-C ends a command in a line, with exit code 130; once more, at once."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

EXIT_CODE = 130


class Interrupt:
    """What Ctrl-C does to a command in this process.

    Args:
        line: what is to be said once it has come.
    """

    def __init__(self, line: Callable[[], str]) -> None:
        self.line, self.came, self.said = line, False, False

    def handle(self) -> None:
        """From now on, the first Ctrl-C raises KeyboardInterrupt, and a second one, while that is cleaned up, ends.

        What this process has started ends with it. Where Ctrl-C is ignored, as in a job that a shell runs in the
        background, or somebody else handles it, that stays so.
        """
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handler)
            atexit.register(self._end)  # the first one that is registered, and so the last that is called

    def say(self) -> None:
        """The line, on stderr: once."""
        if not self.said:
            self.said = True
            with contextlib.suppress(OSError):  # nobody reads it
                # Not by sys.stderr, which whoever was interrupted may be writing to.
                os.write(2, f"{self.line()}\n".encode(errors="backslashreplace"))

    def _handler(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            self.say()
            os._exit(EXIT_CODE)
        self.came = True
        raise KeyboardInterrupt

    def _end(self) -> None:
        """Ends the interpreter, which would give the signal for its exit code where it was interrupted in an `exec`."""
        if self.came:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            os._exit(EXIT_CODE)
