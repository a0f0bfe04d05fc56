"""A browser shows classes, options, neighbors and captions of a run, and another run beside it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.metrics.average_precision import charades_map
from evalkit.metrics.classification import accuracy, top1_top5
from evalkit.metrics.retrieval import retrieval
from evalkit.metrics.text.captions import captions
from evalkit.mini import film, language
from evalkit.results.rows import Row
from evalkit.results.scores import scores
from tests.browser import MISSING, Browser, available
from tests.given import make
from tests.leaderboard.boards import Edit
from tests.leaderboard.pages import on_data_of, put, write
from tests.leaderboard.test_page_views import queries
from tests.records import rows_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not available(), reason=MISSING)]

TASKS = 36
CLASSES = 60


def answers(shift: int) -> list[Row]:
    """Of 60 classes ten samples each: nine right, but of every `shift`th class all taken for the next."""
    return [
        Row(f"s{i:03d}", f"v{i}", "", i % CLASSES, [(i % CLASSES + (i % shift == 0)) % CLASSES, 0, 1, 2, 3])
        if i % 47
        else Row(f"s{i:03d}", f"v{i}", "", i % CLASSES, failure="cut off")
        for i in range(10 * CLASSES)
    ]


def seed(number: int) -> Edit:
    def edit(record: dict[str, Any]) -> None:
        record["provenance"] |= {"seed": number, "finished": f"2026-02-01T00:00:5{number}+00:00"}
        record["scores"] = scores(accuracy, rows_of(4 + number, 6 - number), number)

    return edit


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one encoder on many miniatures, another on one of them, and one on three seeds."""
    folder = tmp_path_factory.mktemp("views")
    results, videos = folder / "results", folder / "videos"
    put(results, answers(6), "ssv2@mini", "one", score=top1_top5)
    put(results, answers(5), "ssv2@mini", "other", score=top1_top5)
    task = make("nextqa", mini=True)
    scored = {"log_likelihood": [-1.0, -2.0, -3.0, None, -4.0], "tokens": [1] * 5}
    rows = [Row(e.id, e.video.name, e.kind, e.target, 0, detail=scored) for e in task.test]

    put(results, rows, "nextqa@mini", "one", edit=on_data_of(task))
    put(results, queries(), "retrieval@mini", "one", score=retrieval)
    videos.mkdir()
    for i in range(6):  # of the seventh there is none
        film.write(language.clips(f"views {i}", 1)[0], videos / f"clip{i}.mp4", 4)
    texts = ["a red ball rolls up to the left", "a blue ring grows", "a green cross turns"]
    told = [Row(f"q{i}", f"v{i}", "", [text, "a dog"], texts[0]) for i, text in enumerate(texts)]
    put(results, told, "captions@mini", "one", score=captions)
    for encoder, turn in (("one", 1), ("other", -1)):
        labels = [Row(f"l{i}", f"v{i}", "", [i % 3], [0.1, 0.2, 0.3 + turn * (i % 3 == 2) / 9]) for i in range(9)]
        put(results, labels, "charades@mini", encoder, score=charades_map)
    for number in range(3):
        put(results / str(number), rows_of(4 + number, 6 - number), "seeds@mini", "one", seed(number))
    for number in range(TASKS - 6):
        put(results, rows_of(3, 1), f"task{number:02d}@mini", "one")
    file = folder / "board.html"
    file.write_text(write(results, videos))
    return file


@pytest.fixture
def shown(window: Browser, board: Path) -> Iterator[Browser]:
    window.size(1280)
    window.open(board)
    yield window
    assert window.errors() == []


def opened(task: str, encoder: str = "one", which: int = 0) -> str:
    """Script: opens a run of a task."""
    fits = f"cell.encoder === '{encoder}' && board.columns[cell.column].task === '{task}'"
    return f"await show(board.cells.findIndex((cell) => {fits}), {which});"


def entered(name: str, value: str, event: str = "change") -> str:
    """Script: writes into a field, as a reader would."""
    return f"$('{name}').value = '{value}'; $('{name}').dispatchEvent(new Event('{event}'));"


def until(condition: str) -> str:
    """Script: waits for what is unpacked."""
    return f"while (!({condition})) await new Promise((done) => setTimeout(done, 10));"


def beside(other: str) -> str:
    """Script: chooses another run, or none."""
    known = "document.querySelector('.per-class thead').textContent.includes('beside')"
    return entered("beside", other) + until(known if other else f"!{known}")


