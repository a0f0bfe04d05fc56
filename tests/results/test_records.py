"""The records of leaderboard/results, which earlier states of the code wrote, still validate and score the same."""

from pathlib import Path

import pytest

from evalkit import metrics
from evalkit.errors import UserError
from evalkit.results import run_folder
from evalkit.results.compare import compare
from evalkit.results.run_folder import load, load_rows, runs
from evalkit.results.scores import headline, present, resolve
from evalkit.results.validate import check

RUNS = runs(Path(__file__).parents[2] / "leaderboard" / "results")


def test_there_is_a_record_of_every_task_of_the_board() -> None:
    records = [load(run) for run in RUNS]
    with_video = [record["task"]["name"] for record in records if record["encoder"]["ckpt"] != "none"]
    assert len({*with_video}) == len(with_video) == 54


def test_what_the_language_model_alone_scores_stands_beside_egoschema() -> None:
    """It answers as by chance, so that the encoder's score comes from the video."""
    (alone,) = (record for record in map(load, RUNS) if record["encoder"]["ckpt"] == "none")
    score = alone["scores"][0]
    assert alone["task"]["name"] == "egoschema@mini" and score["ci95"][0] <= alone["chance"] <= score["ci95"][1]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.parent.name)
def test_a_record_validates_and_scores_the_same_again(run: Path) -> None:
    checked = check(run)  # which computes the scores from the predictions and compares them with the stored ones
    assert checked.problems == [] and checked.record["scores"]
    score = present(checked.record["task"]["score"])
    assert resolve(score) is resolve(checked.record["task"]["score"])
    assert score.partition(":")[0] in ("evalkit.metrics", f"evalkit.tasks.{run.parent.name.removesuffix('@mini')}")


@pytest.mark.parametrize(
    ("name", "least"), [("activitynet_tal", 60), ("tal", 60), ("thumos14_tal", 90), ("ava", 75), ("ava_kinetics", 50)]
)
def test_a_miniature_of_localization_is_about_when_and_where(name: str, least: float) -> None:
    (run,) = [run for run in RUNS if run.parent.name == f"{name}@mini"]
    record, rows = load(run), load_rows(run)
    value = record["scores"][0]["value"]
    assert value > least and record["chance"] < value / 2
    (shuffled,) = [control["value"] for control in record["controls"] if control["name"] == "shuffled"]
    assert shuffled < (5 if "tal" in name else 0.75 * value)
    targets = [row.target for row in rows]
    if "tal" in name:  # in the films' second half what was in their first
        moved = [[[48 - end, 48 - start, *rest] for start, end, *rest in row.prediction or ()] for row in rows]
    else:
        moved = [
            [[1 - right, top, 1 - left, *rest] for left, top, right, *rest in row.prediction or ()] for row in rows
        ]
    assert headline(resolve(record["task"]["score"]), moved, targets) < value / 2


@pytest.mark.parametrize(
    ("former", "name"),
    [
        ("evalkit.events:by_video", "dense_by_video"),
        ("evalkit.metrics:by_video", "dense_by_video"),
        ("evalkit.metrics:by_video_meteor", "dense_by_video_meteor"),
        ("evalkit.wording.captions:captions_meteor", "captions_meteor"),
        ("evalkit.wording.answers:exact_match", "exact_match"),
        ("evalkit.wording.paragraph:paragraph", "paragraph"),
        ("evalkit.answers:wups_untagged", "wups_untagged"),
        ("evalkit.videocon:top1_map", "top1_map"),
    ],
)
def test_a_former_name_means_the_function_of_today(former: str, name: str) -> None:
    assert resolve(former) is getattr(metrics, name)
    assert present(former) == f"evalkit.metrics:{name}"


def test_a_name_of_another_module_stays_as_it_is() -> None:
    assert present("/home/me/my_task.py:by_video") == "/home/me/my_task.py:by_video"
    with pytest.raises(UserError, match="no score functions in evalkit.events.deeper"):
        resolve("evalkit.events.deeper:by_video")


def test_a_record_of_a_former_name_is_compared_with_one_of_today(tmp_path: Path) -> None:
    (former,) = [run for run in RUNS if run.parent.name == "ssv2_events@mini"]
    record = load(former)
    record["task"]["score"] = present(record["task"]["score"])
    today = run_folder.write(tmp_path / "run", record, load_rows(former), "")
    assert all(one.value == 0 for one in compare(former, today).differences)
