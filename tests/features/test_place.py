"""Where features are read from while an adapter is fitted, and what to do where they are too large."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evalkit.api import Clip, FeatureSpec, Views
from evalkit.features import place as places
from evalkit.features.feature_cache import FeatureCache
from evalkit.features.key import FeatureKey, Identity
from evalkit.features.store import Store
from evalkit.runtime import machine

SPEC = FeatureSpec("tokens", dtype="float16")
KEY = FeatureKey(Identity(0, ""), None, Views(), Clip(), "", "", "", SPEC, "32 on cpu")
ROW = torch.zeros(1, 8, 196, 1024, dtype=torch.float16)  # V-JEPA 2 L
ROWS = 2_630_000  # of Kinetics-400 under videoglue
BOTH = ("stored", "token_grid")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 30)


def told(
    folder: Path, caplog: pytest.LogCaptureFixture, limit: float | None, spec: FeatureSpec, saving: tuple[str, ...]
) -> tuple[str, str]:
    """The place, and the note about it."""
    caplog.clear()
    cache = FeatureCache(Store(folder, None if limit is None else int(limit)), replace(KEY, feature_spec=spec))
    with caplog.at_level(logging.INFO, "evalkit"):
        place = places.chosen(ROW, ROWS, ROWS, "encode train", cache, saving)
    (note,) = caplog.messages
    return place, note


def test_what_does_not_fit_names_the_settings_that_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 20 * 10**12))
    again = f"{ROWS} parts of videos are decoded and encoded again in each epoch; EVALKIT_CACHE_GB= above 8.45e+03 GB"
    tokens, int8 = KEY.feature_spec, FeatureSpec("tokens", dtype="int8")
    cases = {
        (40e9, tokens, BOTH): "; or adapter.token_grid=1 adapter.stored=int8, which takes 21.6 GB",
        (20e9, tokens, BOTH): "",
        (100e9, tokens, BOTH): "; or adapter.token_grid=2 adapter.stored=int8, which takes 86.5 GB",
        (1.1e12, tokens, BOTH): "; or adapter.token_grid=7 adapter.stored=int8, which takes 1.06e+03 GB",
        (2.2e12, tokens, BOTH): "; or adapter.token_grid=7, which takes 2.11e+03 GB",
        (5e12, tokens, BOTH): "; or adapter.stored=int8, which takes 4.24e+03 GB",
        (5e12, tokens, ("token_grid",)): "; or adapter.token_grid=7, which takes 2.11e+03 GB",
        (5e12, tokens, ()): "",
        (2e12, int8, BOTH): "; or adapter.token_grid=7, which takes 1.06e+03 GB",
    }
    for (limit, spec, saving), expected in cases.items():
        place, note = told(tmp_path, caplog, limit, spec, saving)
        of = again.replace("8.45", "4.24") if spec is int8 else again
        assert place == "videos" and note.endswith(f": {of} stores them{expected}"), (limit, note)
    assert told(tmp_path, caplog, 9e12, tokens, BOTH)[0] == told(tmp_path, caplog, None, tokens, BOTH)[0] == "store"


def test_a_disk_with_less_room_than_the_limit_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 5 * 10**12))
    place, note = told(tmp_path / "new", caplog, 9e12, KEY.feature_spec, BOTH)
    assert place == "videos"
    assert "stores them on another disk: 5e+03 GB are free for them on this one; or adapter.stored=int8, which" in note


@pytest.mark.parametrize(("holders", "place"), [(1, "memory"), (2, "store")])
def test_processes_of_a_machine_that_hold_the_same_share_its_memory(tmp_path: Path, holders: int, place: str) -> None:
    cache = FeatureCache(Store(tmp_path), KEY)
    rows = int(0.4 * (1 << 30)) // ROW.nbytes
    assert places.chosen(ROW, rows, rows, "encode train", cache, holders=holders) == place
