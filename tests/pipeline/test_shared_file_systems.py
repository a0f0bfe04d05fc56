"""Whole runs whose cache lies on a file system that does not do what it relies on: the same answers, nothing lost."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.results import run_folder
from tests.given import raising
from tests.pipeline import tiny_world
from tests.pipeline.tiny_world import probe_words, run

pytestmark = pytest.mark.usefixtures("decoding_here")

world = tiny_world.world


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, world: Path, tiny: Path) -> bytes:
    """What is predicted where all works."""
    return (run(tmp_path_factory.mktemp("sound"), *probe_words(world, tiny)) / "predictions.jsonl").read_bytes()


def no_locks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fcntl, "flock", raising(errno.ENOLCK))


def locks_for_all(patch: pytest.MonkeyPatch) -> None:
    """Locks that keep nobody out: each process believes that it is alone."""
    patch.setattr(fcntl, "flock", lambda *_: None)


def no_times(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "utime", raising(errno.EPERM))


@pytest.mark.parametrize("broken", [no_locks, locks_for_all, no_times])
def test_a_run_scores_the_same_and_the_next_one_finds_what_it_stored(
    sound: bytes,
    world: Path,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[pytest.MonkeyPatch], None],
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    broken(monkeypatch)
    first = run(tmp_path / "first", *probe_words(world, tiny))
    second = run(tmp_path / "second", *probe_words(world, tiny))
    assert (first / "predictions.jsonl").read_bytes() == (second / "predictions.jsonl").read_bytes() == sound
    costs = [run_folder.load(folder)["cost"]["encoder_forwards"] for folder in (first, second)]
    assert costs[0] > 0 == costs[1]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_where_nothing_reaches_the_disk_the_run_ends_with_one_line_and_no_result(
    world: Path,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: int,
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", raising(number))
    assert main(["run", f"out={tmp_path / 'out'}", "canary=false", *probe_words(world, tiny)]) != 0
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"evalkit: cannot read or write {tmp_path}/cache/features: {os.strerror(number)}"
    assert not list(tmp_path.glob("out/**/result.json"))
