"""The predictions of a run so far, saved to disk so that a killed run can be resumed.

A journal is a file of entries: a line break, a checksum, a blank, and [kind, {example id: what was found}] as JSON.
Each is written as soon as it is found, and a torn or damaged one is as if it had never been written. A power cut may
take the last seconds with it: nothing is fsynced.
"""

from __future__ import annotations

import errno
import json
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from evalkit.runtime import cache

# Journals of runs that nobody started again in so many days are removed.
DAYS = 30


class Journal:
    """The journal of one run, in the cache folder; if that cannot be written, nothing is saved.

    The same run may be at work twice at once: both write the same.

    Args:
        name: a hash of all that decides what is found; empty where nothing is to be kept.

    Attributes:
        known: what an earlier start of the run found, by kind and example id.
    """

    def __init__(self, name: str) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.path = cache.folder() / "journals" / f"{name}.jsonl" if name else None
        if self.path is None:
            return
        for path in self.path.parent.glob("*.jsonl"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > DAYS * 86_400:
                    path.unlink()
        with suppress(OSError):
            for entry in self.path.read_bytes().split(b"\n"):
                checksum, _, text = entry.partition(b" ")
                if checksum == _checksum(text):
                    kind, entries = json.loads(text)
                    self.known.setdefault(kind, {}).update(entries)

    def add(self, kind: str, entries: Mapping[str, Any]) -> None:
        """Saves the predictions of some examples, unless JSON would change their values.

        Raises:
            OSError: the disk is full; what was written before still counts.
        """
        if self.path is None:
            return
        try:
            text = json.dumps([kind, entries], allow_nan=False)
        except (TypeError, ValueError):
            return
        if json.loads(text) != [kind, entries]:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.write(b"\n%s %s" % (_checksum(text.encode()), text.encode()))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                error.filename = str(self.path)
                raise
            self.path = None

    def remove(self) -> None:
        """Deletes the journal, once its contents are saved elsewhere."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
