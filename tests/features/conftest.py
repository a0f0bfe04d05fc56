"""Fixtures that several files of this folder need."""

from pathlib import Path

import pytest

from evalkit.features.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
