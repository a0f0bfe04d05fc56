"""What every adapter keeps."""

from pathlib import Path

import pytest

from evalkit import plugins
from evalkit.api import Adapter
from tests.given import TASK, small


@pytest.mark.parametrize("name", ["probe", "contrastive", "multiple_choice"])
def test_every_adapter_fulfils_the_contract(name: str, vocabulary: Path, lm: Path) -> None:
    settings = {"lm": str(lm)} if name == "multiple_choice" else {}
    assert isinstance(plugins.factory("adapter", name)(small(vocabulary), TASK, **settings), Adapter)
