"""Runs that the board refuses, and what it remembers of those it has validated."""

import importlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.metrics.text.captions import captions
from evalkit.results import run_folder, validate
from tests.leaderboard.boards import lines, page, put, texts
from tests.records import PLUGIN, rows_of

board = importlib.import_module("evalkit.leaderboard.board")
collection = importlib.import_module("evalkit.leaderboard.runs")


def altered(run: Path, name: str, old: str, new: str) -> None:
    text = (run / name).read_text()
    assert old in text
    (run / name).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("predictions.jsonl", '"prediction": 0', '"prediction": 1', "predictions.jsonl was changed"),
        ("result.json", '"value": 66.666667', '"value": 76.666667', "accuracy value: stored 76.666667, recomputed 66"),
        ("result.json", '"frames": 16', '"frames": 32', "task.protocol was changed"),
        ("result.json", '"predictions_sha256": "', '"predictions_sha256": "0', "predictions_sha256: "),
        ("config.yaml", "egoschema", "egoschemb", "config.yaml was changed"),
    ],
)
def test_an_invalid_run_is_refused_by_name_and_the_rest_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, old: str, new: str, told: str
) -> None:
    results, out = tmp_path / "results", tmp_path / "board.md"
    put(results, rows_of(8, 4), encoder="good")
    run = put(results, rows_of(8, 4), encoder="bad")
    words = ["leaderboard", f"results={results}", f"out={out}"]
    assert main(words) == 0
    assert "Refused" not in out.read_text()
    altered(run, name, old, new)
    capsys.readouterr()
    assert main(words) == 1
    (line,) = lines(capsys.readouterr().err, "refused: ")
    assert line.startswith("refused: bad/egoschema@mini/run-1: ") and told in line
    text = out.read_text()
    assert lines(text, "| good | **") and not lines(text, "| bad |")
    assert lines(text, "* bad/egoschema@mini/run-1: ")


def test_what_validated_is_remembered_until_a_byte_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    results = tmp_path / "results"
    checked: list[str] = []
    for encoder in ("a", "b"):
        put(results, rows_of(8, 4), encoder=encoder)
    check = validate.check

    def counted(run: Path, files: Sequence[Path]) -> validate.Checked:
        checked.append(run.parts[-3])
        return check(run, files)

    monkeypatch.setattr(validate, "check", counted)
    first = page(results)
    assert checked == ["a", "b"]
    assert page(results) == first and checked == ["a", "b"]
    altered(results / "b/egoschema@mini/run-1", "config.yaml", "task", "Task")
    assert "Refused" in page(results) and checked == ["a", "b", "b"]
    for file in (tmp_path / "cache/verdicts").iterdir():
        file.write_text("{")
    assert "Refused" in page(results) and sorted(checked) == ["a", "a", "b", "b", "b"]


def test_several_processes_say_what_one_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results"
    for encoder in "abcd":
        put(results, rows_of(8, 4), encoder=encoder)
        put(results, texts(6), "msrvtt_caption@mini", encoder, score=captions)
    altered(results / "b/egoschema@mini/run-1", "predictions.jsonl", '"prediction": 0', '"prediction": 1')
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "one"))
    alone = page(results)
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "several"))
    monkeypatch.setattr(collection, "cores", lambda: 2)
    monkeypatch.setattr(collection, "POOL_AFTER_S", 0)
    monkeypatch.setattr(validate, "check", None)  # here, which is not in the others
    assert page(results) == alone
    assert "* b/egoschema@mini/run-1: predictions.jsonl was changed" in alone
    assert len(list((tmp_path / "several/verdicts").iterdir())) == 7


def test_a_headline_that_is_made_of_sums_is_remembered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    for encoder in ("a", "b"):
        put(tmp_path / "results", texts(8), "msrvtt_caption@mini", encoder, score=captions)
    first = page(tmp_path / "results")
    monkeypatch.setattr(collection, "measure", None)
    assert page(tmp_path / "results") == first
    for run in board.collect(tmp_path / "results")[0]:
        stored = run_folder.load(run.folder)["scores"][0]
        assert (stored["metric"], stored["value"]) == ("CIDEr", round(run.headline.values, 6))


def test_scores_by_code_of_ones_own_are_recomputed_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(PLUGIN)
    put(tmp_path / "results", rows_of(8, 4), edit=lambda r: r["task"].update(score=f"{tmp_path}/mine.py:score"))
    _, (line,) = board.collect(tmp_path / "results", [(tmp_path / "mine.py").resolve()])
    assert "scores: stored accuracy; recomputed half" in line
    _, (line,) = board.collect(tmp_path / "results")
    assert "unverified" in line and "recomputed" not in line
    assert not (tmp_path / "cache/verdicts").exists()


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "file"))
    put(tmp_path / "results", rows_of(8, 4))
    assert "**66.7**" in page(tmp_path / "results")
