"""Files of configs/ that are called by their name: a paper's suites and studies, reference cards."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Literal

import evalkit


def files(folder: Literal["suites", "studies", "cards"]) -> dict[str, Path]:
    """The files in a folder of configs/ by name."""
    folders = [Path(path) / "configs" / folder for path in evalkit.__path__]
    return {file.stem: file for place in folders for file in sorted(place.glob("*.yaml"))}


def summary(file: Path) -> str:
    """The comment at the head of a file, in one line."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
