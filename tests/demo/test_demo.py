"""The embedded checkpoint on the miniature: what the README promises, run as a user would."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.demo import FOLDER as DEMO
from evalkit.encoders import load_encoder
from evalkit.results import run_folder, validate
from evalkit.results.table import table
from tests.conftest import shared_films
from tests.given import DATA, real

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REAL = DATA / "videos"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The README's command, and again with another number of workers, on what the first has encoded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cache = folder / "cache"
        cache.mkdir()
        (cache / "mini").symlink_to(shared_films(tmp_path_factory))
        patch.setenv("EVALKIT_CACHE", str(cache))
        words = ["run", "task=egoschema", "ckpt=demo", "mini=true"]
        assert main([*words, "workers=2", "out=w2"]) == 0
        assert main([*words, "workers=1", "out=w1", "controls=false", "canary=false"]) == 0
    return [next((folder / f"w{workers}").glob("*/*/*")) for workers in (2, 1)]


@pytest.fixture(scope="module")
def first(runs: list[Path]) -> dict[str, Any]:
    return run_folder.load(runs[0])


def test_the_demo_encoder_weighs_at_most_8_mb() -> None:
    assert sum(path.stat().st_size for path in DEMO.glob("*") if path.is_file()) <= 8e6


def test_the_demo_scores_60_and_20_points_above_its_blind_control(first: dict[str, Any]) -> None:
    controls = {control["name"]: control["value"] for control in first["controls"]}
    score = first["scores"][0]
    assert first["task"]["name"] == "egoschema@mini" and first["status"] == "complete"
    assert score["n"] == first["data"]["n_expected"] == 100 and first["chance"] == 20
    assert score["value"] >= 60
    assert score["value"] >= controls["blind"] + 20
    assert set(controls) == {"blind", "shuffled", "single_frame", "option_order"}


def test_accuracy_is_given_per_kind(first: dict[str, Any]) -> None:
    kinds = {score["metric"]: score["n"] for score in first["scores"][1:]}
    assert kinds == {"accuracy/appearance": 34, "accuracy/motion": 33, "accuracy/order": 33}


def test_the_demo_knows_appearance_motion_and_order(first: dict[str, Any]) -> None:
    assert all(score["value"] >= 60 for score in first["scores"]), first["scores"]


def test_two_runs_with_one_seed_give_equal_scores_whatever_the_workers(runs: list[Path]) -> None:
    one, other = map(run_folder.load, runs)
    assert one["scores"] == other["scores"]
    assert one["data"]["predictions_sha256"] == other["data"]["predictions_sha256"]


def test_the_record_is_valid_and_scores_again_to_the_same(runs: list[Path]) -> None:
    assert validate.validate(runs[0]) == []
    assert validate.rescore(runs[0])["differences"] == []


def test_the_readme_shows_what_the_command_prints(first: dict[str, Any]) -> None:
    """A score may differ by an answer or two between processors, which round sums of floats differently."""

    def spaced(text: str) -> str:
        return re.sub(r" +", " ", text)

    def without_figures(text: str) -> str:
        return re.sub(r"[\d.]+", "#", spaced(text))

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in filter(None, map(str.strip, table(first).splitlines())):
        if line.startswith(("task", "encoder", "adapter", "status", "chance")):
            assert spaced(line) in spaced(readme)
        else:
            assert without_figures(line) in without_figures(readme)
    (printed,) = re.findall(r"^ *accuracy +([\d.]+)", readme, re.MULTILINE)
    low, high = first["scores"][0]["ci95"]
    assert low <= float(printed) <= high


@real
def test_a_linear_probe_on_real_videos_is_well_above_chance(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.real_videos_csv import write_csv

    monkeypatch.chdir(folder)
    assert write_csv(REAL, folder / "real.csv") >= 60
    words = ["run", "task=folder", "data.root=real.csv", "ckpt=demo", "adapter.head=linear", "out=real"]
    assert main(words) == 0
    found = run_folder.load(next((folder / "real").glob("*/*/*")))
    top1 = found["scores"][0]
    assert top1["ci95"][0] > found["chance"] + 10, top1
    assert found["status"] == "partial" and found["data"]["n_failed"] >= 3
    undecodable = [*found["data"]["failures"], *found["selection"]["undecodable"]]
    named = json.dumps(undecodable)
    for broken in ("broken_text", "broken_empty", "broken_random_bytes", "audio_only", "corrupted"):
        assert broken in named
    assert all(one["reason"] for one in undecodable)


def test_python_gives_the_encoder_that_ckpt_gives() -> None:
    import torch

    import evalkit

    encoder = evalkit.load_encoder("demo")
    video = encoder.clip.normalize(torch.zeros(1, 64, 3, 64, 64, dtype=torch.uint8))
    encoded = encoder(video)
    assert encoded.tokens.shape == (1, 32, 16, encoder.dim) and encoded.pooled.shape == (1, encoder.dim)
    assert torch.equal(encoded.pooled, load_encoder("demo")(video).pooled)
