import gc
import io
import re
import sys
import threading
import time

import pytest

from evalkit.runtime import notes, progress
from evalkit.runtime.progress import phase, track


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_say_how_many_are_done_and_how_many_a_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.05)
    monkeypatch.setattr(progress, "EVERY", 0.05)
    for item in track("abcd", "predict", 4):
        time.sleep(0.1 if item in "ad" else 0)
    first, *_, late, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d predict: 0 of 4, \d+ s, 0\.00 a second", first)  # before any item is done
    assert re.fullmatch(r"\d\d:\d\d:\d\d predict: 3 of 4, \d+ s, \d+\.\d\d a second, [\d.]+ s left", late)
    told = re.fullmatch(r"predict: 4 of 4 in \d+ s, (\d+\.\d\d) a second", last)
    assert told and 0 < float(told[1]) <= 4 / 0.2


def test_a_process_without_a_console_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert list(track("abc", "predict", 3)) == list("abc")


def test_a_terminal_shows_a_bar_with_the_rate_and_nothing_to_do_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    found = []
    for item in track(range(3), "predict", 3):
        time.sleep(0.06)
        found.append(item)
    assert found == [0, 1, 2] and list(track([], "predict", 0)) == []
    said = terminal.getvalue()
    assert "3/3" in said and " a second" in said


def test_nothing_to_do_is_not_told_where_output_is_piped(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([], "encode train", 0)) == []
    assert capsys.readouterr().err == ""


def test_work_without_a_known_end_says_that_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.05)
    with phase("read the data of k"):
        time.sleep(0.1)
    with phase("short"):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d read the data of k: 0 s so far", line)


def test_lines_of_quiet_work_are_not_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.01)
    with notes.on_stderr(False):
        for _ in track("ab", "predict", 2):
            time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_work_that_fails_ends_its_lines() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        for item in track([1, 0], "predict", 2):
            1 / item
    gc.collect()
    assert threading.active_count() == before
