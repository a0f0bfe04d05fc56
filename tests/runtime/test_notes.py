"""Notes: shown on the command line, silent from Python unless it asks for them."""

import logging
import subprocess
import sys

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
