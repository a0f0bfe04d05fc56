"""How many cores a process may use."""

import os
from pathlib import Path

import pytest

from evalkit.runtime import machine


def put(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu_dot_max": "200000 100000"}, 2),
        ({"cpu_dot_max": "150000 100000"}, 2),
        ({"cpu_dot_max": "max 100000"}, 0),
        ({"cpu_dot_max": "nonsense"}, 0),
        ({"cpu__cpu_dot_cfs_quota_us": "400000", "cpu__cpu_dot_cfs_period_us": "100000"}, 4),
        ({"cpu__cpu_dot_cfs_quota_us": "-1", "cpu__cpu_dot_cfs_period_us": "100000"}, 0),
        ({}, 0),
    ],
)
def test_a_containers_quota_is_read_in_both_versions(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert machine._quota(put(tmp_path, **files)) == cores


def test_cores_are_those_that_the_scheduler_grants_and_the_quota_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)  # macOS has none
    for quota, wanted in ((0, 12), (3, 3), (64, 12)):
        monkeypatch.setattr(machine, "_quota", lambda root, quota=quota: quota)
        assert machine.cores() == wanted


@pytest.mark.parametrize(("given", "alone", "of_five"), [("", 12, 2), ("3", 3, 3), ("0", 12, 2), ("4,2", 12, 2)])
def test_threads_are_those_of_the_environment_else_a_part_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, given: str, alone: int, of_five: int
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 12)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert (machine.threads(), machine.threads(5)) == (alone, of_five)


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory_dot_max": "1000", "memory_dot_current": "700", "memory_dot_stat": "anon 9\ninactive_file 50"}, 350),
        ({"memory_dot_max": "1000", "memory_dot_current": "1100", "memory_dot_stat": "inactive_file 50"}, 0),
        ({"memory_dot_max": "max", "memory_dot_current": "700", "memory_dot_stat": "inactive_file 50"}, None),
        (
            {
                "memory__memory_dot_limit_in_bytes": "1000",
                "memory__memory_dot_usage_in_bytes": "600",
                "memory__memory_dot_stat": "inactive_file 1\ntotal_inactive_file 50",
            },
            450,
        ),
        ({"memory_dot_max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_what_a_containers_limit_leaves_is_read_in_both_versions(
    tmp_path: Path, files: dict[str, str], left: int | None
) -> None:
    assert machine._left(put(tmp_path, **files)) == left


def test_free_memory_is_the_less_of_the_systems_and_the_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_left", lambda root: None)
    free = machine.free_memory()
    assert 0 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(machine, "_left", lambda root: 12345)
    assert machine.free_memory() == 12345
