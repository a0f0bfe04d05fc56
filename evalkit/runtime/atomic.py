"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def hidden_beside(place: Path) -> Iterator[Path]:
    """A path beside `place` that nothing has, to write a file or folder to and then rename; removed if the block fails.

    A kill may leave it; its name begins with a dot, so that nobody takes it for what it was to become.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    hidden = place.parent / f".{place.name[:50]}.{secrets.token_hex(4)}"  # a name may be as long as names can be
    try:
        yield hidden
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise


def write(file: Path, content: bytes) -> None:
    """Write a file whole, in place of a former one, which stays where the disk is full.

    Raises:
        OSError: it cannot be written.
    """
    place = file.resolve()  # a link stays a link
    with hidden_beside(place) as hidden:
        hidden.write_bytes(content)
        rename(hidden, place)


def rename(hidden: Path, place: Path) -> Path:
    """Renames a file or folder, in place of a file or an empty folder there; returns the place.

    A server that is asked twice, since its first answer was lost on the way (NFS), has nothing to rename the second
    time: what is there already under its new name was renamed.

    Raises:
        OSError: it is not renamed.
    """
    status = os.stat(hidden)
    try:
        os.replace(hidden, place)
    except OSError:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(place), status):
                return place
        raise
    return place


def flush(path: Path) -> None:
    """To disk, so that a power cut after a rename does not leave a name without content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
