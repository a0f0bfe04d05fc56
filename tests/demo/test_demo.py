"""The embedded checkpoint on the miniature: what the README promises, run as a user would."""

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.encoders import DEMO, load_encoder
from evalkit.metrics.bootstrap import AdditiveScore
from evalkit.metrics.text.dense import dense_by_video
from evalkit.results import run_folder, validate
from evalkit.results.table import table
from tests.given import DATA, real

ROOT = Path(__file__).parents[2]
REAL = DATA / "videos"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[Path]:
    """The README's command, twice: with one worker and with two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EVALKIT_CACHE", str(folder / "cache"))
        for workers in (2, 1):
            assert (
                main(["run", "task=egoschema", "ckpt=demo", "mini=true", f"workers={workers}", f"out=w{workers}"]) == 0
            )
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
    assert one["scores"] == other["scores"] and one["controls"] == other["controls"]
    assert one["data"]["predictions_sha256"] == other["data"]["predictions_sha256"]


def test_the_record_is_valid_and_scores_again_to_the_same(runs: list[Path]) -> None:
    assert validate.validate(runs[0]) == []
    assert validate.rescore(runs[0])["differences"] == []


def test_the_readme_shows_what_the_command_prints(first: dict[str, Any]) -> None:
    """All but the size of the encoder, the versions and the run's own name."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [line.strip() for line in table(first).splitlines() if line.strip()]
    for line in shown:
        assert re.sub(r" +", " ", line) in re.sub(r" +", " ", readme), line


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


def recorded(task: str) -> list[dict[str, Any]]:
    """The predictions of a task's miniature that the repository's board stands on."""
    (file,) = (ROOT / f"leaderboard/results/demo/{task}@mini").glob("*/predictions.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def steps_told(text: str) -> list[str]:
    """What is told of each step, without its ordinal."""
    return [part.partition(" ")[2] for part in text.split(", ")]


def measured(score: AdditiveScore) -> float:
    return float(score.of(score.parts.sum(0)))


def test_most_paragraphs_name_color_and_verb_of_all_six_steps_in_order() -> None:
    def named(text: str) -> list[tuple[str, ...]]:
        """Of "a red ring moves left" red and moves left; what it hits or turns into is not looked at."""
        steps = [step.split() for step in steps_told(text)]
        return [(*step[1:2], *step[3 : 5 if step[3:4] == ["moves"] else 4]) for step in steps]

    rows = recorded("youcook2_paragraph")
    right = [named(row["target"][0]) for row in rows]
    assert all(len(steps) == 6 for steps in right)
    told = [named(row["prediction"]) for row in rows]
    assert sum(one == other for one, other in zip(told, right, strict=True)) > 0.75 * len(rows)


def test_most_steps_of_paragraphs_are_told_word_for_word() -> None:
    rows = recorded("youcook2_paragraph")
    right = [steps_told(row["target"][0]) for row in rows]
    told = [steps_told(row["prediction"]) for row in rows]
    same = [[one == other for one, other in zip(a, b, strict=False)] for a, b in zip(told, right, strict=True)]
    assert sum(map(sum, same)) > 0.7 * sum(map(len, right))  # a step that is not told counts as wrong
    assert sum(sum(steps) >= 5 for steps in same) > len(rows) / 2


def test_steps_told_in_given_segments_are_better_than_a_paragraph_cut_evenly() -> None:
    paragraphs = {row["id"]: steps_told(row["prediction"]) for row in recorded("youcook2_paragraph")}
    rows = recorded("youcook2_dense")
    said, cut = [], []
    for video, some in groupby(rows, lambda row: row["target"]["video"]):
        targets = [row["target"] for row in some]
        part = 180 / len(targets)
        for k, target in enumerate(targets):
            said.append(paragraphs[video][k] if k < len(paragraphs[video]) else "")
            cut.append({**target, "segment": [k * part, (k + 1) * part]})
    given = dense_by_video([row["prediction"] for row in rows], [row["target"] for row in rows])["CIDEr"]
    assert measured(given) > measured(dense_by_video(said, cut)["CIDEr"]) > 0