def test_many_tasks_stand_in_rows(shown: Browser) -> None:
    assert shown.run("return [...$('board').tHead.rows[0].cells].map((cell) => cell.innerText.split('\\n')[0])") == [
        *("task", "one", "other", "chance", "examples (videos)")
    ]
    assert shown.run("return $('board').tBodies[0].rows.length") == TASKS
    assert shown.run("return $('board').scrollWidth") < 900
    assert shown.run("return document.documentElement.scrollWidth") == 1280
    assert shown.run("return $('board').getBoundingClientRect().right < $('forest').getBoundingClientRect().left")
    shown.run(
        "$('encoder').value = 'other'; $('encoder').dispatchEvent(new Event('input'))"
    )  # no other table meanwhile
    assert shown.run("return $('board').tHead.rows[0].cells.length") == 4
    shown.run(entered("encoder", "", "input"))
    row = "[...$('board').tBodies[0].rows].find((row) => row.innerText.includes('ssv2'))"
    shown.run(f"{row}.querySelector('th button').click()")
    assert shown.run("return document.activeElement.innerText").startswith("ssv2@mini")
    assert shown.run("return $('column').selectedOptions[0].textContent").startswith("ssv2@mini")
    shown.run("$('board').querySelector('.score').focus()")
    here = "return document.activeElement.getAttribute('aria-label').split(', ')[1]"
    first = shown.run(here)
    shown.press("j")
    assert shown.run(here) != first
    shown.press("k")
    assert shown.run(here) == first


def test_every_seed_is_opened_by_its_button_and_by_its_link(shown: Browser, board: Path) -> None:
    shown.run(opened("seeds@mini"))
    buttons = "return [...document.querySelectorAll('.seeds button')].map((one) => [one.innerText, one.ariaPressed])"
    assert shown.run(buttons) == [["seed 2: 60.0", "true"], ["seed 0: 40.0", "false"], ["seed 1: 50.0", "false"]]
    shown.run(
        "document.querySelectorAll('.seeds button')[1].click(); await new Promise((done) => setTimeout(done, 300))"
    )
    assert shown.run(buttons)[1] == ["seed 0: 40.0", "true"]
    outcome = "return [...$('sample-outcome').options].map((one) => one.textContent)"
    assert shown.run(outcome) == ["all (10)", "right (4)", "wrong (6)"]
    address = shown.run("return location.href")
    shown.run(f"$('run').close(); location.href = {address!r}; location.reload()")
    shown.run(until("$('run').open"))
    assert shown.run(outcome) == ["all (10)", "right (4)", "wrong (6)"]


def test_the_matrix_is_drawn_looked_at_closer_and_leads_to_its_samples(shown: Browser) -> None:
    shown.run(opened("ssv2@mini"))
    pixels = """
    const canvas = $('run').querySelector('canvas'), pen = canvas.getContext('2d'), scale = devicePixelRatio;
    const at = (x, y) => [...pen.getImageData(x * scale, y * scale, 1, 1).data.slice(0, 3)];
    const { clientWidth: width, clientHeight: height } = canvas;
    """
    diagonal, beside, wrong = shown.run(
        f"{pixels} const cell = (width - 6) / 61; return [[1, 1], [1, 9], [6, 7]].map(([row, column]) =>"
        " at(4 + (column + 0.5) * cell, 4 + (row + 0.5) * cell))"
    )
    assert diagonal[2] > diagonal[0] + 50 and wrong[0] > wrong[2] + 50 and max(beside) - min(beside) < 10
    told = "return $('matrix-told').textContent"
    shown.run("$('run').querySelector('canvas').focus()")
    for key in ("Down", "Down", "j", "Right"):
        shown.press(key)
    assert shown.run(told) == "class 2, taken for class 1: 0 of 10"
    shown.press("Enter")  # closer
    assert shown.run("return [...document.querySelectorAll('.matrix .plain')].map((one) => one.hidden)") == [False]
    shown.press("Down", "Right", "Enter")
    assert shown.run("return $('sample-count').textContent") == "9 of 600"
    assert "class 0 taken for class 1" in shown.run("return document.querySelector('#samples .bar .plain').textContent")
    shown.run("$('run').querySelector('canvas').focus()")
    shown.press("Escape")
    assert shown.run("return [$('run').open, document.querySelector('.matrix .plain').hidden]") == [True, True]


