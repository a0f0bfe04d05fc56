"""Files of configs/ that are called by their name: a paper's suites and studies, reference cards."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import evalkit
from evalkit.errors import UserError, nearest
from evalkit.runtime import bounded

if TYPE_CHECKING:
    import yaml

Folder = Literal["suites", "studies", "cards"]
KINDS: dict[Folder, str] = {"suites": "suite", "studies": "study", "cards": "card"}
MOST_BYTES = 1_000_000  # of a file


def files(folder: Folder) -> dict[str, Path]:
    """The files in a folder of configs/ by name."""
    folders = [Path(path) / "configs" / folder for path in evalkit.__path__]
    return {file.stem: file for place in folders for file in sorted(place.glob("*.yaml"))}


def find(folder: Folder, name: str, words: str, hint: str = "") -> Path:
    """The file of this name, or at this path.

    Args:
        folder: of configs/.
        name: as typed.
        words: that were typed, for the error.
        hint: what else the error says where no name is near; the names that there are.

    Raises:
        UserError: there is none.
    """
    known = files(folder)
    file = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else known.get(name)
    if file is None or not file.is_file():
        near = nearest(name, known)
        advice = f"Did you mean {near!r}?" if near else hint or f"Known: {', '.join(known)}"
        raise UserError(f"{words}: there is no such {KINDS[folder]}. {advice}")
    return file


def values(file: Path, check: bool = True) -> Any:
    """What a file holds; `check` refuses what would grow while it is read, as a stranger's file may, and keys that are
    given twice, of which only the last would count.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, no text, or a key is given twice.
        RecursionError, yaml.YAMLError: it is no yaml.
    """
    import yaml

    text = bounded.read_bytes(file, MOST_BYTES).decode()
    if check:
        bounded.check_yaml(text)
        waiting, seen = [yaml.compose(text, yaml.SafeLoader)], set[int]()
        while waiting:
            node = waiting.pop()
            if id(node) not in seen and isinstance(node, yaml.CollectionNode):
                seen.add(id(node))
                if isinstance(node, yaml.MappingNode):
                    _check_keys([key for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
                waiting += itertools.chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
    return yaml.safe_load(text)


def _check_keys(keys: Sequence[yaml.ScalarNode]) -> None:
    """Raises ValueError where a key of a mapping is given twice."""
    seen: set[str] = set()
    for key in keys:
        if key.value in seen:
            raise ValueError(f"the key {key.value!r} is given twice, again in line {key.start_mark.line + 1}")
        seen.add(key.value)


def summary(file: Path) -> str:
    """The comment at the head of a file, in one line."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
