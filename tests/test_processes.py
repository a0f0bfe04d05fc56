"""`make test` comes to an end, and runs every test, whatever a test does to its process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import patience

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CONFTEST = "from tests.processes import *\n"
DEATHS = {
    "exits": "import os; os._exit(0)",
    "is_killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "sleeps": "import time; time.sleep(1000)",
    "keeps_the_interpreter": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
}


def suite(folder: Path, limit: float = 2) -> subprocess.CompletedProcess[str]:
    """The tests of a folder, run as `make test` runs the project's, with so many seconds for each."""
    (options,) = re.findall(r"-m pytest (-n 2 .*restart \d+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options.split(), "-p", "no:cacheprovider", "."],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "EVALKIT_TEST_LIMIT": str(limit)},
        capture_output=True,
        text=True,
        timeout=patience(120),
    )


def test_a_test_that_ends_its_process_or_hangs_fails_and_all_others_run(tmp_path: Path) -> None:
    """Before it, files are finished; after it, files have not begun, and its own file has tests left."""
    for file, death in zip("abcdefg", ["", "", *DEATHS, ""], strict=True):
        tests = [f"def test_{number}():\n    pass\n" for number in range(4)]
        if death:
            tests.insert(1, f"def test_{death}():\n    {DEATHS[death]}\n")
        (tmp_path / f"test_{file}.py").write_text("\n\n".join(tests))
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    ended = suite(tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    for death in DEATHS:
        assert re.search(rf"^FAILED test_.\.py::test_{death} ", ended.stdout, re.MULTILINE), ended.stdout
    assert "4 failed, 28 passed in " in ended.stdout, ended.stdout
    assert ended.stderr.count("Timeout (") == 2


def test_a_process_that_hangs_between_two_tests_ends_the_suite(tmp_path: Path) -> None:
    hangs = (
        "import os, time\n\n\ndef pytest_runtest_logfinish():\n"
        "    if 'PYTEST_XDIST_WORKER' in os.environ:\n        time.sleep(1000)\n"
    )
    (tmp_path / "conftest.py").write_text(CONFTEST + hangs)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text("def test_one():\n    pass\n\n\ndef test_other():\n    pass\n")
    ended = suite(tmp_path, limit=0.5)
    assert ended.returncode == 1 and "Timeout (" in ended.stderr, ended.stdout + ended.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="this system has no real-time processes")
def test_a_test_that_makes_its_process_a_real_time_one_leaves_it_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text(
        "import contextlib, os\n\n\ndef test_one():\n"
        "    with contextlib.suppress(PermissionError):  # not of root\n"
        "        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))\n\n\n"
        "def test_other():\n    assert os.sched_getscheduler(0) == os.SCHED_OTHER\n"
    )
    ended = suite(tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