def test_the_most_confused_pairs_and_each_class_lead_to_their_samples(shown: Browser) -> None:
    shown.run(opened("ssv2@mini"))
    pairs = "return [...document.querySelectorAll('.pairs li')].map((one) => one.innerText.replace(/\\s+/g, ' '))"
    assert shown.run(pairs)[0] == "class 6 taken for class 7 10 of 10"
    shown.run("document.querySelector('.pairs button').click()")
    assert shown.run("return $('sample-count').textContent") == "10 of 600"
    rows = "[...document.querySelectorAll('.per-class tbody tr')]"
    assert shown.run(f"return {rows}.length") == 20
    lowest = shown.run(f"return [...{rows}[0].cells].map((cell) => cell.innerText.trim())")
    assert lowest == ["class 0", "10", "0.0", "0.0 – 27.8", "class 1 (9)"]
    shown.run("document.querySelector('.per-class > .plain').click()")
    assert shown.run(f"return {rows}.length") == CLASSES
    shown.run(f"{rows}[3].querySelector('button').click()")
    assert shown.run("return $('sample-count').textContent") == "10 of 600"
    shown.run("document.querySelector('#samples .bar .plain').click()")
    assert shown.run("return $('sample-count').textContent") == "600 of 600"


def test_another_run_beside_shows_what_changed(shown: Browser) -> None:
    shown.run(opened("ssv2@mini"))
    assert "better" not in shown.run("return $('sample-outcome').textContent")
    shown.run(beside("0"))
    here, there = ([row.prediction and row.prediction[0] == row.target for row in answers(n)] for n in (6, 5))
    better = sum(bool(a) and not b for a, b in zip(here, there, strict=True))
    worse = sum(bool(b) and not a for a, b in zip(here, there, strict=True))
    options = shown.run("return [...$('sample-outcome').options].map((one) => one.textContent)")
    assert options[-3:] == [f"changed ({better + worse})", f"better here ({better})", f"worse here ({worse})"]
    shown.run(entered("sample-outcome", "worse"))
    assert shown.run("return $('sample-count').textContent") == f"{worse} of 600"
    first = shown.run("return document.querySelector('.samples > [data-outcome]').innerText")
    assert "wrong" in first and "worse here" in first
    head = shown.run("return [...document.querySelectorAll('.per-class thead th')].map((one) => one.innerText)")
    assert head[4:6] == ["beside other", "better / worse"]
    row = shown.run("return document.querySelector('.per-class tbody tr').innerText.replace(/\\s+/g, ' ')")
    assert "+90.0 9 / 0" in row or "+100.0 10 / 0" in row
    said = f"here alone: {better}; there alone: {worse}."
    assert said in shown.run("return $('run').innerText")
    shown.run(beside(""))
    assert shown.run("return document.querySelectorAll('.per-class thead th').length") == 5
    assert shown.run("return [...$('sample-outcome').options].length") == 4


def test_each_of_several_classes_has_its_average_precision(shown: Browser) -> None:
    shown.run(opened("charades@mini"))
    rows = (
        "return [...document.querySelectorAll('.per-class tbody tr')].map((one) => one.innerText.trim().split(/\\t/))"
    )
    assert [[cell for cell in row if cell] for row in shown.run(rows)] == [
        ["class 0", "3", "33.3"],
        ["class 1", "3", "33.3"],
        ["class 2", "3", "100.0"],
    ]
    shown.run(beside("0"))
    assert shown.run(rows)[0][-1] == "+66.7"  # of class 2, which is last there


def test_a_query_shows_its_nearest_videos_and_which_is_right(shown: Browser) -> None:
    shown.run(opened("retrieval@mini"))
    shown.run(entered("sample-order", "worst"))
    first = "document.querySelector('.samples > [data-outcome]')"
    assert shown.run(f"return {first}.querySelectorAll('.near').length") == 5
    assert "rank 8" in shown.run(f"return {first}.innerText") and "right: rank 8" in shown.run(
        f"return {first}.innerText"
    )
    shown.run(entered("sample-order", "best"))
    near = f"[...{first}.querySelectorAll('.near')]"
    names = shown.run(f"return {near}.map((one) => one.innerText.replace(/\\s+/g, ' '))")
    assert names == ["1 clip0 right", "2 clip1", "3 clip2", "4 clip3", "5 clip4"]
    loaded = "await Promise.all(pictures.map((one) => one.decode())); return pictures.map((one) => one.naturalWidth)"
    assert shown.run(f"const pictures = {near}.map((one) => one.querySelector('img')); {loaded}") == [96] * 5
    assert "6 of 7 videos have a picture" in shown.run("return $('samples').innerText")


