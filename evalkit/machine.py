"""What this process may use of the machine."""

from __future__ import annotations

import os
from pathlib import Path


def cores() -> int:
    """Processor cores that this process may use: by its affinity and, in a container, by its quota; at least 1."""
    # macOS has no affinity; os.cpu_count() counts what a scheduler may have granted to others.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _quota(Path("/sys/fs/cgroup")) or allowed))


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
