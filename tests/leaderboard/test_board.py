"""The board: what stands side by side, what is marked, ranked and written."""

import importlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.cli import main
from evalkit.metrics.average_precision import charades_map
from evalkit.metrics.bootstrap import interval, interval_of
from evalkit.metrics.bootstrap import mean as mean_of
from evalkit.metrics.classification import top1_top5
from evalkit.metrics.text.captions import captions
from evalkit.pipeline.described import place
from evalkit.results import run_folder
from evalkit.results.rows import Row
from evalkit.results.scores import measure
from tests.leaderboard.boards import Edit, cells, hits, lines, page, put, put_seed, right, texts
from tests.records import rows_of

board = importlib.import_module("evalkit.leaderboard.board")
markdown = importlib.import_module("evalkit.leaderboard.markdown")

ROOT = Path(__file__).parents[2]


# --- side by side


def test_a_board_is_rows_of_encoders_and_columns_of_tasks(tmp_path: Path) -> None:
    runs = (
        put(tmp_path, rows_of(8, 4), "egoschema@mini", "demo"),
        put(tmp_path, rows_of(6, 6), "egoschema@mini", "other"),
        put(tmp_path, rows_of(3, 3), "nextqa@mini", "demo"),
    )
    stored = [run_folder.load(run)["scores"][0]["ci95"] for run in runs]
    first, second, third = (f"({low:.1f} to {high:.1f})" for low, high in stored)
    text = page(tmp_path)
    table = text[text.index("| encoder") : text.index("## Controls")].strip().splitlines()
    assert table == [
        "| encoder | egoschema@mini<br>test<br>frozen<br>accuracy | nextqa@mini<br>test<br>frozen<br>accuracy |",
        "|---|---|---|",
        f"| demo | **66.7** {first}<br>rank 1 to 2 [1] | **50.0** {third} [3] |",
        f"| other | **50.0** {second}<br>rank 1 to 2 [2] |  |",
        "| examples (videos) | 12 (4) | 6 (2) |",
        "| chance | 20.0 | 20.0 |",
    ]
    assert lines(text, "| 2 | other | egoschema@mini |") == [
        f"| 2 | other | egoschema@mini | multiple_choice | {run_folder.load(runs[1])['task']['protocol_sha256'][:8]} "
        "| abc | 1 | 2026-02-01 | evalkit unknown | `evalkit run task=egoschema` |"
    ]
    assert lines(text, "| 2 | egoschema@mini | other |") == [
        "| 2 | egoschema@mini | other | 50.0 | 20.0 | 22.5 |"  # blind
    ]


def test_the_newest_of_several_runs_counts_and_their_number_is_told(tmp_path: Path) -> None:
    for day, rows in ((2, rows_of(4, 0)), (3, rows_of(3, 1)), (1, rows_of(0, 4))):
        put(tmp_path, rows, day=day)
    text = page(tmp_path)
    (row,) = lines(text, "| demo |")
    assert "**75.0**" in row and "rank" not in row
    assert "| newest of 3 | 2026-02-03 |" in text


def test_runs_that_differ_in_their_seed_alone_share_a_cell_of_their_mean(tmp_path: Path) -> None:
    sizes = {0: 12, 1: 15, 2: 9}
    for day, (seed, size) in enumerate({7: 0, **sizes}.items(), 1):  # an older run of seed 2 first
        put_seed(tmp_path, right(range(size), 20), seed % 5, day)
    put(tmp_path, right(range(4), 20), encoder="other")
    found = {cell["encoder"]: cell for cell in cells(tmp_path)}
    own, other = found["demo"], found["other"]
    assert (own["value"], own["sd"], own["seeds"], own["runs"]) == ("60.0", "15.0", "0 1 2", "4")
    assert (other["value"], other["sd"], other["seeds"], other["runs"]) == ("20.0", "", "0", "1")
    values = np.mean([[i < size for i in range(20)] for size in sizes.values()], 0)
    expected = [round(100 * end, 6) for end in interval(values, range(20), 0)]
    assert [float(own[key]) for key in ("low", "high")] == expected
    stored = [run_folder.load(tmp_path / f"demo/egoschema@mini/run-{day}")["scores"][0]["ci95"] for day in (2, 3, 4)]
    assert expected[1] - expected[0] < max(high - low for low, high in stored)
    assert (own["best_rank"], other["best_rank"]) == ("1", "2")
    text = page(tmp_path)
    (row,) = lines(text, "| demo |")
    assert f"**60.0** ({expected[0]:.1f} to {expected[1]:.1f})<br>3 seeds, sd 15.0<br>rank 1 [1]" in row
    assert "| 4, of seeds 0, 1, 2 | 2026-02-04 |" in text and markdown.SEEDS in text


