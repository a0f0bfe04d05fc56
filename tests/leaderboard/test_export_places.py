"""What an export calls runs of one task under several protocols, and its page in the documents."""

import csv
import importlib
import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.metrics.classification import top1_top5
from evalkit.results.run_folder import write
from tests.leaderboard.test_export import CLASSES, save
from tests.records import result_of

exports = importlib.import_module("evalkit.leaderboard.exports")
board_csv = importlib.import_module("evalkit.leaderboard.csv")
collect = importlib.import_module("evalkit.leaderboard.runs").collect


def test_runs_of_one_task_under_several_protocols_have_a_place_each(tmp_path: Path) -> None:
    for adapter, protocol in (("probe", "videoglue"), ("probe", "videoprism"), ("knn", "videoglue")):
        record = result_of(CLASSES, top1_top5)
        record["task"] |= {"name": "kinetics400", "split": "test"}
        record["task"]["protocol"] |= {"name": protocol, "adapter": adapter}
        record["adapter"]["name"] = adapter
        write(tmp_path / "r/demo/kinetics400" / f"{adapter}-{protocol}", record, CLASSES, "")
    labels = {"videoglue-probe", "videoprism-probe", "videoglue-knn"}
    for to, folder in (("hf", "evalkit__demo/.eval_results"), ("mteb", "results/evalkit__demo/*")):
        assert main(["export", f"results={tmp_path / 'r'}", f"to={to}", f"out={tmp_path / to}"]) == 0
        written = {file.stem for file in (tmp_path / to).glob(f"{folder}/kinetics400*")}
        assert written == {f"kinetics400-{label}" for label in labels}


def test_protocols_are_called_apart_by_the_least_that_differs() -> None:
    def run(adapter: str, digest: str, task: str = "ssv2", **protocol: Any) -> Any:
        encoder = {"name": "demo", "ckpt": "demo", "sha256": "c" * 64}
        task_record = {"name": task, "protocol": protocol, "protocol_sha256": digest * 64}
        return SimpleNamespace(result={"encoder": encoder, "adapter": {"name": adapter}, "task": task_record})

    assert exports.task_names([run("probe", "a"), run("probe", "a"), run("knn", "b", "hmdb51")]) == [
        *("ssv2", "ssv2", "hmdb51")
    ]
    assert exports.task_names([run("probe", "a"), run("knn", "b")]) == ["ssv2-probe", "ssv2-knn"]
    assert exports.task_names([run("retrieval", "a"), run("retrieval", "b", transductive=True)]) == [
        *("ssv2", "ssv2-transductive")
    ]
    again = [run("retrieval", "a", settings={}), run("retrieval", "b", settings={"rerank": 128})]
    assert exports.task_names(again) == ["ssv2", "ssv2-reranked"]
    assert exports.task_names(again[1:]) == ["ssv2-reranked"], "another encoder's may be ssv2, as it is"
    assert exports.task_names([run("retrieval", "b", transductive=True)]) == ["ssv2-transductive"]
    assert exports.task_names([run("probe", "a"), run("probe", "b"), run("knn", "c")]) == [
        *("ssv2-probe-aaaaaaaa", "ssv2-probe-bbbbbbbb", "ssv2-knn")
    ]


def columns_of(heading: str) -> list[str]:
    """The names in the first column of the table below a heading of docs/export.md."""
    page = (Path(__file__).parents[2] / "docs/export.md").read_text()
    table = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)]


def test_the_page_on_exports_has_every_format_and_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(columns_of("Formats")) == sorted(exports.formats())
    save(tmp_path / "r", "kinetics400", CLASSES, top1_top5, "probe")
    assert main(["export", f"results={tmp_path / 'r'}", "to=csv", f"out={tmp_path}"]) == 0
    flat = next(csv.reader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert sorted(columns_of("Columns of results.csv")) == sorted(flat)
    board = next(csv.reader(io.StringIO(board_csv.render_csv(collect(tmp_path / "r")[0]))))
    assert sorted(columns_of("Columns of board.csv")) == sorted(board)
    capsys.readouterr()
    assert main(["export", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown and summary in shown for name, summary in exports.formats().items())
