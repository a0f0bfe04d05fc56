"""Many clips through worker processes."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evalkit.api import Views
from evalkit.runtime import processes, worker
from evalkit.runtime.processes import AHEAD
from evalkit.runtime.worker import Template, Worker
from evalkit.video.clips import Decoded, Failure, read_clip
from evalkit.video.workers import DecodePool, read_clips
from tests.patience import patience, wait_until
from tests.video.readers import named, requests
from tests.video.test_clips import decoded


def alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended and waits for its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"


def gone(pids: list[int], seconds: float = 10.0) -> bool:
    return wait_until(lambda: not any(alive(pid) for pid in pids), seconds)


def test_a_decoder_that_hangs_or_dies_costs_its_own_sample_only(tmp_path: Path) -> None:
    names = ["a", "hang", "b", "die", "die_once", "raise", "c"]
    start, limit = time.monotonic(), patience(2)
    results = list(read_clips(requests(tmp_path, *names), workers=2, time_limit=limit, read=named))
    assert time.monotonic() - start < patience(60)
    for name, result in zip(names, results, strict=True):
        if name in ("a", "b", "c", "die_once"):
            assert decoded(result).decoder.startswith(f"{name} ")
    assert results[1] == Failure(f"decoding took longer than {limit:g} s")
    assert results[3] == Failure("the decoding process died twice (signal 11, SIGSEGV)")
    assert results[5] == Failure("KeyError: 'some\\nbug'")


def test_clips_are_decoded_ahead_but_not_without_end(tmp_path: Path) -> None:
    names = [f"touch-{number}" for number in range(40)]
    iterator = read_clips(requests(tmp_path, *names), workers=2, read=named)
    next(iterator)
    assert wait_until(lambda: len(list(tmp_path.iterdir())) > 2, 10)
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) <= 1 + 2 * AHEAD
    assert len(list(iterator)) == 39
    assert len(list(tmp_path.iterdir())) == 40


def test_leaving_early_ends_the_workers_at_once(tmp_path: Path) -> None:
    iterator = read_clips(requests(tmp_path, "a", "b", *["hang"] * 4), workers=2, read=named)
    pids = [int(decoded(next(iterator)).decoder.split()[1]) for _ in range(2)]
    iterator.close()  # type: ignore[attr-defined]
    assert gone(pids, 0.0)


def test_a_pool_keeps_its_processes_and_their_template_until_it_is_closed(tmp_path: Path) -> None:
    pool = DecodePool(2, read=named)
    seen: list[set[str]] = []
    for names in ("abcd", "ef", "ghij"):
        each = [decoded(result).decoder.split() for result in pool.read(requests(tmp_path, *names))]
        assert [name for name, _ in each] == list(names)
        seen.append({pid for _, pid in each})
    assert len(set.union(*seen)) <= 2
    open_one, other = pool.read(requests(tmp_path, *"abcdef")), pool.read(requests(tmp_path, *"ghi"))
    first = next(open_one)
    both = [[decoded(result).decoder[0] for result in reading] for reading in (other, [first, *open_one])]
    assert both == [list("ghi"), list("abcdef")]
    pids = [int(pid) for pid in set.union(*seen)]
    assert any(alive(pid) for pid in pids)
    left = pool.read(requests(tmp_path, "a", "hang", "hang"))
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert decoded(next(pool.read(requests(tmp_path, "k")))).decoder.startswith("k ")
    pool.close()
    assert gone(pids, 0.0)
    with pytest.raises(RuntimeError, match="the pool of decoding processes is closed"):
        list(pool.read(requests(tmp_path, "a")))


def test_an_idle_process_or_a_template_that_is_killed_is_replaced(tmp_path: Path) -> None:
    pool = DecodePool(1, patience(2), read=named)
    (first,) = pool.read(requests(tmp_path, "a"))
    os.kill(int(decoded(first).decoder.split()[1]), signal.SIGKILL)
    (second,) = pool.read(requests(tmp_path, "b"))
    template = pool._processes._templates[0].process
    template.kill()
    template.wait()
    names = ["c", "die_once", "hang", "d"]
    results = list(pool.read(requests(tmp_path, *names)))
    assert [result for result in results if isinstance(result, Failure)] == [results[2]]
    pool.close()
    assert gone([int(decoded(result).decoder.split()[1]) for result in (first, second, results[0], results[3])])


def test_where_nothing_can_be_forked_each_process_starts_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FORKS", False)
    names = ["a", "hang", "die", "die_once", "b", "c"]
    results = list(read_clips(requests(tmp_path, *names), workers=2, time_limit=patience(2), read=named))
    assert [type(result) for result in results] == [Decoded, Failure, Failure, Decoded, Decoded, Decoded]
    assert results[2] == Failure("the decoding process died twice (signal 11, SIGSEGV)")
    assert gone([int(decoded(result).decoder.split()[1]) for result in results if isinstance(result, Decoded)], 0.0)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_a_caller_that_is_killed(ending: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys; from tests.video.readers import requests, sleeping\n"
        "from evalkit.video.workers import read_clips\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell's background jobs ignore
        "list(read_clips(requests(pathlib.Path(sys.argv[1]), *'abcd'), workers=2, read=sleeping))"
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    caller = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE
    )
    assert wait_until(lambda: len(list(tmp_path.glob("*.worker"))) == 2, 60)
    pids = [int(file.stem) for file in tmp_path.glob("*.worker")]
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    caller.send_signal(ending)
    _, noise = caller.communicate(timeout=patience(30))
    assert gone(pids)
    assert noise.count(b"Traceback") == (ending == signal.SIGINT)


def test_workers_that_do_not_start_are_an_error_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match=r"the decoding process does not start \(exit code 1\)"):
        list(read_clips(requests(tmp_path, "a"), workers=1, read=named))


@pytest.mark.parametrize("times", [1, 9])
def test_a_worker_that_never_gets_ready_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    asleep, python = tmp_path / "asleep", sys.executable
    asleep.write_text("#!/bin/sh\nexec sleep 1000\n")
    asleep.chmod(0o755)
    started: list[int] = []

    class Stuck(Template):
        def __init__(self, imports: str, memory: int) -> None:
            monkeypatch.setattr(sys, "executable", str(asleep) if len(started) < times else python)
            super().__init__(imports, memory)
            started.append(self.process.pid)

    class Hasty(Worker):
        def __init__(self, template: Template) -> None:
            super().__init__(template)
            assert self.deadline > time.monotonic() + 60
            if len(started) <= times:
                self.deadline = time.monotonic() + 0.1

    monkeypatch.setattr(processes, "Template", Stuck)
    monkeypatch.setattr(processes, "Worker", Hasty)
    if times == 1:
        (result,) = read_clips(requests(tmp_path, "a"), workers=1, read=named)
        assert decoded(result).decoder.startswith("a ")
    else:
        with pytest.raises(RuntimeError, match=r"decoding processes do not start \(not ready in 120 s\)"):
            list(read_clips(requests(tmp_path, "a"), workers=1, read=named))
    assert gone(started, 0.0) and len(started) == 2


def test_no_requests_need_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Worker", None)
    assert list(read_clips([], workers=2)) == []
    with pytest.raises(ValueError, match="workers=0"):
        next(read_clips([], workers=0))


def test_frames_of_any_size_that_a_few_bytes_state_are_refused_by_it(tmp_path: Path) -> None:
    """A gif of 66 bytes with two frames of 16,000 x 16,000 is 2 GB decoded."""

    def gif(name: str, width: int, height: int) -> Path:
        size = struct.pack("<HH", width, height)
        frame = b"!\xf9\x04\0\x0a\0\0\0,\0\0\0\0" + size + b"\0\x02\x02L\x01\0"
        (tmp_path / name).write_bytes(b"GIF89a" + size + b"\x80\0\0\0\0\0\xff\xff\xff" + 2 * frame + b";")
        return tmp_path / name

    small, large = (read_clip(gif(name, side, side), None, Views(), 2, 8) for name, side in (("a", 16), ("b", 16_000)))
    assert isinstance(small, Decoded)
    assert large == Failure("its frames are 16000 x 16000, 256,000,000 pixels; at most 134,217,728")