def test_runs_of_the_official_splits_share_a_cell_of_their_mean(tmp_path: Path) -> None:
    for fold, (size, of) in enumerate(((6, 10), (9, 10), (6, 20)), 1):
        rows = [replace(row, id=f"{fold}{row.id}", video=f"{fold}{row.video}") for row in right(range(size), of)]

        def of_fold(record: dict[str, Any], fold: int = fold) -> None:
            record["task"]["fold"] = fold

        put(tmp_path, rows, day=fold, edit=of_fold)
        (cell,) = cells(tmp_path)
    assert (cell["value"], cell["folds"], cell["seeds"], cell["n"], cell["videos"]) == (
        "60.0",
        "1 2 3",
        "0",
        "40",
        "40",
    )
    assert (cell["sd"], cell["mark"]) == ("30.0", "") and float(cell["low"]) < 60 < float(cell["high"])
    text = page(tmp_path)
    assert "<br>3 folds, sd 30.0" in text and "| 3, of folds 1, 2, 3 |" in text and markdown.SEEDS in text
    put(tmp_path / "one", right(range(5), 10), edit=lambda record: record["task"].update(fold=2))
    assert "**50.0** (20.0 to 80.0)<br>fold 2 [1]" in page(tmp_path / "one")


def test_a_mean_over_seeds_of_a_score_that_is_made_of_sums_has_its_interval(tmp_path: Path) -> None:
    several = [texts(8), [replace(row, prediction=row.target) for row in texts(8)]]
    for seed, rows in enumerate(several):
        put_seed(tmp_path, rows, seed, seed + 1, score=captions)
    first, second = (run_folder.load(tmp_path / f"demo/egoschema@mini/run-{day}")["scores"][0] for day in (1, 2))
    (cell,) = cells(tmp_path)
    mean = (first["value"] + second["value"]) / 2
    assert float(cell["value"]) == pytest.approx(mean, abs=1e-6)
    assert first["ci95"][0] < float(cell["low"]) < mean < float(cell["high"])
    measured = [measure(captions, rows)["CIDEr"] for rows in several]
    parts = mean_of((measured[0].parts[:, 0] + measured[1].parts[:, 0]) / 2)  # type: ignore[union-attr]
    expected = interval_of(parts, range(8), 0)
    assert [float(cell[key]) for key in ("low", "high")] == pytest.approx(expected, abs=1e-6)


def test_seeds_of_a_score_that_no_example_has_a_value_of_have_a_mean_without_an_interval(tmp_path: Path) -> None:
    for seed, sure in ((0, 0.9), (1, 0.2)):
        rows = [Row(f"q{i}", f"v{i}", target=[i % 2], prediction=[sure, 0.5 * (i % 3)]) for i in range(8)]
        put_seed(tmp_path, rows, seed, seed + 1, score=charades_map)
    (cell,) = cells(tmp_path)
    assert (cell["seeds"], cell["low"], cell["high"]) == ("0 1", "", "")
    assert "2 seeds, sd" in page(tmp_path)


