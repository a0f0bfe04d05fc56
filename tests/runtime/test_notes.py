"""Notes: shown on the command line, silent from Python unless it asks for them."""

import io
import logging
import subprocess
import sys
import threading

import pytest

from evalkit.runtime import notes
from evalkit.runtime.progress import track

logger = logging.getLogger("evalkit")


def test_notes_are_bare_lines_on_stderr_while_they_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with notes.on_stderr():
        logger.info("a note of 100 %")
        with notes.on_stderr(shown=False):
            logger.warning("unseen")
            assert list(track("ab", "encode", 2)) == ["a", "b"]
        logger.debug("too small to tell")
        logger.warning("a warning")
    assert capsys.readouterr() == ("", "a note of 100 %\na warning\n")


def test_a_quiet_block_in_one_thread_leaves_another_its_notes(capsys: pytest.CaptureFixture[str]) -> None:
    both, noted = threading.Barrier(2), threading.Barrier(2)

    def block(shown: bool) -> None:
        with notes.on_stderr(shown):
            both.wait(10)
            logger.info(f"shown={shown}")
            helper = threading.Thread(target=logger.info, args=("of a thread that it starts",))
            if shown:
                helper.start()
                helper.join()
            noted.wait(10)

    threads = [threading.Thread(target=block, args=(shown,)) for shown in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capsys.readouterr().err == "shown=True\nof a thread that it starts\n"


def test_a_remark_is_logged_once_where_a_run_is_made_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):  # the next run has remarks of its own
        caplog.clear()
        with notes.remarks():
            for message in ("few classes", "few captions", "few classes"):
                notes.remark(message)
        notes.remark("few classes")
        assert caplog.messages == ["few classes", "few captions"]


@pytest.mark.parametrize(("level", "told"), [(logging.WARNING, "loud\n"), (logging.DEBUG, "soft\nloud\n")])
def test_the_level_that_a_user_gave_holds(level: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = logger.level
    logger.setLevel(level)
    try:
        for shown in (True, False):
            with notes.on_stderr(shown):
                logger.info("soft")
                logger.warning("loud")
            assert logger.level == level
            assert capsys.readouterr().err == (told if shown else "")
    finally:
        logger.setLevel(before)


def test_handlers_of_the_user_are_found_where_they_are() -> None:
    assert not notes.have_handlers() or logging.getLogger().handlers  # pytest has some
    handler = logging.StreamHandler(io.StringIO())
    logger.addHandler(handler)
    try:
        assert notes.have_handlers()
        with notes.on_stderr(False):
            logger.warning("loud")
        assert handler.stream.getvalue() == "loud\n" and handler in logger.handlers
    finally:
        logger.removeHandler(handler)


def test_notes_need_no_console(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        with notes.on_stderr():
            logger.info("a note")
            assert list(track("ab", "encode", 2)) == ["a", "b"]


@pytest.mark.parametrize(
    ("setup", "told"),
    [
        ("", ""),
        ("logging.basicConfig(format='%(levelname)s %(message)s')", "WARNING loud\n"),
        ("logging.basicConfig(format='%(levelname)s %(message)s', level='INFO')", "INFO soft\nWARNING loud\n"),
    ],
)
def test_from_python_notes_go_where_the_user_sends_them(setup: str, told: str) -> None:
    code = (
        f"import logging, evalkit\n{setup}\nlog = logging.getLogger('evalkit')\nlog.info('soft')\nlog.warning('loud')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", told)
