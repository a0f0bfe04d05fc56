"""Features of a task's videos are scored without labels: a run like any other."""

import json
from pathlib import Path

import numpy as np
import pytest

from evalkit.cli import main
from evalkit.metrics.effective_rank import LiDAR, RankMe
from evalkit.metrics.representation import alignment, uniformity
from evalkit.results import run_folder, validate
from tests.pipeline import tiny_world
from tests.pipeline.tiny_world import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("decoding_here")]

world = tiny_world.world


def test_a_run_scores_the_features_of_all_views_and_is_a_record_like_any_other(
    tmp_path: Path, world: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"task={world / 'my_task.py'}", f"data.root={world / 'films'}", "workers=1", f"ckpt={tiny}"]
    folder = run(tmp_path / "results", *given, "adapter=representation", "clip.crops=3")
    assert validate.validate(folder) == []
    record = run_folder.load(folder)
    assert record["task"]["score"] == "evalkit.metrics:representation" and record["controls"] == []
    assert record["data"]["n_expected"] == 11 and record["data"]["n_failed"] == 2
    assert record["scores"][0]["n"] == 11  # the one without a public answer, too
    values = {entry["metric"]: entry["value"] for entry in record["scores"]}
    out = tmp_path / "features"
    assert main(["features", *given, f"out={out}", "clip.crops=3", "canary=false"]) == 0
    with np.load(out / "test-00000.npz") as file:
        views = file["pooled"].astype(np.float64).reshape(-1, 3, file["pooled"].shape[1])
    assert values["rankme"] == pytest.approx(RankMe(views.mean(1)).value, abs=1e-5)
    assert values["lidar"] == pytest.approx(LiDAR(views).value, abs=1e-5)
    assert values["alignment"] == pytest.approx(alignment(views), abs=1e-5)
    assert values["uniformity"] == pytest.approx(float(uniformity(views.mean(1))[0]), abs=1e-5)
    board = tmp_path / "board.csv"
    assert main(["leaderboard", f"results={tmp_path / 'results'}", f"out={board}"]) == 0
    assert "rankme" in board.read_text()


def test_one_view_says_how_to_get_more(
    tmp_path: Path, world: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"task={world / 'my_task.py'}", f"data.root={world / 'films'}", "workers=1", f"ckpt={tiny}"]
    folder = run(tmp_path, *given, "adapter=representation")
    assert "clip.clips=4 gives more" in capsys.readouterr().err
    values = {entry["metric"]: entry["value"] for entry in json.loads((folder / "result.json").read_text())["scores"]}
    assert values["lidar"] is None and values["rankme"] > 1
