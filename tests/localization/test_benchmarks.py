"""ActivityNet, THUMOS14 and AVA as tasks that score predictions made elsewhere, equal to the official scorers."""

from pathlib import Path

import pytest

from evalkit.errors import UserError
from evalkit.localization.benchmarks import activitynet, ava, thumos14
from evalkit.pipeline.foreign_files import read_predictions
from tests.given import ANNOTATIONS, DATA, real, write

BOX = "v,0902,0.1,0.2,0.5,0.9,{},0\n"
MAP = 'item {\n  name: "stand"\n  id: 12\n}\n'


@real
def test_published_predictions_score_as_the_official_scorers_say() -> None:
    task = activitynet(ANNOTATIONS / "activitynet", "activity_net.v1-3.from_tsp.json")
    given = read_predictions(task, DATA / "expected/activitynet/jittered_detection_prediction.json")
    score = task.score([given.values.get(e.id) for e in task.test], [e.target for e in task.test])["mAP"]
    assert score == pytest.approx(33.33233083548755, abs=1e-9)
    assert (len(task.train), len(task.test), len(task.classes)) == (10_024, 4_926, 200)


@real
def test_ava_s_csv_scores_as_the_official_scorer_says(tmp_path: Path) -> None:
    for name, source in (
        ("ava_val_v2.2.csv", "synthetic_gt.csv"),
        ("ava_action_list_v2.1_for_activitynet_2018.pbtxt", "ava_action_list_v2.1_for_activitynet_2018.pbtxt.txt"),
    ):
        (tmp_path / name).symlink_to(ANNOTATIONS / "ava" / source)
    task = ava(tmp_path)
    given = read_predictions(task, ANNOTATIONS / "ava/synthetic_pred.csv")
    score = task.score([given.values.get(e.id) for e in task.test], [e.target for e in task.test])["mAP"]
    assert score == pytest.approx(60.92304625175013, abs=1e-9)
    assert len(task.classes) == 80 and len(given.others) == 7


def test_excluded_key_frames_are_left_out_and_unscored_ones_stay(tmp_path: Path) -> None:
    rows = f"{BOX.format(12)}{BOX.format(79)}v,0903,0.1,0.2,0.5,0.9,79,0\nv,0904,0.1,0.2,0.5,0.9,12,0\n"
    write(tmp_path / "ava_val_v2.2.csv", rows)
    write(tmp_path / "ava_val_excluded_timestamps_v2.2.csv", "v,0904\n")
    write(tmp_path / "ava_action_list_v2.2_for_activitynet_2019.pbtxt", MAP)
    write(tmp_path / "videos" / "v.mkv", "")
    task = ava(tmp_path)
    assert [(e.id, e.video.name, e.target) for e in task.test] == [
        ("v_0902", "v.mkv", [[0.1, 0.2, 0.5, 0.9, "stand"]]),
        ("v_0903", "v.mkv", []),
    ]
    assert task.classes[11] == "stand" and {*task.classes} == {"", "stand"}
    write(tmp_path / "ava_val_v2.2.csv", "v,0904\n")
    with pytest.raises(UserError, match="no key frame in it"):
        ava(tmp_path)


@pytest.mark.parametrize(("train", "test"), [("Validation", "Test"), ("training", "validation")])
def test_thumos14_has_the_splits_of_either_release(tmp_path: Path, train: str, test: str) -> None:
    annotation = {"segment": [1, 2], "label": "Diving", "label_id": 7}
    entry = {"duration": 9, "annotations": [annotation, annotation]}
    database = {"a": {**entry, "subset": train}, "b": {**entry, "subset": test}}
    task = thumos14(write(tmp_path / "thumos14.json", {"database": database}).parent)
    assert [e.id for e in task.train] == ["a"] and [e.id for e in task.test] == ["b"]
    assert task.test[0].target == [[1.0, 2.0, "Diving"]] and task.classes == ("Diving",)
