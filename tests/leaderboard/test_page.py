"""The page: what is in it, and that a browser shows it, sorts it, filters it and opens its runs."""

import base64
import importlib
import io
import json
import random
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evalkit.cli import main
from evalkit.metrics.average_precision import charades_map
from evalkit.metrics.classification import accuracy, top1_top5
from evalkit.metrics.text.exact_match import exact_match
from evalkit.mini import film, world
from evalkit.results import run_folder
from evalkit.results.rows import Row
from evalkit.results.scores import scores
from evalkit.video.decode import open_video
from tests.browser import MISSING, Browser, available, browser
from tests.given import make
from tests.records import result_of, rows_of

pytestmark = pytest.mark.slow

_page = importlib.import_module("evalkit.leaderboard.page")
_runs = importlib.import_module("evalkit.leaderboard.runs")

HOSTILE = '</script><script>window.hostile = 1</script><img src=x onerror="window.hostile = 1">'
Edit = Callable[[dict[str, Any]], object]


def put(
    results: Path,
    rows: Sequence[Row],
    task: str = "egoschema@mini",
    encoder: str = "demo",
    edit: Edit = lambda record: None,
    score: Callable[..., Any] = accuracy,
    config: str = "",
) -> Path:
    """Writes a run; its weights are those of its encoder's name."""
    record = result_of(rows, score)
    record["task"] |= {"name": task, "published": {}}
    record["encoder"] |= {"name": encoder, "ckpt": encoder, "sha256": encoder.encode().hex()[:64].ljust(64, "0")}
    edit(record)
    folder = results / re.sub(r"\W", "_", f"{encoder} {task}") / "run"
    return run_folder.write(folder, record, rows, config or f"task: {task.partition('@')[0]}\n")


def write(results: Path, videos: Path | None = None) -> str:
    """The page of all runs in a folder, each of which validates."""
    runs, refused = _runs.collect(results)
    assert not refused
    return str(_page.render_page(runs, refused, (), videos))


def script(html: str, name: str) -> str:
    """What a script element holds."""
    (text,) = re.findall(rf'<script [^>]*id="{name}"[^>]*>(.*?)</script>', html, re.DOTALL)
    return str(text)


def drawn(html: str) -> Any:
    """What is drawn at once."""
    return json.loads(script(html, "data"))


def unpacked(html: str, name: str) -> Any:
    """What is drawn when a run is opened."""
    return json.loads(zlib.decompress(base64.b64decode(script(html, name))))


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_a_cell_holds_the_records_headline_its_interval_chance_and_what_failed(tmp_path: Path) -> None:
    folder = put(tmp_path, rows_of(8, 4, failed=2))
    record = run_folder.load(folder)
    (cell,) = drawn(write(tmp_path))["cells"]
    for key in ("value", "ci95", "bounds", "n", "n_clusters"):
        assert cell[key] == record["scores"][0][key]
    assert (cell["failed"], cell["chance"], cell["encoder"]) == (2, 20.0, "demo")
    assert cell["name"] == folder.relative_to(tmp_path).as_posix()


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
    assert cell["name"].startswith("0/")


def test_every_sample_is_there_with_its_outcome(tmp_path: Path) -> None:
    rows = rows_of(3, 2, failed=1, unlabeled=1)
    put(tmp_path, rows)
    html = write(tmp_path)
    (cell,) = drawn(html)["cells"]
    samples, run = unpacked(html, cell["samples"]), unpacked(html, "run-0")
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
    assert _page._short(value) == shown


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

    def same(record: dict[str, Any]) -> None:
        record["data"]["fingerprint"] = run_folder.fingerprint(task.test)

    put(tmp_path / "same", rows, "nextqa@mini", edit=same)
    put(tmp_path / "other", rows, "nextqa@mini")
    for results, known in ((tmp_path / "same", True), (tmp_path / "other", False)):
        html = write(results)
        samples = unpacked(html, drawn(html)["cells"][0]["samples"])
        assert ("texts" in samples, "options" in samples) == (known, known)
    samples = unpacked(html := write(tmp_path / "same"), drawn(html)["cells"][0]["samples"])
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
    samples = unpacked(html, drawn(html)["cells"][0]["samples"])
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