def test_failures_of_any_seed_are_told(tmp_path: Path) -> None:
    put_seed(tmp_path, rows_of(6, 3, failed=3), 0, 1)
    put_seed(tmp_path, [replace(row, prediction=1, failure=None) for row in rows_of(6, 3, failed=3)], 1, 2)
    (cell,) = cells(tmp_path)
    assert (cell["status"], cell["failed"], cell["value"], cell["at_most"]) == ("partial", "3", "75.0", "87.5")
    assert "*partial*: 3 failed, at most 87.5" in page(tmp_path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r["adapter"]["settings"].update({"from": "elsewhere"}),
        lambda r: r["provenance"].update(seed=0),
    ],
)
def test_an_older_run_of_the_same_seed_or_another_adapter_is_counted_alone(tmp_path: Path, edit: Edit) -> None:
    put_seed(tmp_path, rows_of(6, 6), 1, 1, edit)
    put_seed(tmp_path, rows_of(8, 4), 0, 2)
    (cell,) = cells(tmp_path)
    assert (cell["value"], cell["seeds"], cell["sd"], cell["runs"]) == ("66.666667", "0", "", "2")
    assert "| newest of 2 |" in page(tmp_path) and markdown.SEEDS not in page(tmp_path)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda r: r["task"]["protocol"].update(frames=8), "frames 8 instead of 16"),
        (lambda r: r["task"]["protocol"].update(steps=4), "steps 4"),
        (lambda r: r["task"]["protocol"].pop("frames"), "no frames, which is 16"),
        (lambda r: r["data"].update(fingerprint="0123456789"), r"other data \(12 examples, 01234567\)"),
        (lambda r: r["task"].update(version=2), "version 2 instead of 1"),
    ],
)
def test_another_protocol_or_other_data_shares_a_column_only_with_a_mark(tmp_path: Path, edit: Edit, told: str) -> None:
    for encoder in ("one", "two"):
        put(tmp_path, rows_of(8, 4), encoder=encoder)
    put(tmp_path, rows_of(9, 3), encoder="three", edit=edit)
    text = page(tmp_path)
    assert re.search(rf"^\* \(a\) egoschema@mini: {told}$", text, re.MULTILINE)
    assert {line.split(" | ")[0]: "(a)" in line for line in re.findall(r"^\| \w+ \| \*\*.*", text, re.MULTILINE)} == {
        "| one": False,
        "| two": False,
        "| three": True,
    }


def test_another_adapter_is_told_without_the_settings_that_only_it_has(tmp_path: Path) -> None:
    def with_adapter(name: str) -> Edit:
        return lambda r: r["task"].update(protocol={"adapter": name, "settings": {f"of_{name}": 1, "lr": len(name)}})

    put(tmp_path, rows_of(8, 4), edit=with_adapter("knn"))
    put(tmp_path, rows_of(8, 4), edit=with_adapter("knn"), encoder="two")
    put(tmp_path, rows_of(9, 3), edit=with_adapter("ridge"))
    text = page(tmp_path)
    assert lines(text, "* (a)") == ["* (a) egoschema@mini: adapter ridge instead of knn"]
    (row,) = lines(text, "| demo | **")
    assert row.count("**") == 4, "both runs of the encoder are in its cell"


def test_encoders_of_one_name_are_told_apart_by_their_weights(tmp_path: Path) -> None:
    put(tmp_path, rows_of(8, 4))
    put(tmp_path, rows_of(4, 8), edit=lambda r: r["encoder"].update(sha256="f" * 64), day=2)
    assert [cell["encoder"] for cell in cells(tmp_path)] == ["demo 00000000", "demo ffffffff"]


def test_other_settings_make_another_row_and_another_batch_does_not(tmp_path: Path) -> None:
    for day, (masking, batch) in enumerate(((0.75, 1), (0.5, 1), (0.5, 2)), 1):
        settings = {"masking": masking, "batch": batch, "precision": "32"}
        put(tmp_path, rows_of(day, 4), edit=lambda r, s=settings: r["encoder"].update(settings=s), day=day)  # type: ignore[misc]
    assert [(cell["encoder"], cell["runs"]) for cell in cells(tmp_path)] == [
        ("demo masking=0.5", "2"),
        ("demo masking=0.75", "1"),
    ]


def test_a_partial_result_says_what_failed_and_what_it_would_be_at_most(tmp_path: Path) -> None:
    put(tmp_path, rows_of(8, 4, failed=3))
    assert "*partial*: 3 failed, at most 73.3" in page(tmp_path)
    (cell,) = cells(tmp_path)
    assert (cell["status"], cell["failed"], cell["at_most"]) == ("partial", "3", "73.333333")


