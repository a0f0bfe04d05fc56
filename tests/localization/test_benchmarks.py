"""ActivityNet and THUMOS14 as tasks that score predictions made elsewhere, equal to the official scorers."""

from pathlib import Path

import pytest

from evalkit.localization.benchmarks import activitynet, thumos14
from evalkit.pipeline.foreign_files import read_predictions
from tests.given import ANNOTATIONS, DATA, real, write


@real
def test_published_predictions_score_as_the_official_scorers_say() -> None:
    task = activitynet(ANNOTATIONS / "activitynet", "activity_net.v1-3.from_tsp.json")
    given = read_predictions(task, DATA / "expected/activitynet/jittered_detection_prediction.json")
    score = task.score([given.values.get(e.id) for e in task.test], [e.target for e in task.test])["mAP"]
    assert score == pytest.approx(33.33233083548755, abs=1e-9)
    assert (len(task.train), len(task.test), len(task.classes)) == (10_024, 4_926, 200)


@pytest.mark.parametrize(("train", "test"), [("Validation", "Test"), ("training", "validation")])
def test_thumos14_has_the_splits_of_either_release(tmp_path: Path, train: str, test: str) -> None:
    annotation = {"segment": [1, 2], "label": "Diving", "label_id": 7}
    entry = {"duration": 9, "annotations": [annotation, annotation]}
    database = {"a": {**entry, "subset": train}, "b": {**entry, "subset": test}}
    task = thumos14(write(tmp_path / "thumos14.json", {"database": database}).parent)
    assert [e.id for e in task.train] == ["a"] and [e.id for e in task.test] == ["b"]
    assert task.test[0].target == [[1.0, 2.0, "Diving"]] and task.classes == ("Diving",)
