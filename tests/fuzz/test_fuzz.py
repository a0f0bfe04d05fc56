"""A small, seeded part of `make fuzz`."""

from pathlib import Path

import pytest

from tests.fuzz.fuzzers import FUZZERS
from tests.fuzz.harness import findings


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FUZZERS)
def test_hostile_inputs_get_one_line_each(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    assert list(findings(FUZZERS[name](tmp_path / name), 25, seed=1)) == []
