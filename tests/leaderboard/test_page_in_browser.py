"""A browser shows the page, sorts it, filters it and opens its runs."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.metrics.classification import accuracy
from evalkit.metrics.text.exact_match import exact_match
from evalkit.results.rows import Row
from evalkit.results.scores import scores
from tests.browser import MISSING, Browser, available
from tests.leaderboard.boards import Edit
from tests.leaderboard.pages import put, write
from tests.records import rows_of

pytestmark = pytest.mark.slow

_page = importlib.import_module("evalkit.leaderboard.page.render")

HOSTILE = '</script><script>window.hostile = 1</script><img src=x onerror="window.hostile = 1">'


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
    assert shown.run("return $('count').textContent") == "2 encoders, 1 task"


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
    names = "return [...$('pareto').querySelectorAll('.name')].map((one) => [one.textContent, one.matches('.behind')])"
    assert shown.run(names) == [["small", False], ["middle", False], ["large", False], ["waste", True]]
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
def test_test_videos_that_were_trained_on_are_named(window: Browser, tmp_path: Path) -> None:
    def shared(record: dict[str, Any]) -> None:
        record["data"]["shared_videos"] = {"videos": 3, "first": [{"train": "a.mp4", "test": "copies/b.mp4"}]}

    put(tmp_path / "results", rows_of(9, 3), edit=shared)
    (tmp_path / "board.html").write_text(write(tmp_path / "results"))
    window.open(tmp_path / "board.html")
    assert "3 test videos are in train, too" in window.run("return $('board').innerText")
    window.run("await show(0)")
    told = window.run("return $('run').innerText")
    assert "3 of the test's videos were trained or chosen on, too." in told
    assert "copies/b.mp4, in train as a.mp4" in told and window.errors() == []


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
