"""Ctrl-C once and twice, of processes as a terminal has them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.patience import patience, wait_until
from tests.runtime.test_processes import alive

ROOT = Path(__file__).parents[2]

COMMAND = """
import os, signal, sys, time
from evalkit.runtime.interrupt import Interrupt
from evalkit.runtime.processes import ProcessPool

pool = ProcessPool(1, "waiting", "time")
interrupt = Interrupt(lambda: "interrupted")
interrupt.handle()
[child] = pool.map(os.getpid, [()])
try:
    print(child, flush=True)
    exec("time.sleep(60)")  # after which Python itself would give the signal as the exit code
except KeyboardInterrupt:
    interrupt.say()
    print("cleaning", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def started(program: str, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, start_new_session=True)


@pytest.mark.parametrize("times", [1, 2])
def test_it_ends_with_its_code_and_its_children_at_once_the_second_time(times: int) -> None:
    """Also where the first is still being cleaned up after, which would take a minute here."""
    process = started(COMMAND, "60" if times == 2 else "0")
    assert process.stdout
    child = int(process.stdout.readline())
    begun = time.monotonic()
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, noise = process.communicate()
    assert (process.returncode, noise) == (130, "interrupted\n")
    assert time.monotonic() - begun < patience(10)
    assert wait_until(lambda: not alive(child), 10)


def test_where_it_is_ignored_it_stays_so() -> None:
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from evalkit.runtime.interrupt import Interrupt\n"
        "Interrupt(str).handle(); signal.raise_signal(signal.SIGINT); print('goes on')"
    )
    output, noise = started(program).communicate()
    assert (output, noise) == ("goes on\n", "")