def test_a_result_without_public_answers_is_there_and_has_no_score(tmp_path: Path) -> None:
    put(tmp_path, rows_of(0, 0, unlabeled=3))
    text = page(tmp_path)
    assert "no public answers" in text
    assert lines(text, "| demo |") == ["| demo | not scored [1] |"]
    assert cells(tmp_path)[0]["value"] == ""


def test_more_columns_than_a_page_is_wide_go_into_several_tables(tmp_path: Path) -> None:
    for i in range(markdown.COLUMNS_PER_TABLE + 1):
        put(tmp_path, rows_of(1, 1), f"task{i}@mini")
    assert [line.count("<br>accuracy") for line in lines(page(tmp_path), "| encoder | task")] == [
        markdown.COLUMNS_PER_TABLE,
        1,
    ]


# --- ranks


def test_runs_that_cannot_be_told_apart_share_their_ranks(tmp_path: Path) -> None:
    for encoder, numbers in (("a", range(150)), ("b", range(1, 150)), ("c", range(60))):
        put(tmp_path, right(numbers, 200), encoder=encoder)
    found = {cell["encoder"]: (cell["best_rank"], cell["worst_rank"]) for cell in cells(tmp_path)}
    assert found == {"a": ("1", "2"), "b": ("1", "2"), "c": ("3", "3")}
    assert re.search(r"^\| c \| .*<br>rank 3 \[3\] \|$", page(tmp_path), re.MULTILINE)


@pytest.mark.parametrize(
    "edit", [lambda r: r["data"].update(fingerprint="other"), lambda r: r["task"].update(version=2)]
)
def test_runs_on_other_examples_are_not_ranked(tmp_path: Path, edit: Edit) -> None:
    put(tmp_path, right(range(150), 200), encoder="a")
    put(tmp_path, right(range(60), 200), encoder="b", edit=edit)
    assert {cell["best_rank"] for cell in cells(tmp_path)} == {""}


def test_a_score_that_no_example_has_a_value_of_is_not_ranked(tmp_path: Path) -> None:
    for encoder, sure in (("a", 0.9), ("b", 0.2)):
        rows = [Row(f"q{i}", f"v{i}", target=[i % 2], prediction=[sure, 1 - sure]) for i in range(8)]
        put(tmp_path, rows, encoder=encoder, score=charades_map)
    assert [(cell["metric"], cell["best_rank"]) for cell in cells(tmp_path)] == [("mAP", ""), ("mAP", "")]


# --- as text


def test_the_same_results_give_the_same_bytes_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for encoder in ("b", "a"):
        put(tmp_path / "one", rows_of(8, 4), encoder=encoder)
        put(tmp_path / "one", hits(3, 4), "kinetics400", encoder, score=top1_top5)
    run = put(tmp_path / "one", rows_of(4, 4), encoder="bad")
    (run / "result.json").write_text("{}")
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere" / "two")
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = []
    for results in (tmp_path / "one", Path("two"), Path("two")):
        for out in (tmp_path / "board.md", tmp_path / "board.csv"):
            assert main(["leaderboard", f"results={results}", f"out={out}"]) == 1
        found.append([(tmp_path / "board.md").read_bytes(), (tmp_path / "board.csv").read_bytes()])
    assert found[0] == found[1] == found[2]


def test_markup_in_names_stays_text(tmp_path: Path) -> None:
    def edit(record: dict[str, Any]) -> None:
        record["encoder"]["name"] = "<script>a|b</script> *c*\n\udcff"
        record["provenance"]["command"] = "evalkit run `x` | <b>\nrm"

    put(tmp_path, rows_of(8, 4), edit=edit)
    assert main(["leaderboard", f"results={tmp_path}"]) == 0
    text = (tmp_path / "README.md").read_text()
    (row,) = [line for line in text.splitlines() if "**66.7**" in line]
    assert row.startswith(r"| \<script\>a\|b\</script\> \*c\* \udcff | **66.7**")
    assert r"`` evalkit run `x` \| <b> rm `` |" in text
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_the_csv_holds_what_the_page_shows_in_full(tmp_path: Path) -> None:
    put(tmp_path, rows_of(8, 4))
    (cell,) = cells(tmp_path)
    score = run_folder.load(tmp_path / "demo/egoschema@mini/run-1")["scores"][0]
    assert [float(cell[key]) for key in ("value", "low", "high")] == [score["value"], *score["ci95"]]
    assert (cell["n"], cell["videos"], cell["runs"], cell["chance"]) == ("12", "4", "1", "20.0")
    assert (cell["run"], cell["command"]) == ("demo/egoschema@mini/run-1", "evalkit run task=egoschema")


