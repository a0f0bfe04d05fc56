"""A run that is killed, and the same run after it."""

from pathlib import Path

import pytest

from bench import killed
from tests.forked import Forked

pytestmark = pytest.mark.slow


def test_a_killed_run_leaves_nothing_that_changes_the_next(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # One kill while a head is fitted; tests/pipeline/test_run.py has one while features are encoded, bench/README.md
    # fifty, with a larger encoder.
    def start(table: Path, home: Path, workers: int) -> Forked:
        words = [word for word in killed.words(table, home, workers) if not word.startswith(("ckpt", "adapter.epochs"))]
        more = [f"ckpt={tiny}", "adapter.epochs=200"]
        return Forked(*words, *more, env={"EVALKIT_CACHE": str(home / "cache")}, group=True)

    monkeypatch.setattr(killed, "start", start)
    assert killed.main(1, [1]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[-1].removesuffix(" |") for row in rows] == ["1 of 1"]
    assert float(rows[0][2]) >= 12  # what was encoded before the fit was kept
