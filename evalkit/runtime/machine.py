"""Cores and memory that this process may use."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

# Bytes that decoding one takes: 16 reference frames of 8K in ten bits, and one as RGB in floats.
LARGE_VIDEO = 4 << 30
# Bytes of decoded clips: a batch of 128 clips of 64 frames of 288 x 288 is encoded while the next one is decoded.
MOST_SHARED, MOST_PINNED = 8 << 30, 2 << 30


def cores() -> int:
    """Processor cores that this process may use, by its affinity and, in a container, by its quota; at least 1."""
    # macOS has no affinity; os.cpu_count() counts what a scheduler may have granted to others.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _quota(Path("/sys/fs/cgroup")) or allowed))


def threads(processes: int = 1) -> int:
    """Threads of arithmetic of each of so many processes: OMP_NUM_THREADS if that is set, else its part of the cores.

    Of several processes on the same cores, two threads each would mostly wait for one another.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else max(1, cores() // processes)


def free_memory() -> int:
    """Bytes of memory that this process may still take, by the system and, in a container, by its limit.

    Memory that only holds copies of files counts as free. Where the system does not say, all of its memory does.
    """
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, ValueError, KeyError):  # macOS
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    left = _left(Path("/sys/fs/cgroup"))
    return free if left is None else min(free, left)


def give_back_memory() -> None:
    """Hands memory that was freed back to the system; glibc keeps it otherwise, where something lies behind it."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


_earlier_peak = 0  # bytes, before the system was last told to forget this process's peak


def peak_memory(ever: bool = False) -> int:
    """The largest resident memory of this process, in bytes, since `reset_peak_memory`.

    Args:
        ever: since the process began, whatever was reset.
    """
    since = largest_resident(resource.RUSAGE_SELF)
    return max(since, _earlier_peak) if ever else since


def largest_resident(who: int) -> int:
    """What the system has as the largest resident memory, in bytes: of `resource.RUSAGE_SELF` or RUSAGE_CHILDREN."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return unit * resource.getrusage(who).ru_maxrss


def reset_peak_memory() -> None:
    """Begins anew with `peak_memory`, where the system can: Linux forgets a peak when asked."""
    global _earlier_peak
    _earlier_peak = peak_memory(ever=True)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def shared_clips(processes: int, pinned: bool = False) -> int:
    """Bytes that decoded clips may take between workers and each of so many processes that read them.

    What is pinned is taken as a whole, and for good.
    """
    return min(MOST_PINNED if pinned else MOST_SHARED, free_memory() // 4 // processes)


def share(processes: int) -> int:
    """Bytes of memory that each of so many processes may take: its part of all, but at least what a large video needs.

    All is the machine's memory or the container's limit, whatever is free now: what decodes today decodes tomorrow.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _limit(Path("/sys/fs/cgroup"))
    total = total if limit is None else min(total, limit)
    return max(total // processes, min(total // 2, LARGE_VIDEO))


def _limit(root: Path) -> int | None:
    """Bytes of a container's limit; None where there is none."""
    for file in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            return int(file.read_text())
    return None


def _left(root: Path) -> int | None:
    """Bytes below a container's limit; None where there is none."""
    try:
        if (root / "memory.max").is_file():  # version 2: "max" or bytes
            names = ("memory.max", "memory.current", "inactive_file")
        else:
            root, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used = (int((root / name).read_text()) for name in names[:2])
        fields = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(fields[names[2]]))
    except (OSError, ValueError, KeyError):
        return None


def _quota(root: Path) -> int:
    """Whole cores of a container's quota, rounded up; 0 where there is none."""
    try:
        if (root / "cpu.max").is_file():  # version 2: "max 100000" or "200000 100000", in microseconds
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return 0 if quota == "max" or int(quota) <= 0 else -(-int(quota) // int(period))
    except (OSError, ValueError):
        return 0