def test_the_page_of_a_folder_is_its_readme_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, rows_of(8, 4))
    assert main(["leaderboard", f"results={tmp_path}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'README.md'}\n"
    assert (tmp_path / "README.md").read_text() == page(tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["result=x"],
            "leaderboard takes results=, out=, others=, videos=, task=, signers=, got 'result=x'."
            " Did you mean 'results=x'?",
        ),
        (["results"], "leaderboard takes results=, out=, others=, videos=, task=, signers=, got 'results'"),
        (["results=nothing"], "no run at or under 'nothing'"),
        (["results=.", "out=a.txt"], "out=a.txt: wanted a file that ends in .md, .csv or .html"),
        (["results=.", "others=demo"], "no score of mteb or lm-eval at or under 'demo'"),
        (["results=.", "out=demo/egoschema@mini/run-1/result.json/a.md"], "a.md: cannot write there: Not a directory"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, rows_of(2, 1))
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", *words]) == 2
    assert told in capsys.readouterr().err


# --- beside other tools


def test_what_other_tools_measured_has_a_section_of_its_own(tmp_path: Path) -> None:
    put(tmp_path / "results", rows_of(8, 4))
    for model, value in (("org__a", 0.5), ("org__b", 0.25)):
        file = tmp_path / "others" / model / "1" / "MSRVTTT2V.json"
        file.parent.mkdir(parents=True)
        scores = {"test": [{"hf_subset": "default", "languages": [], "main_score": value, "ndcg_at_10": 0.75}]}
        values = {"task_name": "MSRVTTT2V", "dataset_revision": "1", "mteb_version": "2.0", "scores": scores}
        file.write_text(json.dumps(values))
    words = ["leaderboard", f"results={tmp_path / 'results'}", f"others={tmp_path / 'others'}"]
    assert main([*words, f"out={tmp_path / 'board.md'}"]) == 0
    text = (tmp_path / "board.md").read_text()
    part = text[text.index("## Measured by other tools") : text.index("## Controls")].split("\n\n")
    assert part[2].splitlines() == [
        r"| encoder | MSRVTTT2V<br>test<br>main_score<br>mteb 2.0 |",
        "|---|---|",
        "| org/a | 50.0 |",
        "| org/b | 25.0 |",
    ]
    assert main([*words, f"out={tmp_path / 'board.csv'}"]) == 2


# --- the repository's own


def test_what_evalkit_ships_is_named_without_the_folder_that_it_lies_in(tmp_path: Path) -> None:
    assert place(ROOT / "evalkit/demo/adapters/multiple_choice") == "evalkit/demo/adapters/multiple_choice"
    assert (place(tmp_path), place(None)) == (str(tmp_path), "")


def test_the_repositorys_board_is_what_its_results_give() -> None:
    results = ROOT / "leaderboard" / "results"
    runs, refused = board.collect(results) if results.is_dir() else ([], [])
    assert refused == []
    assert (ROOT / "leaderboard" / "README.md").read_text() == board.render_markdown(runs, refused)


def test_the_repositorys_results_are_miniatures_and_name_no_folder_of_a_machine() -> None:
    for file in sorted((ROOT / "leaderboard" / "results").rglob("*.*")):
        if file.is_file():
            assert not re.search(r"""(["'=]|: )(/\w|[A-Z]:\\|~/)""", file.read_text()), file
        if file.name == run_folder.RESULT:
            assert json.loads(file.read_text())["task"]["name"].endswith("@mini"), file
