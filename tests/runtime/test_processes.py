"""Processes that call functions: results in order, errors of their own kind, and none that outlives its parent."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.runtime import machine
from evalkit.runtime.processes import ProcessPool
from tests.patience import patience, wait_until

ROOT = Path(__file__).parents[2]


def double(number: int) -> np.ndarray:
    return np.full((number, 2), 2 * number, np.uint8)


def fail(kind: str) -> Any:
    if kind == "lambda":
        return lambda: None
    raise {"user": UserError("a word is wrong"), "disk": OSError(28, "No space left", "film.mp4")}[kind]


def spin(folder: Path) -> None:
    """Never lets another thread run; other processes go first."""
    os.nice(19)
    (folder / f"{os.getpid()}.child").touch()
    re.match("(a+)+$", "a" * 60 + "b")


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def have_ended(pids: Iterable[int]) -> bool:
    return not any(map(alive, pids))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_results_are_in_order_and_hold_their_arrays() -> None:
    with ProcessPool(2, "doubling", "numpy") as pool:
        for count in (9, 0, 3):
            results = list(pool.map(double, [(number,) for number in range(count)]))
            assert [result.tolist() for result in results] == [double(number).tolist() for number in range(count)]
            assert all(result.flags.writeable for result in results)


def test_an_error_of_a_call_is_raised_where_its_result_is_due_and_keeps_its_kind() -> None:
    with ProcessPool(1, "failing", "numpy") as pool:
        with pytest.raises(UserError, match=r"^a word is wrong"):
            list(pool.map(fail, [("user",)]))
        with pytest.raises(OSError) as caught:
            list(pool.map(fail, [("disk",)]))
        assert (caught.value.errno, caught.value.filename) == (28, "film.mp4")
        assert "in fail" in caught.value.__notes__[0]
        with pytest.raises(RuntimeError, match=r"^a result that cannot be pickled: function"):
            list(pool.map(fail, [("lambda",)]))


def test_a_call_whose_process_dies_twice_is_an_error_or_what_the_caller_makes_of_it() -> None:
    with ProcessPool(2, "dying", "numpy") as pool:
        with pytest.raises(RuntimeError, match=r"^the dying process died twice \(signal 9, SIGKILL"):
            list(pool.map(die, [(number,) for number in range(3)]))
        results = list(pool.map(die, [(number,) for number in range(3)], lost=len))
        assert results[0] == 0 and results[1] > 40 and results[2] == 2


STARTER = """
import os, pathlib, signal, subprocess, sys, threading, time
from evalkit.runtime import machine
from evalkit.runtime.processes import ProcessPool
from tests.runtime.test_processes import spin

folder = pathlib.Path(sys.argv[1])
apart = "import os, pathlib, sys, time; from evalkit.runtime import parent; parent.end_with(int(sys.argv[2])); "
apart += "pathlib.Path(sys.argv[1], f'{os.getpid()}.child').touch(); time.sleep(1000)"
subprocess.Popen([sys.executable, "-c", apart, str(folder), str(os.getpid())])
pool = ProcessPool(2, "spinning", "numpy")
calls = threading.Thread(target=lambda: list(pool.map(spin, [(folder,), (folder,)])), daemon=True)
calls.start()
while len(list(folder.glob("*.child"))) < 3:
    time.sleep(0.02)
if not (fork := os.fork()):  # the user's own, which holds whatever is open here
    time.sleep(1000)
(folder / "begun").write_text(str(fork))
(folder / "begun").rename(folder / "ready")
calls.join()
"""


def test_no_process_outlives_the_one_that_started_it_however_it_ends(tmp_path: Path) -> None:
    """Neither workers, whose calls never let go of the interpreter, nor their template, nor a pass of a sweep."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    starters = {}
    for endings in (["SIGKILL"], ["SIGTERM"], ["SIGHUP"], ["SIGINT", "SIGINT"]):
        folder = tmp_path / "-".join(endings)
        folder.mkdir()
        command = [sys.executable, "-c", STARTER, str(folder)]
        starters[folder] = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    forks, left = [], {}
    try:
        for folder, starter in starters.items():
            assert wait_until((folder / "ready").is_file, 60)
            forks.append(int((folder / "ready").read_text()))
            pids = {int(file.stem) for file in folder.glob("*.child")}
            left[folder.name] = pids | {parent_of(pid) for pid in pids} - {starter.pid}
            assert len(left[folder.name]) == 4
            for ending in folder.name.split("-"):
                starter.send_signal(signal.Signals[ending])
            starter.wait(timeout=patience(30))
        assert all(map(alive, forks))
        for ending, pids in left.items():
            assert wait_until(partial(have_ended, pids), 10), ending
    finally:
        for fork in forks:
            os.kill(fork, signal.SIGKILL)
        for starter in starters.values():
            starter.kill()
            starter.wait()


def test_a_fork_that_ends_leaves_the_processes_to_who_started_them(tmp_path: Path) -> None:
    """And may not use them: two that talk through one pipe get each other's answers."""
    script = (
        "import os, sys\n"
        "from evalkit.runtime.processes import ProcessPool\n"
        "pool = ProcessPool(1, 'counting', 'numpy')\n"
        "assert list(pool.map(os.getpid, [()])) != [os.getpid()]\n"
        "before = list(pool.map(os.getpid, [()]))\n"
        "if not os.fork():\n"
        "    try:\n"
        "        list(pool.map(os.getpid, [()]))\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
        "    pool.close()\n"
        "    sys.exit()\n"
        "os.wait()\n"
        "assert list(pool.map(os.getpid, [()])) == before\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("the counting processes belong to process ")


def allocate(size: int) -> int:
    return int(np.ones(size, np.uint8)[-1])


def test_each_process_has_its_share_of_the_memory_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "share", lambda processes: 256 << 20)
    with ProcessPool(1, "filling", "numpy") as pool:
        assert list(pool.map(allocate, [(100 << 20,)])) == [1]
        with pytest.raises(MemoryError):
            list(pool.map(allocate, [(300 << 20,)]))
        assert list(pool.map(allocate, [(100 << 20,)])) == [1]  # nor is it lost


@pytest.mark.parametrize("limit", [3e6, 1e300, float("inf")])
def test_a_time_limit_may_be_longer_than_the_system_can_wait(limit: float) -> None:
    with ProcessPool(1, "doubling", "numpy") as pool:
        assert [result.tolist() for result in pool.map(double, [(1,)], time_limit=limit)] == [[[2, 2]]]
