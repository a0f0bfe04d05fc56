"""Processes that call functions: results in order, errors of their own kind, and none that outlives its parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.errors import UserError
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
    (folder / f"{os.getpid()}.child").touch()
    while True:
        pass


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


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_a_plain_script_that_is_killed(ending: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys\n"
        "from evalkit.runtime.processes import ProcessPool\n"
        "from tests.runtime.test_processes import spin\n"
        "pool = ProcessPool(2, 'spinning', 'numpy')\n"
        "list(pool.map(spin, [(pathlib.Path(sys.argv[1]),)] * 2))\n"
    )
    path = os.pathsep.join([str(ROOT), *sys.path])
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=os.environ | {"PYTHONPATH": path})
    assert wait_until(lambda: len(list(tmp_path.glob("*.child"))) == 2, 60)
    pids = [int(file.stem) for file in tmp_path.glob("*.child")]
    templates = {int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) for pid in pids}
    assert len(templates) == 1
    parent.send_signal(ending)
    parent.wait(timeout=patience(30))
    assert wait_until(lambda: not any(map(alive, [*pids, *templates])), 10)
