"""A run that is killed, and the same run after it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_a_killed_run_leaves_nothing_that_changes_the_next() -> None:
    # One kill while a head is fitted; tests/pipeline/test_run.py has one while features are encoded, bench/README.md
    # fifty.
    ended = subprocess.run(
        [sys.executable, "bench/killed.py", "1", "1"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [line.split(" | ") for line in ended.stdout.splitlines()[2:]]
    assert [row[-1].removesuffix(" |") for row in rows] == ["1 of 1"]
    assert float(rows[0][2]) >= 12  # what was encoded before the fit was kept
