"""Where a number comes from: the command, the code, the machine, and what it cost."""

from __future__ import annotations

import os
import platform
import re
import resource
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from evalkit.errors import DISTRIBUTION
from evalkit.runtime import machine


def provenance(
    words: Sequence[str], seed: int, device: str, decoder: str, started: datetime, finished: datetime
) -> dict[str, Any]:
    """What result.json's `provenance` holds.

    The commit is that of evalkit's own checkout, because that is the code that made the number; the folder in which
    the command was typed may be any repository. An installed evalkit has none: its version is in `packages`.

    Args:
        words: what followed `evalkit` on the command line.
        seed: of the run.
        device: what the encoder ran on.
        decoder: the default decoder and its version.
        started: with a time zone; so is `finished`.
        finished: end of the run.
    """
    commit, dirty = commit_and_dirty(Path(__file__).parent)
    return {
        "command": shlex.join(["evalkit", *words]),
        "git_commit": commit,
        "dirty": dirty,
        "packages": packages(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "decoder": decoder,
        "seed": seed,
        "started": started.astimezone(UTC).isoformat(timespec="seconds"),
        "finished": finished.astimezone(UTC).isoformat(timespec="seconds"),
    }


def commit_and_dirty(folder: Path) -> tuple[str | None, bool | None]:
    """The commit of the repository that tracks a folder, and whether anything in it was changed or added since.

    None and None where no repository tracks the folder (it may lie untracked inside one, as a virtual environment
    does), where git is missing, or where it refuses the repository.
    """
    if not _git(folder, "ls-files", "."):
        return None, None
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", ":/")
    return (None, None) if commit is None or changes is None else (commit, changes != "")


def _git(folder: Path, *words: str) -> str | None:
    # In a git hook these name another repository, and they would win over -C.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=30,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def packages() -> dict[str, str]:
    """The installed versions of evalkit and of what it depends on, by name; extras and what is absent are left out."""
    try:
        needed = [line for line in requires(DISTRIBUTION) or [] if "extra ==" not in line]
    except PackageNotFoundError:  # evalkit run from its folder, not installed
        return {}
    versions = {}
    for name in sorted(["evalkit", *(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed)]):
        try:
            versions[name] = version(DISTRIBUTION if name == "evalkit" else name)
        except PackageNotFoundError:  # not needed on this platform
            continue
    return versions


def peak_memory_bytes() -> int:
    """The largest resident memory so far of this process plus that of its largest ended child, in bytes.

    An estimate: the two peaks need not coincide, and of several workers only the largest is known to the system.
    """
    return machine.peak_memory(ever=True) + machine.largest_resident(resource.RUSAGE_CHILDREN)
