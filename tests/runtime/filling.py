"""What processes are called with in tests of shared memory: each imports this module, which is small."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.runtime import shared


def filled(number: int, size: int) -> Any:
    """Bytes made in shared memory where there is room, and others beside them."""
    array = shared.empty(size)
    array[:] = number
    return array, np.full(3, number, np.int64)


def elsewhere(number: int, size: int) -> Any:
    return np.full(size, number, np.uint8)


def die_late(number: int, size: int, mark: Path) -> Any:
    """Writes to its memory, and is killed the first time."""
    array = shared.empty(size)
    array[:] = 255
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return array - np.uint8(255 - number)
