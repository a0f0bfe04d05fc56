"""Checks of own_task: pytest test_own_task.py."""

import csv
from pathlib import Path

import pytest

from evalkit.api import Task
from evalkit.errors import UserError
from evalkit.plugins import factory

make = factory("task", "./own_task.py")


@pytest.fixture(scope="module")
def task() -> Task:
    made: Task = make(mini=True)
    return made


def test_every_example_has_an_id_of_its_own_and_a_class(task: Task) -> None:
    assert task.test and task.train
    for split in (task.train, task.val, task.test):
        assert len({example.id for example in split}) == len(split)
        assert all(0 <= example.target < len(task.classes) for example in split)


def test_no_video_is_in_train_and_in_test(task: Task) -> None:
    assert not {example.video for example in task.train} & {example.video for example in task.test}


def test_right_answers_score_100_and_failed_ones_0(task: Task) -> None:
    targets = [example.target for example in task.test]
    everything = range(len(task.classes))
    right = [[target, *(k for k in everything if k != target)] for target in targets]  # the likeliest first
    assert list(task.score(right, targets).values())[0] == [1] * len(targets)
    assert list(task.score([None] * len(targets), targets).values())[0] == [0] * len(targets)


def test_the_csv_becomes_the_splits(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([("path", "label", "split"), ("a.mp4", "cat", "train"), ("b.mp4", "dog", "test")])
    made = make(root=file)
    assert made.classes == ("cat", "dog") and [example.target for example in made.test] == [1]
    assert made.test[0].video == tmp_path / "b.mp4"
    file.write_text("path,label,split\na.mp4,cat,tset\n")
    with pytest.raises(UserError, match="line 2"):
        make(root=file)
