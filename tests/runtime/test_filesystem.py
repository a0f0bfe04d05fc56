"""A file system that does not do what the cache relies on is found out, and nothing is left in the folder."""

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from evalkit.commands.workspace import doctor
from evalkit.runtime import filesystem
from tests.given import raising


def test_a_sound_folder_has_no_problem_and_stays_as_it_was(tmp_path: Path) -> None:
    assert filesystem.problems(tmp_path) == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", filesystem.NO_LOCKS)
def test_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(number))
    (problem,) = filesystem.problems(tmp_path)
    assert problem.startswith(f"there are no file locks ({os.strerror(number)}): ") and "-o flock" in problem


def test_locks_that_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    (problem,) = filesystem.problems(tmp_path)
    assert problem.startswith("its file locks keep nobody out: ")


def test_appends_that_overwrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *mode, **at: opened(path, flags & ~os.O_APPEND, *mode, **at))
    (problem,) = filesystem.problems(tmp_path)
    assert problem.startswith("what two processes append to one file is lost: ")


def test_a_rename_that_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(old: Path, new: Path) -> None:
        new.write_bytes(old.read_bytes()) if old.is_file() else new.mkdir()

    monkeypatch.setattr(os, "replace", copy)
    (problem,) = filesystem.problems(tmp_path)
    assert problem.startswith("a file that is renamed does not take another's place")


def test_times_that_cannot_be_set_or_are_another_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "utime", lambda *_: None)
    assert filesystem.problems(tmp_path)[0].startswith("the time of a file cannot be set")
    monkeypatch.undo()
    monkeypatch.setattr(time, "time", lambda: os.stat(tmp_path).st_mtime - 1000)
    assert filesystem.problems(tmp_path)[0].startswith("its clock is +1000 s from this machine's")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "fsync", raising(number))
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    (problem,) = filesystem.problems(tmp_path)
    assert problem.startswith(f"writing and flushing fails ({os.strerror(number)}): ")
    assert ("free some of it" in problem) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert doctor._cache().endswith(f" free (EVALKIT_CACHE moves it); {problem}")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "mkdir", raising(number))
    (problem,) = filesystem.problems(tmp_path)
    assert problem.startswith(f"nothing can be written there ({os.strerror(number)}): ") and "cache.also=" in problem
