"""AVA's csv, label map, excluded key frames, detections and persons: what is read, counted and refused."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import UserError
from evalkit.localization.key_frames import (
    key_frame_name,
    read_detections,
    read_excluded,
    read_key_frames,
    read_label_map,
    read_persons,
)
from tests.given import ANNOTATIONS, real, write
from tests.patience import patience

ACTIONS = {1: "bend", 12: "stand"}
MAP = 'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\nitem {\n  name: "say \\"hi\\""\n  label_id: 3\n}\n'
BOX = "v,0902,0.1,0.2,0.5,0.9,12,0\n"


def refused(read: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@real
def test_the_published_files_are_read() -> None:
    ava = ANNOTATIONS / "ava"
    actions = read_label_map(ava / "ava_action_list_v2.1_for_activitynet_2018.pbtxt.txt")
    assert len(actions) == 60 and (actions[1], actions[80]) == ("bend/bow (at the waist)", "watch (a person)")
    frames = read_key_frames(ava / "mmaction2_ava_dataset_ava_sample.csv", actions)
    excluded = read_excluded(ava / "mmaction2_ava_dataset_ava_excluded_timestamps_sample.csv")
    assert excluded == {("0f39OWEqJ24", 903.0), ("_-Z6wFjXtGQ", 902.0)}
    left = read_key_frames(ava / "mmaction2_ava_dataset_ava_sample.csv", actions, excluded)
    assert {*frames.boxes} - {*left.boxes} == excluded and left.excluded == 2
    assert left.persons == {("0f39OWEqJ24", 902.0): ["0", "0", "0"]}
    assert read_detections(ava / "synthetic_pred.csv", actions).beyond > 0


def test_a_label_map_names_actions_by_either_id(tmp_path: Path) -> None:
    assert read_label_map(write(tmp_path / "m", MAP)) == {1: "bend/bow (at the waist)", 3: 'say \\"hi\\"'}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no action in it"),
        ('item { name: "a" }', "line 1: not as published"),
        (f'{MAP}item {{\n  name: "c"\n', "line 9: not as published"),
        (f'{MAP}item {{\n  name: "c"\n  id: 3\n}}', "line 9: id 3 or name 'c' appears twice"),
    ],
)
def test_a_malformed_label_map_is_told_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    assert why in refused(lambda: read_label_map(write(tmp_path / "m", text)))


def test_key_frames_without_boxes_stay_and_unscored_actions_are_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", f"{BOX}v,0903\nw,1798,0.1,0.2,0.5,0.9,79,1\n{BOX}")
    frames = read_key_frames(file, ACTIONS)
    box = [0.1, 0.2, 0.5, 0.9, "stand"]
    assert frames.boxes == {("v", 902.0): [box, box], ("v", 903.0): [], ("w", 1798.0): []}
    assert (frames.unscored, frames.repeated) == (1, 1)
    assert [*map(key_frame_name, frames.boxes)] == ["v_0902", "v_0903", "w_1798"]
    kinetics = write(tmp_path / "k.csv", "v,84.4,0.1,0.2,0.5,0.9,12,0\nw,3.0,,,,,,\n")
    assert {*map(key_frame_name, read_key_frames(kinetics, ACTIONS, seconds=None).boxes)} == {"v_84.4", "w_0003"}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("v,0901,0.1,0.2,0.5,0.9,12,0", "second 0901; wanted 902 to 1798"),
        ("v,1799,0.1,0.2,0.5,0.9,12,0", "second 1799; wanted 902 to 1798"),
        ("v,nan,0.1,0.2,0.5,0.9,12,0", "second 'nan'; wanted a number"),
        ("v,0902,0.1,0.2,1.5,0.9,12,0", "box 0.1, 0.2, 1.5, 0.9; wanted shares"),
        ("v,0902,-0.1,0.2,0.5,0.9,12,0", "box -0.1, 0.2, 0.5, 0.9; wanted shares"),
        ("v,0902,0.5,0.2,0.1,0.9,12,0", "wanted left <= right and top <= bottom"),
        ("v,0902,0.1,0.2,nan,0.9,12,0", "box 'nan'; wanted a number"),
        ("v,0902,0.1,0.2,0.5,0.9,81,0", "action '81'; wanted a number from 1 to 80"),
        ("v,0902,0.1,0.2,0.5,0.9,,0", "action ''; wanted a number from 1 to 80"),
        (",0902,0.1,0.2,0.5,0.9,12,0", "no video"),
        ("v\0,0902,0.1,0.2,0.5,0.9,12,0", "it holds a NUL character"),
        ("v,0902,0.1,0.2,0.5,0.9,1", "7 values; wanted 8 as above"),  # cut off
        ("v,0902,0.1", "3 values; wanted 8 as above"),
    ],
)
def test_a_malformed_row_is_told_with_file_and_line(tmp_path: Path, row: str, why: str) -> None:
    file = write(tmp_path / "a.csv", f"{BOX}{row}\n")
    message = refused(lambda: read_key_frames(file, ACTIONS))
    assert message.startswith(f"{file}, line 2: ") and why in message


def test_detections_have_scores_and_fifty_of_a_key_frame_stay(tmp_path: Path) -> None:
    rows = [f"v,902,0.1,0.1,0.5,0.5,{1 if n % 2 else 12},{n / 100:.2f}" for n in range(60)]
    found = read_detections(write(tmp_path / "d.csv", "\n".join(rows)), ACTIONS)
    boxes = found.boxes["v", 902.0]
    assert [box[5] for box in boxes] == [n / 100 for n in range(59, 9, -1)] and found.beyond == 10
    assert "no score" in refused(lambda: read_detections(write(tmp_path / "d.csv", BOX[:-3] + "\n"), ACTIONS))
    nan = BOX[:-2] + "nan\n"
    assert "score 'nan'" in refused(lambda: read_detections(write(tmp_path / "d.csv", nan), ACTIONS))
    assert "cannot read" in refused(lambda: read_detections(tmp_path / "none.csv", ACTIONS))


def test_of_equal_scores_those_stay_that_the_official_heap_keeps(tmp_path: Path) -> None:
    """A higher score drives out the equal one of the lowest action, and an equal one comes too late."""
    rows = [f"v,902,0.1,0.1,0.5,0.5,{12 if n else 1},0.5" for n in range(50)]
    rows += ["v,902,0.2,0.2,0.6,0.6,1,0.5", "v,902,0.3,0.3,0.7,0.7,1,0.9"]
    boxes = read_detections(write(tmp_path / "d.csv", "\n".join(rows)), ACTIONS).boxes["v", 902.0]
    assert boxes[0] == [0.3, 0.3, 0.7, 0.7, "bend", 0.9] and {box[4] for box in boxes[1:]} == {"stand"}


def test_persons_below_the_threshold_are_counted(tmp_path: Path) -> None:
    file = write(
        tmp_path / "p.csv", "v,0902,0.1,0.2,0.5,0.9,,0.95\nv,0902,0.1,0.2,0.5,0.9,,0.79\nw,0903,0,0,1,1,,0.8\n"
    )
    persons = read_persons(file, 0.8)
    assert persons.boxes == {("v", 902.0): [[0.1, 0.2, 0.5, 0.9, 0.95]], ("w", 903.0): [[0.0, 0.0, 1.0, 1.0, 0.8]]}
    assert persons.below == 1
    assert "line 1" in refused(lambda: read_persons(write(tmp_path / "p.csv", BOX), 0.8))


def test_crowded_key_frames_are_read_in_time_that_grows_with_their_boxes(tmp_path: Path) -> None:
    rows = [f"v,0902,0.1,0.2,0.5,{0.3 + n / 100_000},,0.9\n" for n in range(20_000)]
    started = time.perf_counter()
    persons = read_persons(write(tmp_path / "p.csv", "".join([*rows, rows[0]])), 0.8)
    assert len(persons.boxes["v", 902.0]) == 20_000 and time.perf_counter() - started < patience(3)
