"""The table for a paper: which columns it has, by which metrics, and what is bold."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.metrics.average_precision import multilabel_map
from evalkit.metrics.classification import top1_top5
from evalkit.metrics.retrieval import retrieval
from evalkit.results.rows import Row
from tests.leaderboard.boards import Edit, put, put_seed, right
from tests.leaderboard.test_export import CLASSES, SEVERAL, save

adaptation = importlib.import_module("evalkit.leaderboard.columns").adaptation

Table = Callable[..., list[list[str]]]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """The cells of the table of the runs in `tmp_path`, a row each, those of its foot last."""

    def cells(*words: str) -> list[list[str]]:
        file = tmp_path / "table.tex"
        assert main(["export", "to=latex", f"results={tmp_path}", f"out={file}", *words]) == 0
        return [line.removesuffix(r" \\").split(" & ") for line in file.read_text().splitlines() if r" \\" in line]

    return cells


def of(adapter: str, **settings: Any) -> Edit:
    def edit(record: dict[str, Any]) -> None:
        record["adapter"] |= {"name": adapter, "settings": settings}
        record["task"]["protocol"] |= {"adapter": adapter, "settings": settings}

    return edit


def values(row: list[str]) -> list[str]:
    return [cell.partition(" {")[0] for cell in row]


def test_a_table_of_latex_has_scores_with_intervals_and_escapes_what_latex_reads(tmp_path: Path) -> None:
    save(tmp_path / "r", "ssv2", CLASSES, top1_top5, "probe", "my_encoder&co", "linear")
    save(tmp_path / "r", "kinetics_400", CLASSES[:3], top1_top5, "probe", "other", "linear")
    assert main(["export", "to=latex", f"results={tmp_path / 'r'}", f"out={tmp_path / 'out'}"]) == 0
    text = (tmp_path / "out/results.tex").read_text()
    assert r"my\_encoder\&co" in text and r"kinetics\_400" in text and r"frozen, top1" in text
    assert text.count(r" \\") == 4 and text.count(r"{\scriptsize [") == 2 and r"\begin{tabular}{lcc}" in text
    assert text.count("&") - text.count(r"\&") == 4 * 2  # as many cells in each row
    save(tmp_path / "r", "charades", SEVERAL, multilabel_map, "probe", "other", "linear")
    assert main(["export", "to=latex", f"results={tmp_path / 'r'}", f"out={tmp_path / 'out'}"]) == 0
    text = (tmp_path / "out/results.tex").read_text()
    assert r"\begin{tabular}{lccc}" in text and text.count(r" \\") == 4  # a row per benchmark below their names


def test_every_adapter_and_protocol_has_a_column_of_its_own(tmp_path: Path, table: Table) -> None:
    put(tmp_path, right(range(3), 4), day=1, edit=of("probe", head="attentive"))
    put(tmp_path, right(range(2), 4), day=1, encoder="other", edit=of("probe", head="attentive"))
    put(tmp_path, right(range(4), 4), day=2, edit=of("knn", k=3))
    put(tmp_path, right(range(1), 4), day=3, edit=of("probe", head="linear"))
    columns = table()
    assert [row[1] for row in columns[1:4]] == [
        *("frozen, probe, accuracy", "frozen, knn, accuracy", "frozen, probe, accuracy (a)")
    ]
    assert [values(row[2:]) for row in columns[:4]] == [
        ["demo", "other"],
        [r"\textbf{75.0}", "50.0"],
        ["100.0", ""],
        ["25.0", ""],
    ]
    assert columns[4] == [
        r"\multicolumn{4}{l}{\footnotesize (a) egoschema@mini: settings.head linear instead of attentive}"
    ]


def test_the_splits_of_a_benchmark_are_told_apart(tmp_path: Path, table: Table) -> None:
    put(tmp_path, right(range(1), 4), day=1, edit=lambda record: record["task"].update(split="val"))
    put(tmp_path, right(range(2), 4), day=2)
    assert [[row[1], *values(row[2:])] for row in table()[1:]] == [
        ["test, frozen, accuracy", "50.0"],
        ["val, frozen, accuracy", "25.0"],
    ]


def test_what_differs_beside_the_adapter_is_said(tmp_path: Path, table: Table) -> None:
    def more(record: dict[str, Any]) -> None:
        of("knn")(record)
        record["task"]["protocol"]["frames"] = 32

    put(tmp_path, right(range(3), 4), edit=of("probe"))
    put(tmp_path, right(range(3), 4), encoder="other", edit=of("probe"))
    put(tmp_path, right(range(3), 4), day=2, edit=more)
    foot = table()[-1][0]
    assert "(a) egoschema@mini: adapter knn instead of probe; frames 32 instead of 16" in foot


def test_what_shares_a_cell_and_is_not_shown_is_told(
    tmp_path: Path, table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in (1, 2):
        put(tmp_path, right(range(day), 4), day=day)
    assert values(table()[-1]) == ["demo", "50.0"]
    assert "run-2: the newest under this protocol, and in the place of 1 more" in capsys.readouterr().err


def ranked(best: int) -> list[Row]:
    return [Row(f"t{i}", f"{i}.mp4", target=f"t{i}", prediction={"t2v": best + i, "v2t": 1 + i % 2}) for i in range(12)]


def test_the_metrics_that_are_asked_for_are_columns_in_their_order(
    tmp_path: Path, table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, ranked(1), "msrvtt", "one", score=retrieval)
    put(tmp_path, ranked(2), "msrvtt", "two", score=retrieval)
    put(tmp_path, right(range(1), 2))
    asked = ["v2t_R@1", "t2v_R@1", "t2v_R@5", "t2v_median_rank"]
    rows = table(f"metrics={','.join(asked)}")
    assert [row[1].split(", ")[-1] for row in rows[1:]] == [metric.replace("_", r"\_") for metric in asked]
    assert [values(row[2:]) for row in rows] == [
        ["one", "two"],
        [r"\textbf{50.0}", r"\textbf{50.0}"],  # all that are best
        [r"\textbf{8.3}", "0.0"],
        [r"\textbf{41.7}", "33.3"],
        [r"\textbf{6.5}", "7.5"],  # of ranks the lowest
    ]
    assert "demo/egoschema@mini/run-1: has no score by v2t_R@1, t2v_R@1" in capsys.readouterr().err
    assert len(table("metrics=all")) == 1 + 10 + 1  # of one encoder accuracy, of two all of retrieval's
    assert table("metrics=headline") == table()
    assert main(["export", "to=latex", f"results={tmp_path}", "metrics=t2v_R5"]) == 2
    assert "metrics=t2v_R5: no run has 't2v_R5'. Did you mean 't2v_R@5'?" in capsys.readouterr().err


def test_another_metric_of_several_seeds_is_their_mean_without_an_interval(tmp_path: Path, table: Table) -> None:
    for seed, first in enumerate((1, 3)):
        rows = [Row(f"q{i}", f"v{i}", target=1, prediction=[0, 1] if i >= first else [1, 0]) for i in range(4)]
        put_seed(tmp_path, rows, seed, 1 + seed, score=top1_top5)
    headline, other = table("metrics=top1,top5")[1:]
    assert headline[2].startswith("50.0 {") and other[2] == "100.0"


def test_a_format_that_is_one_file_may_be_named_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "r", right(range(1), 2))
    for to, out, file in (
        ("latex", "table.tex", "table.tex"),
        ("csv", "table.csv", "table.csv"),
        ("latex", "table.v2", "table.v2/results.tex"),
    ):
        assert main(["export", f"to={to}", f"results={tmp_path / 'r'}", f"out={tmp_path / out}"]) == 0
        assert (tmp_path / file).is_file()
    for words, told in (
        (["to=latex", "out=x.csv"], "out=x.csv: wanted a folder, or a file like results.tex"),
        (["to=hf", "out=x.yaml"], "out=x.yaml: wanted a folder: the format has several files"),
        (["to=latex,csv"], "to=latex,csv: one format at a time; begin with to=latex"),
        (["to=csv", "metrics=all"], "metrics=all: to=csv has all that fits it; metrics= is of to=latex"),
    ):
        capsys.readouterr()
        assert main(["export", *words, f"results={tmp_path / 'r'}"]) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("adapter", "settings", "expected"),
    [
        ("probe", {"from": "head/adapters/probe", "head": "attentive"}, "frozen"),
        ("finetune", {"from": "tuned/adapters/finetune", "tune": "all"}, "finetune"),
        ("captioner", {"from": "projector"}, "zero-shot"),  # one that works by text is of any task
        ("zero_shot", {"from": ""}, "zero-shot"),
    ],
)
def test_a_head_that_was_trained_before_is_no_zero_shot(adapter: str, settings: dict[str, str], expected: str) -> None:
    task = {"name": "msrvtt_caption", "protocol": {}}
    assert adaptation({"adapter": {"name": adapter, "settings": settings}, "task": task, "selection": None}) == expected


@pytest.mark.parametrize(
    ("adapter", "trained_on", "expected"),
    [
        ("multiple_choice", ["nextqa"], "frozen"),
        ("captioner", ["msrvtt", "nextqa"], "fine-tuned"),  # of a mixture
        ("contrastive", ["nextqa"], "fine-tuned"),
        ("multiple_choice", ["nextqa@mini"], "zero-shot"),
        ("multiple_choice", ["egoschema"], "zero-shot"),
    ],
)
def test_an_adapter_by_text_is_zero_shot_only_on_other_tasks(
    adapter: str, trained_on: list[str], expected: str
) -> None:
    named = {"name": adapter, "settings": {"from": "trained"}, "trained_on": trained_on}
    task = {"name": "nextqa", "protocol": {}}
    assert adaptation({"adapter": named, "task": task, "selection": None}) == expected


def test_what_was_re_ranked_is_an_adaptation_of_its_own() -> None:
    record = {
        "adapter": {"name": "retrieval", "settings": {}},
        "task": {"name": "msrvtt", "protocol": {}},
        "selection": None,
    }
    assert adaptation(record) == "zero-shot"
    record["task"] = {"name": "msrvtt", "protocol": {"settings": {"rerank": 128}}}
    assert adaptation(record) == "zero-shot, re-ranked"
