"""The page of runs whose predictions are segments in time, or boxes in key frames."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.metrics import activitynet_map, ava_map
from evalkit.metrics.text.exact_match import exact_match
from evalkit.results.rows import Row
from tests.browser import MISSING, Browser, available, browser
from tests.given import make
from tests.leaderboard import scripts
from tests.leaderboard.pages import on_data_of, put, samples_of, unpacked, write

pytestmark = pytest.mark.slow

_regions = importlib.import_module("evalkit.leaderboard.page.regions")
HOSTILE = '</script><img src=x onerror="window.hostile = 1">'

SEGMENTS = [
    Row("all", "a.mp4", target=[[1.0, 3.004, "jump"], [5.0, 9.0, HOSTILE]],
        prediction=[[5.0, 9.1, HOSTILE, 0.4], [1.0, 3.0, "jump", 0.81234], [0.0, 9.0, "run", 0.001]]),
    Row("half", "b.mp4", target=[[1.0, 3.0, "jump"], [5.0, 9.0, "jump"]],
        prediction=[[1.0, 3.0, "jump", 0.5], [1.0, 2.9, "jump", 0.4]]),
    Row("none", "c.mp4", target=[[1.0, 3.0, "jump"]], prediction=[[1.0, 3.0, "run", 0.5], [1.0, 3.0, "jump", 0.1]]),
    Row("empty", "d.mp4", target=[[2.0, 2.0, "jump"]], prediction=[]),
    Row("failed", "e.mp4", target=[[1.0, 3.0, "run"]], failure="cut off"),
    Row("nothing", "f.mp4", target=[], prediction=[[1.0, 3.0, "run", 0.5]]),
]  # fmt: skip
BOXES = [
    Row("all", "a", target=[[0.1, 0.2, 0.5, 0.6, "sit"], [0.1, 0.2, 0.5, 0.6, "talk"]],
        prediction=[[0.1, 0.2, 0.5, 0.65, "talk", 0.5], [0.1, 0.2, 0.5, 0.65, "sit", 0.25]]),
    Row("none", "b", target=[[0.1, 0.2, 0.5, 0.6, "sit"]], prediction=[[0.5, 0.2, 0.9, 0.6, "sit", 0.5]]),
]  # fmt: skip


# --- what is in it ----------------------------------------------------------------------------------------------------


def page_of(results: Path, rows: list[Row], score: Any) -> tuple[Any, Any]:
    """The samples and the run."""
    put(results, rows, score=score)
    html = write(results)
    return samples_of(html), unpacked(html, "run-0")


def test_segments_are_there_with_the_likeliest_first(tmp_path: Path) -> None:
    samples, run = page_of(tmp_path, SEGMENTS, activitynet_map)
    assert samples["regions"] == "segments"
    assert samples["targets"][0] == {"regions": [[1.0, 3.0, "jump"], [5.0, 9.0, HOSTILE]], "count": 2}
    best = [[1.0, 3.0, "jump", 0.812], [5.0, 9.1, HOSTILE, 0.4], [0.0, 9.0, "run", 0.001]]
    assert run["predictions"][0] == {"regions": best, "count": 3}
    assert run["predictions"][4] == "" and run["failures"] == {"4": "cut off"}


def test_boxes_are_there_as_shares(tmp_path: Path) -> None:
    samples, run = page_of(tmp_path, BOXES, ava_map)
    assert samples["regions"] == "boxes" and samples["targets"][1]["regions"] == [[0.1, 0.2, 0.5, 0.6, "sit"]]
    assert run["predictions"][0]["regions"][0] == [0.1, 0.2, 0.5, 0.65, "talk", 0.5]


def test_a_video_of_many_segments_and_long_labels_takes_little_of_the_page() -> None:
    predicted = [[float(i), i + 1.0, "x" * 1000, i / 1000] for i in range(500)]
    short = _regions.shorten(predicted, "segments", scored=True)
    assert short["count"] == 500 and [region[0] for region in short["regions"]] == [499.0 - i for i in range(20)]
    assert len(json.dumps(short)) < 2500
    annotated = _regions.shorten([region[:3] for region in predicted], "segments", scored=False)
    assert annotated["count"] == 500 and [region[0] for region in annotated["regions"]] == [*range(100)]


def test_lists_of_another_score_stay_text(tmp_path: Path) -> None:
    samples, run = page_of(tmp_path, [Row("q", "v", target=["jump"], prediction="jump")], exact_match)
    assert "regions" not in samples and run["predictions"] == ["jump"]


def test_the_length_of_a_video_comes_from_the_task(tmp_path: Path) -> None:
    task = make("activitynet_tal", mini=True)
    rows = [Row(one.id, one.video.name, one.kind, [[*one.target[0]]], []) for one in task.test]

    put(tmp_path, rows, "activitynet_tal@mini", edit=on_data_of(task), score=activitynet_map)
    html = write(tmp_path)
    seconds = samples_of(html)["seconds"]
    assert seconds == pytest.approx([one.span[1] for one in task.test if one.span])


# --- its scripts, without a browser -----------------------------------------------------------------------------------


def test_what_is_reached_and_drawn_and_said(tmp_path: Path) -> None:
    def shares(rows: list[Row], parts: int) -> str:
        pairs = [[row.target, sorted(row.prediction or [], key=lambda region: -region[-1])] for row in rows]
        return f"{json.dumps(pairs)}.map(([truth, found]) => reached(truth, found, {parts}))"

    (one, *_), (box, *_) = SEGMENTS, BOXES
    all_of_it = f"""[{shares(SEGMENTS, 2)}, {shares(BOXES, 4)},
      overlap([2, 2], [2, 2], 2), overlap([2, 2], [3, 3], 2), overlap([0, 0, 0.5, 1], [0.25, 0, 0.75, 1], 4),
      timeline({json.dumps(one.target)}, {json.dumps(one.prediction)}, String, 8),
      frame({json.dumps(box.target)}, {json.dumps(box.prediction)}, String),
      frame({json.dumps(box.target)}, [], String, null, {{ jpeg: "abcd", aspect: 0.5 }})]"""
    found = scripts.evaluate(tmp_path, all_of_it, "regions.js")
    segments, boxes, same, other, half, line, picture, shown = found
    assert segments == [1, 0.5, 0, 0, 0, None] and boxes == [1, 0]
    assert (same, other) == (1, 0) and half == pytest.approx(1 / 3)
    (_, attributes, lanes) = line["el"]
    assert attributes["role"] == "img" and len(lanes) == 4  # three classes and the axis
    assert attributes["aria-label"] == (
        f"annotated: jump 1 – 3.004 s; {HOSTILE} 5 – 9 s. "
        f"predicted: {HOSTILE} 5 – 9.1 s, score 0.4; jump 1 – 3 s, score 0.81234; run 0 – 9 s, score 0.001."
    )
    (_, empty, _), (_, pictured, (image, drawn, *_)) = picture["el"][2][0]["el"], shown["el"][2][0]["el"]
    assert (empty["viewBox"], pictured["viewBox"]) == ("0 0 160 90", "0 0 160 320")
    assert image["el"][1] == {"href": "data:image/jpeg;base64,abcd", "width": 160, "height": 320}
    rect = {"x": 16, "y": 64, "width": 64, "height": 128}
    assert drawn["el"][2][0]["el"] == ["rect", pytest.approx(rect), []]
    label = empty["aria-label"]
    assert label == (
        "annotated: 1: sit, talk, at left 10 %, top 20 %, right 50 %, bottom 60 %. "
        "predicted: a: talk 0.5, sit 0.25, at left 10 %, top 20 %, right 50 %, bottom 65 %."
    )


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("regions")
    put(folder / "results", SEGMENTS, "tal@mini", score=activitynet_map)
    put(folder / "results", BOXES, "ava@mini", score=ava_map)
    file = folder / "board.html"
    file.write_text(write(folder / "results"))
    with browser(tmp_path_factory.mktemp("profile")) as window:
        window.open(file)
        yield window
        assert window.errors() == []
        assert window.run("return window.hostile ?? null") is None


def opened(task: str) -> str:
    """Script: opens the run of a task."""
    return f"await show(board.cells.findIndex((cell) => board.columns[cell.column].task === {task!r}));"


@pytest.mark.skipif(not available(), reason=MISSING)
def test_segments_are_bars_in_a_lane_of_each_class(shown: Browser) -> None:
    shown.run(opened("tal@mini"))
    options = shown.run("return [...$('sample-outcome').options].map((one) => one.textContent)")
    assert options == ["all (6)", "right (1)", "wrong (2)", "in part (1)", "failed (1)", "not told (1)"]
    lanes = "[...document.querySelector('[data-outcome=right]').querySelectorAll('.lane > span')]"
    assert shown.run(f"return {lanes}.map((one) => one.textContent)") == ["jump", HOSTILE, "run", ""]
    bars = "[...document.querySelector('.lane svg').querySelectorAll('rect')].map((one) => one.getAttribute('width'))"
    assert shown.run(f"return {bars}") == [f"{100 * 2 / 9.1:.3f}%"] * 2
    assert shown.run("return document.querySelectorAll('img').length") == 0
    ticks = "return [...document.querySelector('.lane .axis').children].map((one) => one.textContent)"
    assert shown.run(ticks) == ["0 s", "2 s", "4 s", "6 s", "8 s"]


@pytest.mark.skipif(not available(), reason=MISSING)
def test_boxes_are_drawn_in_a_frame(shown: Browser) -> None:
    shown.run(opened("ava@mini"))
    box = "const one = document.querySelector('.boxes g.annotated rect'); return ['x', 'y', 'width', 'height'].map"
    assert shown.run(f"{box}((name) => Number(one.getAttribute(name)))") == pytest.approx([16, 18, 64, 36])
    assert shown.run("return document.querySelectorAll('.boxes')[0].querySelectorAll('rect').length") == 2
    assert "a: talk 0.5, sit 0.25" in shown.run("return document.querySelector('.boxes').innerText")


@pytest.mark.skipif(not available(), reason=MISSING)
@pytest.mark.parametrize("task", ["tal@mini", "ava@mini"])
def test_drawings_need_no_scrolling_sideways(shown: Browser, task: str) -> None:
    shown.size(360)
    shown.run(opened(task))
    assert shown.run("return $('run').scrollWidth - $('run').clientWidth") == 0
