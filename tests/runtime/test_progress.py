import io
import re
import sys
import time

import pytest

from evalkit.runtime import progress
from evalkit.runtime.progress import track


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_say_how_many_are_done_and_how_many_a_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.05)
    for item in track("abcd", "predict", 4):
        time.sleep(0.1 if item in "bd" else 0)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"predict: [12] of 4, \d+ s, \d+\.\d\d a second, [\d.]+ s left", first)
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
