"""Videos that two splits of a task share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from evalkit.api import Example
from evalkit.features.key import identify

Pair = tuple[str, Path, str, Path]  # two splits, and a file of each


def shared_videos(splits: Mapping[str, Sequence[Example]], by_path: bool = False) -> list[Pair]:
    """Files of two splits that hold the same bytes: different ones with equal size and ends are read whole.

    Args:
        splits: examples by the name of their split; each file is compared with those of the splits before.
        by_path: compare paths alone; no file is opened.
    """
    alike: dict[Hashable, list[tuple[str, Path]]] = {}
    identity: Callable[[Path], Hashable] = Path.absolute if by_path else identify
    for name, split in splits.items():
        for path in dict.fromkeys(example.video for example in split):
            try:
                alike.setdefault(identity(path), []).append((name, path))
            except OSError:  # it is missing, or among the undecodable, with its reason
                continue
    pairs = []
    for identified, group in alike.items():
        if len({name for name, _ in group}) > 1:
            of: dict[Hashable, tuple[str, Path]] = {}
            differ = not by_path and len({path for _, path in group}) > 1
            for name, path in group:
                content = identify(path, full=True) if differ else identified
                before = of.setdefault(content, (name, path))
                if before[0] != name:
                    pairs.append((*before, name, path))
    return pairs
