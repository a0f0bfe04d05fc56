"""Memory that a process shares with its workers: handed out, given back by itself, and done without."""

import errno
import gc
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.runtime import machine
from evalkit.runtime.processes import ProcessPool
from evalkit.runtime.shared import PAGE, SharedMemory
from evalkit.video.workers import DecodePool
from tests.patience import patience
from tests.runtime.filling import die_late, elsewhere, filled

ROOT = Path(__file__).parents[2]


def starts(memory: SharedMemory, *extents: Any) -> list[int]:
    return [memory.place(extent)[0] // PAGE for extent in extents]


def test_extents_are_free_again_once_nothing_refers_to_them() -> None:
    memory = SharedMemory(4 * PAGE)
    a, b, c = memory.take(PAGE), memory.take(PAGE + 1), memory.take(PAGE)
    assert starts(memory, a, b, c) == [0, 1, 3] and memory.take(1) is None
    assert b is not None
    part = b.data[10:20]
    del b
    assert memory.take(1) is None  # a part of it is still in use
    del part
    again = memory.take(2 * PAGE)
    assert starts(memory, again) == [1] and memory.take(5 * PAGE) is None


@pytest.mark.parametrize("size", [0, 20 * PAGE, 1 << 30])
def test_results_are_the_same_with_and_without_shared_memory(size: int) -> None:
    """Whatever was said of their size, and however many are kept."""
    arguments = [(number, 5 * PAGE) for number in range(12)]
    with ProcessPool(2, "filling", "numpy", shared=size) as pool:
        for said in (0, 8 * PAGE, 10):
            both = [list(pool.map(call, arguments, sizes=[said] * 12)) for call in (filled, elsewhere)]
            for number, ((array, beside), copy) in enumerate(zip(*both, strict=True)):
                assert array.shape == copy.shape == (5 * PAGE,) and array.flags.writeable and copy.flags.writeable
                assert (array == number).all() and (copy == number).all() and beside.tolist() == [number] * 3


def test_memory_is_used_again_while_results_are_read_one_by_one() -> None:
    with ProcessPool(2, "filling", "numpy", shared=1 << 30) as pool:
        results = pool.map(filled, [(n, 10 * PAGE) for n in range(100)], sizes=[11 * PAGE] * 100)
        for number, (array, _) in enumerate(results):
            assert (array == number).all()
        assert pool.memory and pool.memory._allocated <= 8 * 11 * PAGE


def test_results_that_wait_take_half_of_the_memory_and_one_is_always_worked_out() -> None:
    for size, most in ((100 * PAGE, 4), (PAGE, 1)):
        with ProcessPool(2, "filling", "numpy", shared=size) as pool:
            results = pool.map(filled, [(n, 10 * PAGE) for n in range(20)], sizes=[11 * PAGE] * 20)
            kept = [next(results) for _ in range(2)]
            assert pool.memory and pool.memory._allocated <= min(size, (most + 2) * 11 * PAGE)
            assert [int(array[0]) for array, _ in [*kept, *results]] == list(range(20))


def test_memory_of_a_process_that_is_killed_is_written_by_nobody_else(tmp_path: Path) -> None:
    with ProcessPool(1, "dying", "numpy", shared=1 << 20) as pool:
        calls = [(number, PAGE, tmp_path / "mark") for number in range(4)]
        results = list(pool.map(die_late, calls, sizes=[2 * PAGE] * 4))
        assert [set(result.tolist()) for result in results] == [{0}, {1}, {2}, {3}]


def test_pools_that_work_beside_one_another_divide_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    share = machine.share

    def noted(processes: int) -> int:
        asked.append(processes)
        return share(processes)

    monkeypatch.setattr(machine, "share", noted)
    with ProcessPool(1, "filling", "numpy", beside=4) as pool:
        list(pool.map(elsewhere, [(1, 10)]))
    assert asked == [4]
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 30)
    assert [machine.shared_clips(count) for count in (1, 4)] == [1 << 28, 1 << 26]
    assert DecodePool(2, beside=4)._processes.shared == 1 << 26


def refuse(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("missing", ["memfd_create", "posix_fallocate", "ftruncate"])
def test_without_memory_to_share_results_are_copied_and_one_note_says_why(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, missing, refuse)
    with caplog.at_level(logging.WARNING, "evalkit"), ProcessPool(2, "filling", "numpy", shared=1 << 20) as pool:
        for _ in range(2):
            results = list(pool.map(filled, [(n, PAGE) for n in range(6)], sizes=[2 * PAGE] * 6))
            assert [set(array.tolist()) for array, _ in results] == [{n} for n in range(6)]
    (note,) = caplog.messages
    assert note.startswith("no memory to share with the filling processes (") and "No space left" in note


def test_a_system_that_has_no_such_memory_does_without_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(os, "memfd_create")  # macOS
    with ProcessPool(2, "filling", "numpy", shared=1 << 20) as pool:
        results = list(pool.map(filled, [(n, PAGE) for n in range(6)], sizes=[2 * PAGE] * 6))
    assert [set(array.tolist()) for array, _ in results] == [{n} for n in range(6)] and not caplog.messages


def test_nothing_is_left_of_it_when_the_pool_is_closed_or_its_process_killed() -> None:
    before = set(os.listdir("/dev/shm"))
    descriptors = len(os.listdir("/proc/self/fd"))
    with ProcessPool(1, "filling", "numpy", shared=1 << 20) as pool:
        list(pool.map(filled, [(1, PAGE)], sizes=[2 * PAGE]))
    del pool
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    code = (
        "import os, signal; from evalkit.runtime.processes import ProcessPool\n"
        "from tests.runtime.test_shared import PAGE, filled\n"
        "pool = ProcessPool(1, 'filling', 'numpy', shared=1 << 20)\n"
        "print(next(pool.map(filled, [(7, PAGE)] * 9, sizes=[2 * PAGE] * 9))[0][0], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=patience(60))
    assert ended.stdout == b"7\n" and ended.returncode == -signal.SIGKILL
    assert set(os.listdir("/dev/shm")) <= before
