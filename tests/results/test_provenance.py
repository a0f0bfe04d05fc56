import resource
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

import evalkit.results.provenance
from evalkit.results.provenance import commit_and_dirty, packages, peak_memory_bytes, provenance
from evalkit.runtime import machine


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=")
    return subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    code = tmp_path / "repository" / "evalkit"
    code.mkdir(parents=True)
    (code / "api.py").write_text("1")
    git(code.parent, "init", "-q")
    git(code.parent, "add", ".")
    git(code.parent, "commit", "-q", "-m", "one")
    return code.parent


def test_a_clean_checkout_gives_its_commit(repository: Path) -> None:
    assert commit_and_dirty(repository / "evalkit") == (git(repository, "rev-parse", "HEAD").strip(), False)


@pytest.mark.parametrize("changed", ["evalkit/api.py", "tasks/new.py"])
def test_a_changed_or_new_file_anywhere_in_the_checkout_makes_it_dirty(repository: Path, changed: str) -> None:
    (repository / changed).parent.mkdir(exist_ok=True)
    (repository / changed).write_text("2")
    assert commit_and_dirty(repository / "evalkit")[1] is True


def test_a_package_that_lies_untracked_inside_a_repository_has_no_commit(repository: Path) -> None:
    installed = repository / ".venv" / "evalkit"
    installed.mkdir(parents=True)
    (installed / "api.py").write_text("1")
    assert commit_and_dirty(installed) == (None, None)


def test_without_a_repository_or_without_git_there_is_no_commit(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commit_and_dirty(tmp_path) == (None, None)
    monkeypatch.setenv("PATH", "")
    assert commit_and_dirty(repository / "evalkit") == (None, None)


def test_a_git_hook_of_another_repository_does_not_mislead(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repository))
    assert commit_and_dirty(tmp_path) == (None, None)


def test_provenance_holds_a_command_that_can_be_copied_and_times_in_utc() -> None:
    started = datetime(2026, 1, 31, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
    words = ["run", "task=./my task.py", "tag=a'b"]
    found = provenance(words, 3, "cpu", "decord2 3.4.0", started, started + timedelta(minutes=1))
    shown = subprocess.run(
        ["sh", "-c", found["command"].replace("evalkit", "printf '%s\\n'", 1)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.splitlines() == words
    assert found["started"] == "2026-02-01T01:30:00+00:00"
    assert found["finished"] == "2026-02-01T01:31:00+00:00"
    assert (found["seed"], found["device"], found["decoder"]) == (3, "cpu", "decord2 3.4.0")
    assert found["python"].split(".")[:2] == [str(number) for number in sys.version_info[:2]]


def test_packages_are_those_that_evalkit_needs_and_not_those_of_development() -> None:
    import numpy

    found = packages()
    assert {"evalkit", "numpy", "torch", "av"} <= found.keys()
    assert found["numpy"] == numpy.__version__
    assert not {"pytest", "ruff", "scikit-learn"} & found.keys()


def test_packages_leave_out_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        evalkit.results.provenance, "requires", lambda name: ["numpy>=2", "no-such-thing; os_name != 'x'"]
    )
    assert packages().keys() == {"evalkit", "numpy"}


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes_and_counts_ended_children(
    system: str, unit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    peak = {resource.RUSAGE_SELF: 300, resource.RUSAGE_CHILDREN: 50}
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(machine, "_earlier_peak", 0)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=peak[who]))
    assert peak_memory_bytes() == 350 * unit


def test_a_peak_that_was_reset_is_not_forgotten_by_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_earlier_peak", 0)
    block = bytearray(60_000_000)
    largest = machine.peak_memory()
    del block
    machine.reset_peak_memory()
    assert machine.peak_memory() <= largest <= machine.peak_memory(ever=True) <= peak_memory_bytes()


def test_peak_memory_of_these_tests_is_plausible() -> None:
    assert 10e6 < peak_memory_bytes() < 1e12


def test_times_of_a_run_now_are_not_in_the_future() -> None:
    now = datetime.now(UTC)
    found = provenance([], 0, "cpu", "decord2", now, now)
    assert datetime.fromisoformat(found["finished"]) <= datetime.now(UTC)
