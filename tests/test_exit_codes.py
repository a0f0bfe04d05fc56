"""How a command ends where something is in its way: in one line, and with which exit code."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.errors import UserError
from tests.cli import WORDS, mistake, put_runner, raising
from tests.cli import here as here  # which pytest finds by its name


def test_an_error_that_can_be_mended_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_runner(monkeypatch, raising(UserError("no such folder")))
    assert mistake(capsys, "run", *WORDS) == "no such folder"


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    advice = "free some, or point out= or EVALKIT_CACHE elsewhere"
    put_runner(monkeypatch, raising(OSError(errno.ENOSPC, "No space left on device", "/cache/x")))
    assert mistake(capsys, "run", *WORDS) == f"no space left for /cache/x: {advice}"
    put_runner(monkeypatch, raising(OSError(errno.ENOSPC, "No space left on device")))
    assert mistake(capsys, "run", *WORDS) == f"no space left: {advice}"


def test_memory_that_is_not_enough_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_runner(monkeypatch, raising(MemoryError("Unable to allocate 9 TiB")))
    assert mistake(capsys, "run", *WORDS).startswith("not enough memory: fewer workers=, ")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EIO, "input/output error"), "cannot read or write: input/output error"),
        (PermissionError(errno.EACCES, "Permission denied", "/r/x"), "cannot read or write /r/x: Permission denied"),
        (
            OSError(errno.EROFS, "Read-only file system", b"/r\xff"),
            "cannot read or write b'/r\\xff': Read-only file system",
        ),
        (OSError("broken"), "cannot read or write: broken"),
    ],
)
def test_a_file_that_cannot_be_read_or_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, told: str
) -> None:
    put_runner(monkeypatch, raising(error))
    assert mistake(capsys, "run", *WORDS) == told


def test_a_message_is_one_printable_line_that_a_screen_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_runner(monkeypatch, raising(UserError("begin " + "x" * 10**6 + "\x1b[2J\udcff\nend")))
    told = mistake(capsys, "run", *WORDS)
    assert len(told) < 24 * 80 and told.isprintable()
    assert told.startswith("begin xxx") and told.endswith(r"x\x1b[2J\udcff end")


def test_another_failure_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    put_runner(monkeypatch, raising(RuntimeError("a fault of evalkit's own")))
    with pytest.raises(RuntimeError, match="a fault"):
        main(["run", *WORDS])


@pytest.mark.parametrize(
    ("redirected", "out", "err", "code"),
    [
        ("list suites >&-", "", "", 0),
        ("--help <&- >&- 2>&-", "", "", 0),
        ("list suites <&- >&-", "", "", 0),
        ("rum 2>&-", "", "", 2),
        ("--version >/dev/full", "", "evalkit: no space left: free some", 2),
    ],
)
def test_a_stream_that_is_closed_or_full_gets_no_traceback(redirected: str, out: str, err: str, code: int) -> None:
    command = f"{sys.executable} -m evalkit {redirected}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == (out, code)
    assert ended.stderr.startswith(err) and ended.stderr.count("\n") == bool(err)


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "evalkit", "--help"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_an_interrupt_says_so_and_what_is_stored(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    earlier = tmp_path / "features" / "earlier.data"
    earlier.parent.mkdir()
    earlier.touch()
    os.utime(earlier, (1, 1))
    put_runner(monkeypatch, raising(KeyboardInterrupt()))
    assert main(["run", *WORDS]) == 130
    assert capfd.readouterr() == ("", "evalkit: interrupted before anything new was stored\n")

    def run(config: Any) -> None:
        (tmp_path / "journals").mkdir()
        (tmp_path / "journals" / "of_this_run.jsonl").touch()
        raise KeyboardInterrupt

    put_runner(monkeypatch, run)
    assert main(["run", *WORDS]) == 130
    assert capfd.readouterr() == ("", "evalkit: interrupted; the same command goes on from what is stored\n")
    put_runner(monkeypatch, raising(KeyboardInterrupt()))
    assert main(["run", *WORDS, "cache=off"]) == 130
    assert capfd.readouterr() == ("", "evalkit: interrupted\n")


def test_every_exit_code_is_documented() -> None:
    """Those of the function that gives them, in the order of its docstring."""
    table = (Path(__file__).parents[1] / "docs/commands.md").read_text().partition("| exit code |")[2]
    told = [int(line.split("|")[1]) for line in table.partition("\n\n")[0].splitlines()[2:]]
    assert told == [int(code) for code in re.findall(r"\b(\d+) \w", (main.__doc__ or "").partition("\n\n")[2])]
