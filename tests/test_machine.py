"""How many cores a process may use."""

import os
from pathlib import Path

import pytest

from evalkit import machine


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


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_cores_are_those_that_the_scheduler_grants_and_the_quota_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    for quota, wanted in ((0, 12), (3, 3), (64, 12)):
        monkeypatch.setattr(machine, "_quota", lambda root, quota=quota: quota)
        assert machine.cores() == wanted
