"""Files that would become far larger than they are, or never end: refused by what they say of themselves, unread."""

from __future__ import annotations

import errno
import os
import stat
import zipfile
from itertools import chain
from pathlib import Path

# Weights deflate by a tenth, a file made to inflate by a thousand.
LARGE_BYTES, MOST_TIMES = 64 << 20, 50
MOST_VALUES = 100_000


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file, of which a folder from elsewhere may hold others: a pipe or a device never ends.

    Args:
        path: the file, or a link to it.
        most: bytes that it may have; None sets no limit.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    # Else a pipe would wait for its writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if most is not None and status.st_size > most:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, at most {most:,} are read", str(path))
        return file.read()


def check_archive(path: Path) -> None:
    """Check that a zip archive, such as .npz and .pt, does not inflate to many times its size; other files pass.

    Raises:
        ValueError: it does.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        inflated, size = sum(member.file_size for member in archive.infolist()), path.stat().st_size
    if inflated > max(LARGE_BYTES, MOST_TIMES * size):
        raise ValueError(
            f"its {size:,} bytes would become {inflated:,}; at most {MOST_TIMES} times as many. Save it uncompressed, "
            "if it is what it should be"
        )


def check_yaml(text: str) -> None:
    """Check that a yaml text does not hold many times what it spells out, by aliases of aliases.

    Raises:
        ValueError: it does, or it is nested too deep.
        yaml.YAMLError: it is no yaml.
    """
    try:
        values = count_values(text)
    except RecursionError:
        raise ValueError("it is nested too deep, or within itself") from None
    if values > max(MOST_VALUES, len(text)):
        raise ValueError(
            f"aliases (*name) make {values:,} values of its {len(text):,} letters; at most {MOST_VALUES:,}"
        )


def count_values(text: str) -> int:
    """Values that a yaml text stands for, those of aliases as often as they are named.

    Raises:
        RecursionError: it is nested too deep, or within itself.
        yaml.YAMLError: it is no yaml.
    """
    import yaml

    counted: dict[int, int] = {}

    def count(node: yaml.Node) -> int:
        if id(node) not in counted:
            inner = node.value if isinstance(node, yaml.CollectionNode) else ()
            parts = chain.from_iterable(entry if isinstance(entry, tuple) else (entry,) for entry in inner)
            counted[id(node)] = 1 + sum(map(count, parts))
        return counted[id(node)]

    root = yaml.compose(text, yaml.SafeLoader)
    return count(root) if root else 0
