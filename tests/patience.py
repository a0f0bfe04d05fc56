"""How long a test may wait on this machine, as busy as it is now."""

import time
from collections.abc import Callable

# Seconds that `_compute` takes on an idle core of the machine on which the limits in the tests were chosen.
REFERENCE = 0.018


def patience(seconds: float) -> float:
    """These seconds, times how much slower than on that machine a fixed computation runs now (at least once)."""
    start = time.perf_counter()
    _compute()
    return seconds * max(1.0, (time.perf_counter() - start) / REFERENCE)


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether a condition comes true in these seconds, or in as many more as the machine is slower."""
    start = time.monotonic()
    while not condition():
        waited = time.monotonic() - start
        if waited > seconds and waited > patience(seconds):
            return bool(condition())
        time.sleep(0.05)
    return True


def _compute() -> int:
    return sum(i * i for i in range(300_000))