# --- how it is put together -------------------------------------------------------------------------------------------


def test_the_page_holds_its_style_sheet_and_its_scripts() -> None:
    folder, html = Path(__file__).parents[2] / "leaderboard", _page.template()
    for name in ("page.css", *_page.SCRIPTS):
        assert (folder / name).read_text() in html
    assert set(_page.SCRIPTS) == {file.name for file in folder.glob("*.js")}
    assert html.count("BOARD") == html.count("PACKED") == 1 and "PAGE_" not in html


@pytest.mark.skipif(not shutil.which("node"), reason="needs node (Debian: apt-get install nodejs)")
def test_the_scripts_are_valid_javascript(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "leaderboard"
    whole = tmp_path / "page.js"
    whole.write_text("".join((folder / name).read_text() for name in _page.SCRIPTS))
    for file in (whole, *(folder / name for name in _page.SCRIPTS)):
        ended = subprocess.run(["node", "--check", str(file)], capture_output=True, text=True)
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


# --- in a browser -----------------------------------------------------------------------------------------------------

seen = pytest.mark.skipif(not available(), reason=MISSING)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of four encoders on two miniatures, and one with a hostile name on a benchmark."""
    folder = tmp_path_factory.mktemp("page")

    def edit(parameters: int, **more: Any) -> Edit:
        def change(record: dict[str, Any]) -> None:
            record["encoder"]["parameters"] = parameters
            record["selection"] = {
                "grid": [{"lr": 10.0**-power, "head": head} for power in range(1, 5) for head in ("linear", "mlap")],
                "chosen": {"point": 3, "epoch": 2, "epochs": 3},
                "val_score": 60.0,
                "val_scores": [10.0, 60.0, 50.0],
                "grid_val_scores": [20.0, 30.0, 40.0, 60.0, None, 40.0, 30.0, 10.0],
            }
            record["task"] |= more

        return change

    results = folder / "results"

    def answers(right: int, failing: bool = False) -> list[Row]:
        """Of 400 samples, two of each video, so many right; every fiftieth failed."""
        return [
            Row(f"q{i}", f"v{i // 2}.mp4", ("cause", "time")[i % 2], 1, None, "cut off")
            if failing and i % 50 == 7
            else Row(f"q{i}", f"v{i // 2}.mp4", ("cause", "time")[i % 2], 1, int(i < right))
            for i in range(400)
        ]

    put(results, answers(260, failing=True), encoder="large", edit=edit(900_000_000))
    put(results, answers(240), encoder="middle", edit=edit(80_000_000))
    put(results, answers(200), encoder="waste", edit=edit(300_000_000))
    put(results, answers(120), encoder="small", edit=edit(2_000_000))
    put(results, rows_of(9, 3), "ssv2@mini", "small", edit(2_000_000))
    put(results, rows_of(5, 5), "ssv2@mini", "large", edit(900_000_000))

    def other_seed(record: dict[str, Any]) -> None:
        edit(900_000_000)(record)
        record["provenance"] |= {"seed": 1, "finished": "2026-02-01T00:00:58+00:00"}
        record["scores"] = scores(accuracy, rows_of(4, 6), 1)

    put(results, rows_of(4, 6), "ssv2@mini", "large", other_seed)
    rows = [Row(f"{HOSTILE} {i}", "v", target=[HOSTILE], prediction=HOSTILE) for i in range(3)]
    put(results, rows, "hostile", HOSTILE, edit(1, split=HOSTILE), exact_match, f"# {HOSTILE}\n")
    file = folder / "board.html"
    file.write_text(write(results))
    return file


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def shown(window: Browser, board: Path) -> Iterator[Browser]:
    """The page, with the miniatures shown; nothing in a test may be an error, or leave the file."""
    window.size(1280)
    window.open(board)
    window.run(put_value("section", "1", "change"))
    yield window
    assert window.errors() == []
    assert window.run("return performance.getEntriesByType('resource').map((one) => one.name)") == []
    assert window.run("return window.hostile ?? null") is None


def put_value(name: str, value: str, event: str) -> str:
    """Script: writes into a field, as a reader would."""
    return f"$({name!r}).value = {value!r}; $({name!r}).dispatchEvent(new Event({event!r}));"


def encoders(window: Browser) -> list[str]:
    return list(window.run("return [...$('board').tBodies[0].rows].map((row) => row.cells[0].firstChild.textContent)"))


@seen
def test_the_table_sorts_by_any_task_and_by_name(shown: Browser) -> None:
    assert encoders(shown) == ["large", "middle", "waste", "small"]  # by its first task, the best first
    for by, order in (
        (0, ["small", "waste", "middle", "large"]),
        (1, ["small", "large", "middle", "waste"]),  # those that have no score come last
        (-1, ["large", "middle", "small", "waste"]),
    ):
        shown.run(f"$('board').tHead.querySelectorAll('button')[{by + 1}].click()")
        assert encoders(shown) == order
    assert shown.run("return $('board').querySelector('[aria-sort]').textContent") == "encoder"


@seen
def test_the_table_filters_encoders_and_tasks(shown: Browser) -> None:
    shown.run(put_value("encoder", "MALL", "input"))
    assert encoders(shown) == ["small"]
    shown.run(put_value("encoder", "", "input") + put_value("task", "ssv2", "input"))
    assert encoders(shown) == ["small", "large"]
    assert shown.run("return $('board').tHead.rows[0].cells.length") == 2
    assert shown.run("return $('count').textContent") == "2 encoders, 1 tasks"


@seen
def test_miniatures_are_apart_from_benchmarks(shown: Browser) -> None:
    shown.run(put_value("section", "0", "change"))
    assert shown.run("return [...$('board').tHead.querySelectorAll('b')].map((b) => b.textContent)") == [
        "encoder",
        "hostile",
    ]


@seen
def test_a_cell_says_all_in_words_and_marks_what_is_partial(shown: Browser) -> None:
    labels = "return [...$('board').querySelectorAll('.score')].map((one) => one.getAttribute('aria-label'))"
    told, _, other, *_ = shown.run(labels)
    name, score, rest = told.partition(", 63.")
    assert name == "large, egoschema@mini, test, frozen, accuracy" and score
    assert re.fullmatch(r"5, \d\d\.\d – \d\d\.\d, rank 1 – 2, partial, at most 65\.5", rest)
    assert re.search(r", 60\.0, \d\d\.\d – \d\d\.\d, rank 1 – 2$", other)
    assert shown.run("return $('board').querySelectorAll('.partial').length") == 1
    (seeds,) = [label for label in shown.run(labels) if label.startswith("large, ssv2@mini")]
    assert re.search(r", 45\.0, \d+\.\d – \d\d\.\d, 2 seeds, sd 7\.1$", seeds)
    shown.run("await show(board.cells.findIndex((cell) => cell.seeds === 2))")
    assert "newest of 2 seeds, whose mean the board shows" in shown.run("return $('run').textContent")


@seen
def test_every_control_has_a_name(shown: Browser) -> None:
    shown.run("await show(0)")
    nameless = """
    const named = (one) => one.labels?.length || one.getAttribute("aria-label") || one.getAttribute("aria-labelledby");
    return [...document.querySelectorAll("button, select, input, [role=button], dialog")]
      .filter((one) => !named(one) && !(one.tagName === "BUTTON" && one.textContent.trim())).map((one) => one.outerHTML)
    """
    assert shown.run(nameless) == []


@seen
def test_arrow_keys_move_enter_opens_and_escape_comes_back(shown: Browser) -> None:
    here = "return document.activeElement.getAttribute('aria-label')?.split(', ').slice(0, 2)"
    shown.run("$('board').querySelector('.score').focus()")
    for key, place in (
        ("Down", ["middle", "egoschema@mini"]),
        ("Right", ["middle", "egoschema@mini"]),  # it has no other
        ("Down", ["waste", "egoschema@mini"]),
        ("Down", ["small", "egoschema@mini"]),
        ("Right", ["small", "ssv2@mini"]),
        ("Up", ["large", "ssv2@mini"]),
    ):
        shown.press(key)
        assert shown.run(here) == place
    assert shown.run("return $('board').querySelectorAll('.score[tabindex=\"0\"]').length") == 1
    shown.press("Enter")
    shown.run("while (!$('run').open) await new Promise((done) => setTimeout(done, 10))")
    assert shown.run("return $('run-name').textContent") == "large on ssv2@mini"
    shown.press("Escape")
    assert shown.run("return $('run').open") is False
    assert shown.run(here) == ["large", "ssv2@mini"]


@seen
def test_samples_filter_by_outcome_kind_and_words(shown: Browser) -> None:
    name = "return board.cells.findIndex((cell) => cell.encoder === 'large' && cell.n === 400)"
    shown.run(f"await show({shown.run(name)})")
    count = "return $('sample-count').textContent"
    assert shown.run(count) == "400 of 400"
    assert shown.run("return document.querySelectorAll('.samples [data-outcome]').length") < 400  # the rest when asked
    options = shown.run("return [...$('sample-outcome').options].map((one) => one.textContent)")
    assert options == ["all (400)", "right (254)", "wrong (138)", "failed (8)"]
    shown.run(put_value("sample-outcome", "failed", "change"))
    assert shown.run(count) == "8 of 400"
    told = shown.run("return [...document.querySelectorAll('.samples [data-outcome]')].map((one) => one.innerText)")
    assert len(told) == 8 and all("failed" in one and "cut off" in one for one in told)
    shown.run(put_value("sample-kind", "cause", "change"))
    assert shown.run(count) == "0 of 400"  # each was of the other kind
    shown.run(put_value("sample-outcome", "", "change") + put_value("sample-text", "Q39 v19", "input"))
    assert shown.run(count) == "5 of 400"  # q390, q392, ... of v195 to v199


@seen
def test_all_samples_can_be_reached(shown: Browser) -> None:
    shown.run("await show(board.cells.findIndex((cell) => cell.n === 400))")
    shown.run("for (let more; (more = $('run').querySelector('section > .plain')) && !more.hidden; ) more.click()")
    ids = "return [...document.querySelectorAll('.samples [data-outcome]')].map((one) => one.children[1].innerText)"
    assert [text.split()[0] for text in shown.run(ids)] == [f"q{i}" for i in range(400)]


@seen
def test_the_front_holds_what_no_run_beats_in_both(shown: Browser) -> None:
    names = "return [...$('pareto').querySelectorAll('.name')].map((one) => one.textContent)"
    assert shown.run(names) == ["small", "middle", "large"]
    assert shown.run("return $('pareto').querySelectorAll('circle').length") == 4
    shown.run(put_value("cost", "flops", "change"))
    assert shown.run("return $('pareto').textContent") == "No run says what it costs."


@seen
def test_a_sweep_is_drawn_over_each_of_its_settings(shown: Browser) -> None:
    shown.run("await show(board.cells.findIndex((cell) => cell.encoder === 'small'))")
    settings = "return [...$('run').querySelectorAll('.facts option')].map((one) => one.value)"
    assert shown.run(settings) == ["lr", "head"]
    titles = "[...plot.querySelectorAll('title')].map((title) => title.textContent)"
    grid, epochs = shown.run(f"return [...$('run').querySelectorAll('.facts .plot')].map((plot) => {titles})")
    assert len(grid) == 7 and "lr 0.01, head mlap: 60.0 on val, chosen" in grid  # one could not be fitted
    assert epochs == ["epoch 1: 10.0", "epoch 2: 60.0", "epoch 3: 50.0"]


@seen
def test_names_with_html_in_them_stay_text(shown: Browser) -> None:
    shown.run(put_value("section", "0", "change"))
    assert encoders(shown) == [HOSTILE]
    shown.run("await show(board.cells.findIndex((cell) => cell.n === 3))")
    assert shown.run("return $('run-name').textContent") == f"{HOSTILE} on hostile"
    assert shown.run("return document.querySelector('.samples [data-name=reference]').textContent") == HOSTILE
    assert shown.run("return document.querySelectorAll('img').length") == 0


@seen
def test_a_run_without_a_score_or_an_interval_is_shown(window: Browser, tmp_path: Path) -> None:
    put(tmp_path / "results", rows_of(0, 0, unlabeled=4), "hidden")
    put(tmp_path / "results", rows_of(2, 1), "tiny")  # of one video
    file = tmp_path / "board.html"
    file.write_text(write(tmp_path / "results"))
    window.open(file)
    labels = "return [...$('board').querySelectorAll('.score')].map((one) => one.innerText.split('\\n')[0])"
    assert window.run(labels) == ["not scored", "66.7"]
    for run in (0, 1):
        window.run(f"await show({run})")
        assert window.run("return [...$('run').querySelectorAll('.facts')].every((one) => one.innerText)")
        assert (
            window.run("return $('run').innerText.includes('NaN') || $('run').innerText.includes('undefined')") is False
        )
    window.run(put_value("column", "0", "change") + put_value("cost", "parameters", "change"))
    assert window.errors() == []


@seen
def test_a_page_of_refused_runs_alone_names_them(window: Browser, tmp_path: Path) -> None:
    file = tmp_path / "board.html"
    file.write_text(str(_page.render_page([], [f"demo: {HOSTILE}"])))
    window.open(file)
    assert window.run("return $('refused').querySelector('li').textContent") == f"demo: {HOSTILE}"
    assert window.errors() == []


@seen
def test_a_link_opens_its_run(shown: Browser, board: Path) -> None:
    shown.run("await show(1)")
    address, name = shown.run("return [location.href, $('run-name').textContent]")
    assert address.startswith(f"{board.as_uri()}#")
    shown.run("$('run').close()")
    shown.run(f"location.href = {address!r}; location.reload()")
    shown.run("while (!$('run').open) await new Promise((done) => setTimeout(done, 10))")
    assert shown.run("return $('run-name').textContent") == name


@seen
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_needs_scrolling_sideways(shown: Browser, width: int) -> None:
    shown.size(width)
    for section in "01":
        shown.run(put_value("section", section, "change"))
        assert shown.run("return document.documentElement.scrollWidth") == width
    for run in range(7):
        shown.run(f"await show({run}); for (const one of $('run').querySelectorAll('details')) one.open = true")
        assert shown.run("return $('run').scrollWidth - $('run').clientWidth") == 0


@seen
@pytest.mark.parametrize("dark", [False, True])
def test_text_and_signs_stand_out_from_the_paper(shown: Browser, dark: bool) -> None:
    shown.size(1280, dark=dark)
    style = "const style = getComputedStyle(document.documentElement);"
    names = ("paper", "ink", "soft", "blue", "red")
    paper, *others = (shown.run(f"{style} return style.getPropertyValue('--{name}').trim()") for name in names)
    wanted = (7, 4.5, 3, 3)  # of large text, text, and signs: https://www.w3.org/TR/WCAG21/#contrast-minimum
    for color, least in zip(others, wanted, strict=True):
        lighter, darker = sorted((light(color), light(paper)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= least


def light(color: str) -> float:
    """Relative luminance of #rgb or #rrggbb, as WCAG defines it."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
