"""Processes that end with the one that started them, however that ends: by a signal, twice Ctrl-C, a crash."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

EVERY_S = 0.5  # seconds between two looks at who the parent is

_PR_SET_PDEATHSIG = 1


def gone(parent: int) -> bool:
    """Whether this process's parent is no longer this one: another process has inherited it."""
    return os.getppid() != parent


def end_with(parent: int) -> None:
    """Has a thread kill this process once its parent is gone.

    A closed pipe would not do alone: whatever the parent has forked holds its ends, too. A call that holds the
    interpreter's lock delays the end.

    SIGUSR2, by which a scheduler warns all processes of a job before it takes the machine back, is left to the parent.
    """
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def watch() -> None:
        while not gone(parent):
            time.sleep(EVERY_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()


def killed_with(parent: int) -> None:
    """Has the kernel kill this process with its parent, even in a call that holds the interpreter's lock; on Linux.

    The kernel means the thread that forked it: it must live as long as the parent does.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if gone(parent):  # before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)
