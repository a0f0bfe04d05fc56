"""Files of predictions that others made, in each benchmark's format; what is wrong is told with its place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit import metrics
from evalkit.api import Example, Task
from evalkit.errors import UserError
from evalkit.metrics.retrieval import retrieval
from evalkit.pipeline.foreign.files import matrix_ranks, read_predictions
from tests.given import ANNOTATIONS, DATA, FIXTURES, linked, make, real, write

VIDEO = Path("v.mp4")
CHOICE = Task([Example(name, VIDEO, 1, choices=("x", "y", "z")) for name in "abc"], metrics.accuracy)
CAPTION = Task([Example(name, VIDEO, ("a dog",)) for name in ("video1", "7")], metrics.captions)
ANSWER = Task([Example(name, VIDEO, ("no",)) for name in ("v_1", "v_2", "w_1")], metrics.exact_match)
SEGMENT = Task([Example(name, VIDEO, [[0.0, 5.0, "run"]]) for name in ("v", "w")], metrics.activitynet_map)
SEGMENT = Task(SEGMENT.test, SEGMENT.score, classes=("run",))
EVENT = {"segment": [0.0, 5.0], "sentence": "a dog runs"}
DENSE = Task(
    [
        Example(f"v_{k}", VIDEO, {"video": "v_v", "segment": [k, k + 5.0], "references": [[EVENT], [EVENT, EVENT]]})
        for k in range(2)
    ],
    metrics.dense_by_video,
)
SEARCH = Task([Example(name, Path(f"{name}.mp4"), name) for name in "abc"], metrics.retrieval)
FRAMES = Task(
    [Example(name, VIDEO, []) for name in ("v_0902", "v_0903", "w_0902")],
    metrics.ava_map,
    classes=("bend", "", "stand"),
)


def refused(task: Task, file: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_predictions(task, file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)
    return str(caught.value)


# --- what benchmarks publish -----------------------------------------------------------------------------------------


@real
def test_nextqa_s_own_predictions_score_what_was_published(tmp_path: Path) -> None:
    task = make("nextqa", linked(tmp_path, "nextqa"))
    given = read_predictions(task, ANNOTATIONS / "nextqa/predictions/HGA-bert-ft-h256-val.json")
    score = task.score([given.values.get(e.id) for e in task.test], [e.target for e in task.test])
    assert 100 * np.mean(score["accuracy"]) == pytest.approx(49.74, abs=0.005) and not given.others


@real
def test_nextqa_s_own_open_answers_are_all_read(tmp_path: Path) -> None:
    for name in ("val.csv", "test.csv", "add_reference_answer_test.json"):
        (tmp_path / name).symlink_to(ANNOTATIONS / "nextqa" / f"oe_{name}")
    for split, n in (("val", 5_343), ("test", 9_178)):
        task = make("nextqa_open", tmp_path, split=split)
        given = read_predictions(task, ANNOTATIONS / f"nextqa/predictions/oe_HGA-same-att-qns23ans7-{split}.json")
        assert len(given.values) == len(task.test) == n and not given.others


@real
def test_dense_captions_score_what_the_official_evaluation_gives(tmp_path: Path) -> None:
    """Of segments of their own: 48 of 50 videos have some."""
    truth = DATA / "expected/dense_caption/yc2_val50_gt.json"
    (tmp_path / "yc2_val.json").symlink_to(truth)
    given = read_predictions(make("youcook2_dense", tmp_path), DATA / "expected/dense_caption/yc2_val50_pred.json")
    assert (len(given.task.test), len(given.values), given.form) == (50, 48, "dense captions")
    assert given.task.score is metrics.dense
    scores = given.task.score([given.values.get(e.id) for e in given.task.test], [e.target for e in given.task.test])
    assert scores["CIDEr"] == pytest.approx(209.65124077, abs=1e-6)
    assert scores["Recall"] == pytest.approx(50.60658647, abs=1e-6)
    assert scores["Precision"] == pytest.approx(65.39211760, abs=1e-6)


def test_a_matrix_of_similarities_ranks_as_the_official_scorers_do() -> None:
    file = np.load(FIXTURES / "retrieval" / "square_1000.npz")
    expected = json.loads((FIXTURES / "retrieval" / "expected.json").read_text())["square_1000"]
    t2v, v2t = matrix_ranks(file["text"] @ file["video"].T, np.arange(1000))
    found = retrieval([{"t2v": t, "v2t": v} for t, v in zip(t2v, v2t, strict=True)], list(range(1000)))
    for direction in ("t2v", "v2t"):
        official = expected[f"clip4clip_{direction}"]
        assert 100 * np.mean(found[f"{direction}_R@1"]) == pytest.approx(official["R1"])
        assert found[f"{direction}_mean_rank"] == pytest.approx(official["MeanR"])


# --- each format -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.json", {"a": 2, "b": 0, "x": 1}),
        ("p.json", {"a": {"prediction": 2, "answer": 1}, "b": {"prediction": 0}, "x": {"prediction": 1}}),
        ("p.json", [{"q_uid": "a", "answer": 2}, {"q_uid": "b", "answer": 0}, {"q_uid": "x", "answer": 1}]),
        ("p.csv", "q_uid,answer\na,2\nb,0\nx,1\n"),
    ],
)
def test_answers_of_multiple_choice(tmp_path: Path, name: str, content: Any) -> None:
    given = read_predictions(CHOICE, write(tmp_path / name, content))
    assert (given.values, given.others, given.form) == ({"a": 2, "b": 0}, ["x"], "multiple choice")


def test_captions_answers_and_segments(tmp_path: Path) -> None:
    coco = [{"image_id": "video1", "caption": "a cat"}, {"image_id": 7, "caption": "a dog"}]
    assert read_predictions(CAPTION, write(tmp_path / "c.json", coco)).values == {"video1": "a cat", "7": "a dog"}
    for answers in ({"v": {"1": "yes", "2": ""}, "w": {"9": "x"}}, {"v_1": "yes", "v_2": "", "w_9": "x"}):
        given = read_predictions(ANSWER, write(tmp_path / "a.json", answers))
        assert (given.values, given.others) == ({"v_1": "yes", "v_2": ""}, ["w_9"])
    segments = {"results": {"v": [{"segment": [0, 4], "label": "run", "score": 1}]}}
    assert read_predictions(SEGMENT, write(tmp_path / "s.json", segments)).values == {"v": [[0.0, 4.0, "run", 1.0]]}


def test_dense_captions_become_events_of_videos(tmp_path: Path) -> None:
    event = {"timestamp": [1, 3], "sentence": "a dog"}
    given = read_predictions(DENSE, write(tmp_path / "d.json", {"results": {"v": [event], "v_y": []}}))
    assert given.values == {"v_v": [{"segment": [1.0, 3.0], "sentence": "a dog"}]} and given.others == ["v_y"]
    assert [example.target for example in given.task.test] == [[[EVENT], [EVENT, EVENT]]]


def test_boxes_are_those_of_scored_actions_and_an_empty_key_frame_is_an_answer(tmp_path: Path) -> None:
    rows = "v,902,0,0,1,1,3,0.5\nv,902,0,0,1,1,2,0.9\nx,902,0,0,1,1,1,0.5\n"
    given = read_predictions(FRAMES, write(tmp_path / "b.csv", rows))
    assert given.values == {"v_0902": [[0.0, 0.0, 1.0, 1.0, "stand", 0.5]], "v_0903": []}
    assert given.others == ["x_0902"]


def test_a_matrix_in_another_order_has_its_ids(tmp_path: Path) -> None:
    file = tmp_path / "m.npz"
    matrix = np.array([[0.9, 0.1, 0.5], [0.2, 0.8, 0.8], [0.3, 0.4, 0.1]])
    np.savez(file, similarity=matrix)
    values = read_predictions(SEARCH, file).values
    assert values == {"a": {"t2v": 1.0, "v2t": 1.0}, "b": {"t2v": 1.5, "v2t": 1.0}, "c": {"t2v": 3.0, "v2t": 3.0}}
    order = [2, 0, 1]
    ids = np.array(list("abc"))[order]
    np.savez(file, similarity=matrix[order][:, order[::-1]], texts=ids, videos=ids[::-1])
    assert read_predictions(SEARCH, file).values == values
    np.savez(file, similarity=matrix[:2], texts=np.array(["a", "z"]), videos=np.array(list("abc")))
    assert {*read_predictions(SEARCH, file).values} == {"a"} and read_predictions(SEARCH, file).others == ["z"]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "name", "content", "why"),
    [
        (CHOICE, "p.json", {"a": 3}, "a: not as published: answer 3; wanted a number from 0 to 2"),
        (CHOICE, "p.json", {"a": True}, "answer True; wanted"),
        (CHOICE, "p.json", {"a": {"prediction": 1, "answer": 2}}, "another split?"),
        (CHOICE, "p.json", [{"q_uid": "a"}], "entry 1: {'q_uid': 'a'}; wanted q_uid and answer"),
        (CHOICE, "p.json", [{"q_uid": "a", "answer": 1}] * 2, "entry 2: a appears twice"),
        (CHOICE, "p.json", {"x": 1}, "no prediction for this task, whose ids are like 'a'; it has 'x'"),
        (CHOICE, "p.json", "[", "as JSON"),
        (CHOICE, "p.json", "3", "found a int"),
        (CHOICE, "p.csv", "q_uid,answer\na,1\nb\n", "line 3: 1 values"),
        (CHOICE, "p.csv", "q_uid,answer\na,1\nb,nan\n", "line 3: not as published: answer 'nan'"),
        (CAPTION, "c.json", [{"image_id": 7, "caption": 3}], "entry 1: not as published: 3; wanted a text"),
        (DENSE, "d.json", {"results": {"v": [{"timestamp": [3, 1], "sentence": "a"}]}}, "event 1 from 3 to 1 s"),
        (DENSE, "d.json", {"results": {"v": [{"timestamp": [1, 3]}]}}, "KeyError: 'sentence'"),
        (SEGMENT, "s.json", {"results": {"v": [{"segment": [0, 1], "label": "runs", "score": 1}]}}, "mean 'run'?"),
        (FRAMES, "b.csv", "v,902,0,0,2,1,3,0.5\n", "line 1: box 0, 0, 2, 1; wanted shares"),
        (SEARCH, "m.npz", "no archive", "as npz"),
    ],
)
def test_what_is_not_in_the_format_is_told_in_one_line(
    tmp_path: Path, task: Task, name: str, content: Any, why: str
) -> None:
    assert why in refused(task, write(tmp_path / name, content))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda matrix: {"similarity": matrix[:2]}, "3 texts x 3 videos, found float64 of 2 x 3"),
        (lambda matrix: {"other": matrix}, "found none"),
        (lambda matrix: {"similarity": np.where(np.eye(3), np.nan, matrix)}, "text 'a' and video 'a' is not a number"),
        (lambda matrix: {"sims": matrix, "videos": np.array(["a", "b", "z"])}, "1 of 3 videos are missing, first 'c'"),
        (lambda matrix: {"sims": matrix, "texts": np.array(["a", "a", "b"])}, "an id appears twice in `texts`"),
        (lambda matrix: {"similarity": np.array([[{}]], object)}, "as npz"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(tmp_path: Path, change: Callable[[Any], Any], why: str) -> None:
    np.savez(tmp_path / "m.npz", **change(np.zeros((3, 3))))
    assert why in refused(SEARCH, tmp_path / "m.npz")


def test_a_score_without_a_format_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "p.json", {"a": 1})
    for task in (Task([Example("a", VIDEO, 1)], metrics.top1_top5), Task([Example("a", VIDEO, 1)], metrics.accuracy)):
        assert "no format is known for this task's score; there are those of multiple choice" in refused(task, file)
    assert "there is no such file" in refused(CHOICE, tmp_path / "none.json")
    assert "is a folder; name the file in it" in refused(CHOICE, tmp_path)


def test_an_archive_that_inflates_a_thousandfold_and_a_bare_array_are_no_matrix(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "m.npz", similarity=np.zeros((3_000, 3_000)))
    assert "would become" in refused(SEARCH, tmp_path / "m.npz")
    np.save(tmp_path / "m.npy", np.zeros((3, 3)))
    assert "as npz" in refused(SEARCH, tmp_path / "m.npy")
