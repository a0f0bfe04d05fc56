"""Scores on data of the encoder's training are marked on board, csv and page."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.leaderboard.boards import Edit, cells, lines, page, put, right

render = importlib.import_module("evalkit.leaderboard.page.render")
runs = importlib.import_module("evalkit.leaderboard.runs")


def trained_on(**data_sets: str) -> Edit:
    def edit(record: dict[str, Any]) -> None:
        record["encoder"]["trained_on"] = data_sets

    return edit


def test_a_score_on_data_of_the_encoders_training_has_a_sign_and_a_legend(tmp_path: Path) -> None:
    put(tmp_path, right(range(3), 4), "kinetics600", "mine", edit=trained_on(kinetics400="labels", webvid="captions"))
    put(tmp_path, right(range(2), 4), "kinetics600", "yours", edit=trained_on(ssv2="labels"))
    board = page(tmp_path)
    assert "**75.0**†" in lines(board, "| mine |")[0] and "†" not in lines(board, "| yours |")[0]
    legend = "* † mine was trained on kinetics400 (labels), which shares videos with kinetics600"
    assert lines(board, "* †") == [legend]
    assert [cell["trained_on"] for cell in cells(tmp_path)] == ["kinetics400 (labels)", ""]
    html = render.render_page(*runs.collect(tmp_path))
    shown = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    assert shown and [cell["seen"] for cell in json.loads(shown[1])["cells"]] == ["kinetics400 (labels)", ""]
    assert '<details id="seen">' in html and "†: on data of the encoder's training" in html


@pytest.mark.parametrize(
    ("tasks", "seen"),
    [
        (["msrvtt"], "msrvtt"),  # the videos of its questions
        (["msrvtt_qa"], ""),  # which is no zero-shot, and stands apart by its adaptation
        (["msrvtt@mini", "nextqa"], ""),
    ],
)
def test_a_score_on_videos_that_a_loaded_adapter_was_trained_on_is_marked(
    tmp_path: Path, tasks: list[str], seen: str
) -> None:
    put(
        tmp_path,
        right(range(3), 4),
        "msrvtt_qa",
        "mine",
        edit=lambda record: record["adapter"].update(trained_on=tasks),
    )
    assert [cell["trained_on"] for cell in cells(tmp_path)] == [seen]


@pytest.mark.parametrize(
    ("ckpt", "task", "seen"),
    [
        ("xclip_base", "kinetics400", "kinetics400 (labels)"),  # of a record that does not say so
        ("microsoft/xclip-base-patch32", "kinetics400", "kinetics400 (labels)"),
        ("random:xclip_base", "kinetics400", ""),
        ("xclip_base", "ssv2", ""),
        ("xclip_base", "kinetics400@mini", ""),
        ("my/own", "kinetics400", ""),
    ],
)
def test_a_record_that_does_not_say_is_known_by_its_checkpoint(tmp_path: Path, ckpt: str, task: str, seen: str) -> None:
    put(tmp_path, right(range(3), 4), task, "mine", edit=lambda record: record["encoder"].update(ckpt=ckpt))
    assert [cell["trained_on"] for cell in cells(tmp_path)] == [seen]


def test_test_videos_that_are_in_train_are_said_on_board_csv_and_page(tmp_path: Path) -> None:
    def shared(record: dict[str, Any]) -> None:
        record["data"]["shared_videos"] = {"videos": 2, "first": [{"train": "a.mp4", "test": "b.mp4"}]}

    put(tmp_path, right(range(3), 4), "ssv2", "mine", edit=shared)
    put(tmp_path, right(range(2), 4), "ssv2", "yours")
    board = page(tmp_path)
    assert (
        "*2 test videos are in train, too*" in lines(board, "| mine |")[0]
        and "train" not in lines(board, "| yours |")[0]
    )
    assert [cell["in_train"] for cell in cells(tmp_path)] == ["2", "0"]
    html = render.render_page(*runs.collect(tmp_path))
    shown = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    assert shown and [cell["shared"] for cell in json.loads(shown[1])["cells"]] == [
        "2 test videos are in train, too",
        "",
    ]
