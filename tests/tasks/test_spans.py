"""Spans that no video has and classes that are none are refused at load with file and place, in every task."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.api import Example, Task
from evalkit.errors import UserError
from evalkit.metrics import accuracy
from evalkit.pipeline.task_data import check_task
from tests.given import make, refusal, write

SPANS = [(5, 2), (-1, 2), (0, math.inf), (math.nan, 2)]


def events(root: Path, span: Any) -> str:
    video = {"duration": 10, "timestamps": [[0, 1], list(span)], "sentences": ["a cat", "a dog"]}
    for name in ("val_1", "val_2", "yc2_val"):
        write(root / f"{name}.json", {"v_a": video})
    return "video v_a"


def steps(root: Path, span: Any) -> str:
    step = {"segment": list(span), "sentence": "a cat"}
    video = {"duration": 10, "subset": "validation", "annotations": [step]}
    write(root / "youcookii_annotations_trainval.json", {"database": {"a": video}})
    return "video a"


def actions(root: Path, span: Any) -> str:
    start, end = span
    write(root / "Charades_v1_classes.txt", "\n".join(f"c{i:03d} name {i}" for i in range(157)))
    for split in ("train", "test"):
        write(root / f"Charades_v1_{split}.csv", f"id,actions,length\nAAAAA,c001 {start} {end},30\n")
    return "line 2"


def moments(root: Path, span: Any) -> str:
    start, end = span
    write(root / "Charades_v1_test.csv", "id,length\nAAAAA,30\n")
    write(root / "charades_sta_test.txt", f"AAAAA 0 3##a cat.\nAAAAA {start} {end}##a dog.\n")
    return "line 2"


def clips(root: Path, span: Any) -> str:
    start, end = span
    rows = [f"c{i},x{i},0,10,{{}}" for i in range(400)]
    for split in ("train", "val"):
        lines = [row.format(split) for row in rows]
        write(root / f"{split}.csv", "\n".join(["label,youtube_id,time_start,time_end,split", *lines, ""]))
    with (root / "val.csv").open("a") as file:
        file.write(f"c1,bad,{start},{end},val\n")
    return "line 402"


READERS = [
    *[(task, events) for task in ("youcook2", "youcook2_dense", "youcook2_retrieval", "youcook2_paragraph")],
    *[(task, events) for task in ("activitynet", "activitynet_captions")],
    *[("youcook2", steps), ("charades", actions), ("charades_sta", moments), ("kinetics400", clips)],
]


@pytest.mark.parametrize(
    ("task", "lay", "span"),
    # Charades itself has the end first in seven actions; what it does with them is tested below.
    [(*reader, span) for reader in READERS for span in SPANS if not (reader[1] is actions and span == (5, 2))],
)
def test_a_span_that_no_video_has_is_refused_at_load(
    tmp_path: Path, task: str, lay: Callable[[Path, Any], str], span: tuple[float, float]
) -> None:
    place = lay(tmp_path, span)
    told = refusal(task, tmp_path)
    assert f"{place}: not as published: no span from" in told and str(tmp_path) in told


def test_an_action_of_charades_whose_end_stands_first_is_from_the_smaller_to_the_larger(tmp_path: Path) -> None:
    actions(tmp_path, (9, 2))
    chunks = make("charades", tmp_path, protocol="videoglue_code").test
    assert [chunk.target for chunk in chunks] == [(1,), (1,)]  # the second begins at 8.67 s


@pytest.mark.parametrize("span", SPANS)
def test_proposals_and_tasks_of_ones_own_are_held_to_it_too(tmp_path: Path, span: tuple[float, float]) -> None:
    events(tmp_path, (1, 2))
    proposals = write(tmp_path / "mine.json", {"results": {"v_a": [{"timestamp": list(span)}]}})
    assert "mine.json, video v_a: not as published" in refusal("youcook2_dense", tmp_path, segments=str(proposals))
    mine = Task([Example("1", Path("a.mp4"), 0, span=span)], accuracy, classes=("a", "b"))
    with pytest.raises(UserError, match=r"^task mine: span of example '1' of test is .* s; wanted 0 <= start <= end$"):
        check_task(mine, "mine")


@pytest.mark.parametrize("target", [2, -1, 1.5, True, (0, 2), (0.5,), math.nan])
def test_a_class_of_a_task_of_ones_own_is_a_whole_number_of_them(target: Any) -> None:
    good = Example("1", Path("a.mp4"), 0)
    task = Task([good, replace(good, id="2", target=target)], accuracy, classes=("a", "b"))
    with pytest.raises(UserError, match="is not an index of its 2 classes"):
        check_task(task, "mine")


def test_a_right_answer_is_one_of_the_choices() -> None:
    example = Example("1", Path("a.mp4"), 2, choices=("a", "b"))
    with pytest.raises(UserError, match="^task mine: target 2 of example '1' is not an index of its 2 choices$"):
        check_task(Task([example], accuracy), "mine")
