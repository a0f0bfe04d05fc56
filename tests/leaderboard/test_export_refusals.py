"""Results that a format cannot take."""

import csv
import importlib
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.metrics.average_precision import multilabel_map
from evalkit.metrics.classification import accuracy
from evalkit.metrics.retrieval import retrieval
from evalkit.metrics.text.captions import captions
from evalkit.results.rows import Row
from evalkit.results.run_folder import write
from tests.leaderboard.test_export import ANSWERED, RANKS, SAID, save
from tests.records import minimal_of, result_of, rows_of

runs_of = importlib.import_module("evalkit.leaderboard.runs")
exports = importlib.import_module("evalkit.leaderboard.exports")  # a folder of the repository is part of the package


@pytest.mark.parametrize("to", sorted({*exports.formats()} - {"egoschema", "coco", "clip_benchmark"}))
def test_every_format_takes_a_run_of_which_little_is_known(tmp_path: Path, to: str) -> None:
    rows = rows_of(3, 1)
    write(tmp_path / "results" / "run", minimal_of(rows), rows, "")
    assert exports.export([f"results={tmp_path / 'results'}", f"to={to}", f"out={tmp_path / 'out'}"]) == 0


@pytest.mark.parametrize("to", ["mteb", "hf", "csv"])
def test_a_run_without_any_public_answer_has_no_place_among_scores(tmp_path: Path, to: str) -> None:
    save(tmp_path / "results", "egoschema", rows_of(0, 0, unlabeled=3), accuracy, "multiple_choice")
    with pytest.raises(UserError, match="none of 1 run has a place in it"):
        exports.export([f"results={tmp_path / 'results'}", f"to={to}", f"out={tmp_path / 'out'}"])


def test_a_score_that_is_undefined_is_told_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row(f"m{i}", f"{i}.mp4", target=[], prediction=[0.2, 0.5]) for i in range(2)]  # of no class at all
    save(tmp_path / "results", "charades", rows, multilabel_map, "probe")
    for to in ("csv", "mteb", "eee"):
        with pytest.raises(UserError, match="none of 1 run has a place in it"):
            exports.export([f"results={tmp_path / 'results'}", f"to={to}", f"out={tmp_path / 'out'}"])
        assert "demo/charades/run: mAP is undefined and left out" in capsys.readouterr().err


def test_an_invalid_run_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "results", "msrvtt", RANKS, retrieval, "retrieval", "clip_base")
    broken = save(tmp_path / "results", "egoschema", ANSWERED, accuracy, "multiple_choice") / "predictions.jsonl"
    broken.write_text(broken.read_text().replace('"prediction": 1', '"prediction": 4'))
    assert main(["export", f"results={tmp_path / 'results'}", "to=csv", f"out={tmp_path / 'out'}"]) == 1
    assert "demo/egoschema/run" in capsys.readouterr().err
    rows = csv.DictReader((tmp_path / "out" / "results.csv").read_text().splitlines())
    assert {row["dataset"] for row in rows} == {"msrvtt"}


def test_of_two_runs_with_one_place_the_newer_is_written_and_the_other_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rows in (ANSWERED, ANSWERED[:1]):
        save(tmp_path / "results", "egoschema", rows, accuracy, "multiple_choice")
    assert main(["export", f"results={tmp_path / 'results'}", "to=hf", f"out={tmp_path / 'out'}"]) == 0
    assert "value: 100.0" in (tmp_path / "out" / "evalkit__demo" / ".eval_results" / "egoschema.yaml").read_text()
    assert "egoschema.yaml: another run has the same place, and the older one is left out" in capsys.readouterr().err


@pytest.mark.parametrize("to", exports.formats())
def test_a_result_from_elsewhere_cannot_choose_where_it_is_written(tmp_path: Path, to: str) -> None:
    for task, rows, score, adapter in (
        ("../../../a/../b", RANKS, retrieval, "retrieval"),
        ("../said", SAID, captions, "captioner"),
        ("egoschema", ANSWERED, accuracy, "multiple_choice"),
    ):
        record = result_of(rows, score) | {"selection": None}
        record["task"]["name"] = task
        record["encoder"] |= {"name": "../../evil", "ckpt": "../../evil"}
        record["adapter"]["name"] = adapter
        write(tmp_path / "results" / adapter, record, rows, "")
    assert (
        exports.export([f"results={tmp_path / 'results'}", f"to={to}", f"out={tmp_path / 'deep' / 'er' / 'out'}"]) == 0
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "results"]
    assert [path.name for path in (tmp_path / "deep").rglob("*") if path.parent.name in ("deep", "er")] == ["er", "out"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["to=mtep"], "to=mtep: there is no such format. Did you mean 'mteb'? Known: clip_benchmark, coco, csv, eee"),
        ([], "export needs to=FORMAT, one of clip_benchmark"),
        (["to=csv", "form=x"], "export takes to=, results=, out=, metrics= and task=, got 'form=x'"),
        (["to=csv", "results=nowhere"], "no run at or under 'nowhere'"),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_a_format_is_asked_for_and_what_was_written_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"^export needs to=FORMAT, one of clip_benchmark, coco, csv, "):
        exports.export([])
    for number in range(2):
        rows = [Row(f"a\udcff{number}", "v\udcff.mp4", target=1, prediction=1)]  # bytes that are no UTF-8
        write(tmp_path / "results" / f"run{number}", minimal_of(rows), rows, "")
        assert exports.export([f"results={tmp_path / 'results'}", "to=csv", f"out={tmp_path / 'out'}"]) == 0
        files = len(list((tmp_path / "out").rglob("*.csv")))
        shown = "1 file" if files == 1 else f"{files} files"
        assert capsys.readouterr().out.endswith(f": {shown} of {'2 runs' if number else '1 run'}\n")


def test_different_weights_of_one_name_are_told_apart_by_their_hash() -> None:
    def run_of(ckpt: str, name: str, sha256: str) -> Any:
        return runs_of.Run(Path(name), name, {"encoder": {"name": name, "ckpt": ckpt, "sha256": sha256}}, None)

    runs = [
        run_of("/a/vit.pt", "vit", "a" * 64),
        run_of("/b/vit.pt", "vit", "b" * 64),
        run_of("demo", "demo", "c" * 64),
    ]
    runs.append(run_of("demo", "demo", "c" * 64))  # another task or seed
    names = [run.result["encoder"]["name"] for run in exports.told_apart(runs)]
    assert names == ["vit-aaaaaaaa", "vit-bbbbbbbb", "demo", "demo"]
