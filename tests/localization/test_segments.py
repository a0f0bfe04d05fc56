"""ActivityNet's and THUMOS14's JSON, and predictions in that layout: what is read, counted and refused."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import UserError
from evalkit.localization.segments import clipped, read_segment_predictions, read_segments
from tests.given import ANNOTATIONS, real, write


def annotated(*segments: Any, duration: Any = 60.0, subset: Any = "validation") -> dict[str, Any]:
    annotations = [{"segment": [start, end], "label": label} for start, end, label in segments]
    return {"database": {"v": {"duration": duration, "subset": subset, "annotations": annotations}}}


def refused(file: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_segments(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)
    return str(caught.value)


@real
def test_activitynet_is_read_whole_and_what_is_unusual_is_counted() -> None:
    videos = read_segments(ANNOTATIONS / "activitynet" / "activity_net.v1-3.from_tsp.json")
    assert (len(videos.of("training")), len(videos.of("Validation")), len(videos.classes)) == (10_024, 4_926, 200)
    assert (videos.past_end, videos.no_length, videos.left_out) == (1_732, 12, 0)


def test_segments_past_the_end_are_kept_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "a.json", annotated((50, 61.5, "b"), (3, 3, "a"), (0, 9, "Ambiguous")))
    with caplog.at_level(logging.INFO, "evalkit"):
        videos = read_segments(file)
    assert videos.videos[0].segments == [[50.0, 61.5, "b"], [3.0, 3.0, "a"]] and videos.classes == ("a", "b")
    assert videos[2:] == (1, 1, 1) and "segments that end after their video (1) or have no length (1)" in caplog.text
    assert clipped(videos.videos[0].segments, 60.0) == [[50.0, 60.0, "b"]]


def test_thumos14_s_layout_is_the_same_and_repeated_annotations_are_one(tmp_path: Path) -> None:
    entry = {"segment": [1.0, 2.0], "segment(frames)": [30.0, 60.0], "label": "Diving", "label_id": 1}
    near = {**entry, "segment": [1.0005, 2.0]}
    file = write(
        tmp_path / "thumos14.json",
        {
            "version": "Thumos14-30fps",
            "database": {
                "video_test_0000004": {
                    "subset": "Test",
                    "duration": 33.67,
                    "fps": 30.0,
                    "annotations": [entry, near, {**entry, "label": "CliffDiving"}],
                }
            },
        },
    )
    assert len(read_segments(file).of("test")[0].segments) == 3
    assert read_segments(file, drop_repeated=True).videos[0].segments == [
        [1.0, 2.0, "Diving"],
        [1.0, 2.0, "CliffDiving"],
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (annotated((1, 2, "a"), (5, 4, "a")), "video v, annotation 2: .*segment from 5 to 4 s"),
        (annotated((-1, 2, "a")), "segment from -1 to 2 s"),
        (annotated((1, None, "a")), "segment None; wanted a number"),
        (annotated((1, float("nan"), "a")), "segment nan; wanted a finite number"),
        (annotated((1, 2, 7)), "label 7; wanted the name of a class"),
        (annotated((1, 2, " a")), "label ' a'; wanted the name of a class, in one line and without blanks around it"),
        (annotated((1, 2, "a\nb")), "label 'a.*b'; wanted the name of a class, in one line"),
        (annotated((1, 2, "a"), duration=0), "video v: .*duration 0"),
        (annotated((1, 2, "a"), subset=None), "subset None"),
        ({"database": {"v": {"subset": "validation", "annotations": []}}}, "video v: .*KeyError: 'duration'"),
        ({"database": [1]}, "not as published"),
        ({"taxonomy": []}, "KeyError: 'database'"),
        ('{"database": {"v": ', "as JSON"),
    ],
)
def test_a_malformed_file_of_annotations_is_told_in_one_line(tmp_path: Path, content: Any, why: str) -> None:
    assert re.search(why, refused(write(tmp_path / "a.json", content)))


def test_predictions_of_other_videos_are_told_and_the_prefix_of_ids_is_taken_off(tmp_path: Path) -> None:
    result = {"segment": [1, 2], "label": "a", "score": 0.5}
    file = write(tmp_path / "p.json", {"results": {"v_x": [result], "y": [], "z": [{**result, "label": "?"}]}})
    assert read_segment_predictions(file, ["x", "y", "w"], ["a"]) == ({"x": [[1.0, 2.0, "a", 0.5]], "y": []}, ["z"])


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"segment": [1, 2], "label": "jumpin", "score": 0.5}, "'jumpin' is not a class. Did you mean 'jumping'?"),
        ({"segment": [3, 2], "label": "jumping", "score": 0.5}, "segment from 3 to 2 s"),
        ({"segment": [1, 2, 3], "label": "jumping", "score": 0.5}, "wanted [start, end] in seconds"),
        ({"segment": [1, 2], "label": "jumping"}, "KeyError: 'score'"),
        ({"segment": [1, 2], "label": "jumping", "score": float("nan")}, "score nan; wanted a finite number"),
    ],
)
def test_a_malformed_prediction_is_told_with_its_place(tmp_path: Path, result: Any, why: str) -> None:
    good = {"segment": [1, 2], "label": "jumping", "score": 1}
    file = write(tmp_path / "p.json", {"results": {"x": [good, result]}})
    with pytest.raises(UserError) as caught:
        read_segment_predictions(file, ["x"], ["jumping"])
    assert str(caught.value).startswith(f"{file}, video x, prediction 2: ") and why in str(caught.value)