def test_options_have_their_shares_and_signs(shown: Browser) -> None:
    shown.run(opened("nextqa@mini"))
    task = make("nextqa", mini=True)
    wrong = next(i for i, example in enumerate(task.test) if example.target not in (0, None))
    row = f"document.querySelectorAll('.samples > [data-outcome]')[{wrong}]"
    told = shown.run(
        f"return [...{row}.querySelectorAll('.options li')].map((one) => one.innerText.replace(/\\s+/g, ' '))"
    )
    assert len(told) == 5 and told[0].startswith("answered ") and told[0].endswith("-1, 64 %")
    assert [one.startswith("right ") for one in told].index(True) == task.test[wrong].target
    assert told[3].endswith("none")
    assert all(text in one for text, one in zip(task.test[wrong].choices, told, strict=True))


def test_captions_have_the_n_grams_that_count(shown: Browser) -> None:
    shown.run(opened("captions@mini"))
    row = "document.querySelectorAll('.samples > [data-outcome]')[1]"
    marks = "map((one) => [one.className, one.textContent])"
    found = shown.run(f"return [...{row}.querySelector('[data-name=prediction]').querySelectorAll('mark')].{marks}")
    assert found == [["gram1", "a"]]
    assert "1: 1 of 8, 2: 0 of 7" in shown.run(f"return {row}.innerText")
    assert shown.run(f"return {row}.querySelectorAll('[data-name=reference] .clamp > div').length") == 2
    shown.run(entered("sample-order", "high"))
    assert "500.0" in shown.run("return document.querySelector('.samples > [data-outcome]').innerText")


def test_samples_are_walked_by_keys(shown: Browser) -> None:
    shown.run(opened("ssv2@mini"))
    here = "return document.activeElement.children[1]?.innerText"
    ids = []
    for key in ("j", "j", "Down", "k"):
        shown.press(key)
        ids.append(shown.run(here).split()[0])
    assert ids == ["s000", "s001", "s002", "s001"]
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert shown.run(f"return [{outline}, document.activeElement.matches(':focus-visible')]") == ["solid", True]
    opens = "return [document.activeElement.classList.contains('open'), $('run').open]"
    shown.press("Enter")
    assert shown.run(opens) == [True, True]
    shown.press("Escape")  # first the sample, then the run
    assert shown.run(opens) == [False, True]
    shown.press("/")
    assert shown.run("return document.activeElement.id") == "sample-text"
    for key in "s003":
        shown.press(key)
    assert shown.run("return $('sample-count').textContent") == "1 of 600"
    shown.run(
        "$('sample-text').blur(); $('sample-text').value = ''; $('sample-text').dispatchEvent(new Event('input'))"
    )
    shown.press(*101 * "j")  # past those that are drawn at first
    assert shown.run(here).split()[0] == "s100"
    shown.press("Escape")
    assert shown.run("return $('run').open") is False


@pytest.mark.parametrize("width", [390, 1400])
def test_no_view_needs_scrolling_sideways(shown: Browser, width: int) -> None:
    shown.size(width)
    assert shown.run("return document.documentElement.scrollWidth") == width
    for task in ("ssv2@mini", "retrieval@mini", "nextqa@mini", "captions@mini", "charades@mini", "seeds@mini"):
        shown.run(opened(task))
        if task == "ssv2@mini":
            shown.run(beside("0"))
        assert shown.run("return $('run').scrollWidth - $('run').clientWidth") == 0, task


def test_names_on_a_phone_are_whole(shown: Browser) -> None:
    shown.size(390)
    cut = "[...$('forest').querySelectorAll('.row > :first-child')].filter((one) => one.scrollWidth > one.clientWidth)"
    assert shown.run(f"return {cut}.length") == 0


def test_what_papers_print_of_a_task_stands_in_one_cell(window: Browser, tmp_path: Path) -> None:
    def of_a_paper(record: dict[str, Any]) -> None:
        record["task"] |= {"split": "val", "protocol": {"name": "videoprism"}}

    rows = [Row(f"q{i}", f"v{i}", target=0, prediction=[i % 2, 2, 3, 4, 5]) for i in range(20)]
    for task in ("kinetics400", "ssv2"):
        put(tmp_path / "results", rows, task, "mine", of_a_paper, top1_top5)
    file = tmp_path / "board.html"
    file.write_text(write(tmp_path / "results"))
    window.size(1280)
    window.open(file)
    printed = window.run("return document.querySelector('.papers').innerText").split("\n")
    assert printed[:2] == ["VideoPrism-g 87.2", "VideoMAEv2-B/DL 86.7"] and len(printed) == 4
    assert printed[3].startswith("and ")
    window.run("$('printed').click()")
    assert window.run("return [document.querySelectorAll('.papers').length, $('board').rows[0].cells.length]") == [0, 4]
    assert window.errors() == []
