"""ActivityNet, THUMOS14 and videos of one's own as tasks whose videos are sequences of windows."""

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.api import Task
from evalkit.errors import UserError
from evalkit.localization.segment_task import read_video_classes
from evalkit.pipeline.foreign.files import read_predictions
from tests.given import ANNOTATIONS, DATA, make, real, refusal, write


@real
def test_published_predictions_score_as_the_official_scorer_says() -> None:
    task = make("activitynet_tal", ANNOTATIONS / "activitynet", file="activity_net.v1-3.from_tsp.json")
    given = read_predictions(task, DATA / "expected/activitynet/jittered_detection_prediction.json")
    score: Any = task.score([given.values.get(e.id) for e in task.test], [e.target for e in task.test])["mAP"]
    assert score == pytest.approx(33.33233083548755, abs=1e-9)
    assert (len(task.train), len(task.test), len(task.classes)) == (10_024, 4_926, 200)
    assert 0 < task.chance < 1 and task.published["VideoPrism-g"] == 37.8


def own(folder: Path, *, train: str = "training", test: str = "validation", **changed: Any) -> Path:
    def entry(subset: str, *segments: Any, duration: float = 9.0) -> dict[str, Any]:
        annotations = [{"segment": [start, end], "label": label} for start, end, label in segments]
        return {"subset": subset, "duration": duration, "annotations": annotations, **changed}

    database = {
        "a": entry(train, (1, 2, "jump"), (7, 10, "jump"), (9, 11, "swim")),
        "b": entry(test, (1, 2, "jump"), (7, 11, "swim")),
        "c": entry(test, duration=3.0),
    }
    write(folder / "videos" / "v_b.webm", "")
    return write(folder / "segments.json", {"database": database})


def test_segments_are_cut_at_the_end_of_a_video_to_learn_from_and_scored_as_they_are(tmp_path: Path) -> None:
    task = make("tal", own(tmp_path))
    assert [(e.id, e.target, e.span) for e in task.train] == [
        ("a", [[1.0, 2.0, "jump"], [7.0, 9.0, "jump"]], (0.0, 9.0)),
    ]
    assert [(e.id, e.target) for e in task.test] == [("b", [[1.0, 2.0, "jump"], [7.0, 11.0, "swim"]]), ("c", [])]
    assert task.classes == ("jump", "swim") and task.test[0].video == tmp_path / "videos" / "v_b.webm"
    assert task.views.window == task.views.window_stride == 16 / 15 and task.controls == ("shuffled",)
    assert make("tal", tmp_path).test == task.test  # by its folder


@pytest.mark.parametrize(("train", "test"), [("train", "val"), ("Training", "valid")])
def test_a_split_has_any_of_its_names(tmp_path: Path, train: str, test: str) -> None:
    task = make("tal", own(tmp_path, train=train, test=test))
    assert [[e.id for e in split] for split in (task.train, task.test)] == [["a"], ["b", "c"]]
    assert "nothing would be left" in refusal("tal", tmp_path, train="val", test="validation")


def test_videos_of_other_subsets_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "evalkit")
    file = own(tmp_path, train="trainig")
    assert not make("tal", file).train
    assert "videos of subsets other than 'training' and 'validation' are left out: 'trainig' (1)" in caplog.text


@pytest.mark.parametrize(("train", "test"), [("Validation", "Test"), ("training", "validation")])
def test_thumos14_has_the_splits_of_either_release(tmp_path: Path, train: str, test: str) -> None:
    annotation = {"segment": [1, 2], "label": "Diving", "label_id": 7}
    entry = {"duration": 9, "annotations": [annotation, annotation]}
    database = {"a": {**entry, "subset": train}, "b": {**entry, "subset": test}}
    task = make("thumos14_tal", write(tmp_path / "thumos14.json", {"database": database}).parent)
    assert [e.id for e in task.train] == ["a"] and [e.id for e in task.test] == ["b"]
    assert task.test[0].target == [[1.0, 2.0, "Diving"]] and task.classes == ("Diving",)
    assert (task.views.window, task.views.window_stride) == (16 / 30, 4 / 30)


