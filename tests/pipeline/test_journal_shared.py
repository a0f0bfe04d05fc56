"""Journals on a file system that other machines use: torn entries, and disks that fail."""

import errno
import random
from pathlib import Path

import pytest

from evalkit.pipeline.journal import Journal
from tests.given import raising


def test_entries_that_writers_tear_into_one_another_count_only_where_they_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is appended over NFS may overwrite, or be written in pieces."""
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    entries = [{f"{writer}{i}": [i, None, None]} for i in range(20) for writer in "ab"]
    whole = Journal("whole")
    for entry in entries:
        whole.add("", entry)
    assert whole.path
    lines = [b"\n" + line for line in whole.path.read_bytes().split(b"\n")[1:]]
    rng = random.Random(0)
    for number in range(30):
        torn = bytearray()
        for line in lines:
            at = rng.randrange(len(line) + 1)
            kind = rng.randrange(4)
            if kind == 0:  # in pieces, among those of another
                torn[len(torn) - rng.randrange(10) : len(torn)] = line[:at] + line[at:]
            elif kind == 1:  # over the end of another
                torn[max(0, len(torn) - at) :] = line
            else:
                torn += line if kind == 2 else line[:at]
        (tmp_path / f"journals/torn{number}.jsonl").write_bytes(torn)
        known = Journal(f"torn{number}").known.get("", {})
        assert all({key: value} in entries for key, value in known.items())
        assert number or known


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EROFS])
def test_a_journal_that_cannot_be_read_or_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    first = Journal("name")
    first.add("", {"a": [1, None, None]})
    monkeypatch.setattr(Path, "read_bytes", raising(number))
    second = Journal("name")
    assert second.known == {}
    monkeypatch.setattr("builtins.open", raising(number))
    second.add("", {"b": [1, None, None]})
    second.add("", {"c": [1, None, None]})
    monkeypatch.undo()
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    assert Journal("name").known == {"": {"a": [1, None, None]}}
