from pathlib import Path

import pytest

from evalkit.mini.train import vocabulary as train_vocabulary


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece vocabulary of the mini world."""
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    train_vocabulary(path)
    return path