def test_what_cannot_be_a_task_is_told(tmp_path: Path) -> None:
    file = own(tmp_path)
    assert refusal("tal", file, test="testing").endswith(
        "no video of subset 'testing'; the subsets there are training, validation"
    )
    assert "data.train=validation is data.test too" in refusal("tal", file, train="validation")
    assert "there is no" in refusal("tal", tmp_path / "other.json")
    none = refusal("tal", own(tmp_path, annotations=[]))
    assert none.endswith("none of 2 videos of subset 'validation' has a segment to score")
    database = json.loads(own(tmp_path).read_text())["database"]
    database["a"]["annotations"] = []
    unlabeled = refusal("tal", write(file, {"database": database}))
    assert unlabeled.endswith("none of 1 video of subset 'training' has a segment to learn from")
    assert refusal("tal", own(tmp_path, duration=0)).startswith(f"{file}, video a: not as published: ")


def classes(folder: Path, **changed: Any) -> Path:
    content = {"class": ["swim", "jump", "High_jump"], "results": {"b": [0.1, 0.7, 0.2], "v_c": [0.5, 0.2, 0.3]}}
    return write(folder / "classes.json", {**content, **changed})


def test_the_two_likeliest_classes_of_a_video_come_from_a_file(tmp_path: Path) -> None:
    file = classes(tmp_path)
    assert read_video_classes(file, ["b", "c"], ["jump", "swim", "High jump"]) == {
        "b": {"jump": 0.7, "High jump": 0.2},
        "c": {"swim": 0.5, "High jump": 0.3},
    }
    assert read_video_classes(file, ["b"], ["jump", "swim"]) == {"b": {"jump": 0.7, "swim": 0.1}}
    task = make("tal", own(tmp_path), video_classes=file)
    assert task.protocol == "videoglue, classes from a file" and make("tal", tmp_path).protocol == "videoglue"
    assert [dict(e.class_scores) for e in task.test] == [{"jump": 0.7, "swim": 0.1}, {"swim": 0.5, "jump": 0.2}]
    assert dict(task.train[0].class_scores) == {"jump": 1.0}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"class": ["swim"]}, "1 of 2 classes are not in it, first 'jump'"),
        ({"results": {"b": [0.1, 0.7, 0.2]}}, "1 of 2 videos not in it, first 'c'"),
        ({"results": {"b": [0.1, 0.7], "c": [0.1, 0.7, 0.2]}}, "video b: not as published: 2 scores"),
        ({"results": {"b": [0.1, 0.7, -1], "c": [0.1, 0.7, 0.2]}}, "video b: not as published: 3 scores"),
        ({"results": {"b": ["x", 1, 1], "c": [0.1, 0.7, 0.2]}}, "video b: not as published: "),
        ({"results": 3}, "not as published: TypeError"),
        ({"class": ["swim", "jump", "swim"]}, "the class 'swim' appears twice"),
    ],
)
def test_a_file_of_classes_that_is_not_so_is_told(changed: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"classes.json(, |: )+{told}"):
        read_video_classes(classes(tmp_path, **changed), ["b", "c"], ["jump", "swim"])


def test_the_order_of_the_file_is_not_that_of_the_videos_to_learn_from(tmp_path: Path) -> None:
    def entry(subset: str) -> dict[str, Any]:
        return {"subset": subset, "duration": 9.0, "annotations": [{"segment": [1, 2], "label": "jump"}]}

    names = ["c", "a", "b"]
    database = {name: entry("training") for name in names} | {"d": entry("validation ")}
    task = make("tal", write(tmp_path / "segments.json", {"database": database}))
    assert [e.id for e in task.train] == ["a", "b", "c"] and [e.id for e in task.test] == ["d"]


def test_equal_parts_are_chance(tmp_path: Path) -> None:
    def entry(subset: str, *segments: Any) -> dict[str, Any]:
        annotations = [{"segment": [start, end], "label": label} for start, end, label in segments]
        return {"subset": subset, "duration": 10.0, "annotations": annotations}

    database = {
        "a": entry("training", (0, 1, "jump"), (3, 4, "jump")),
        "b": entry("validation", (0, 5, "jump"), (5, 10, "jump")),
        "c": entry("validation", (2, 3, "swim")),
    }
    task: Task = make("tal", write(tmp_path / "segments.json", {"database": database}))
    assert task.chance == pytest.approx(25.0)  # of four halves called jump two are right; swim is not found
