import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import UserError
from evalkit.results.run_folder import load, load_rows, run_id, write
from evalkit.results.schema import digest
from evalkit.results.table import table
from evalkit.results.validate import rescore, validate
from tests.records import PLUGIN, result_of, rows_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = rows_of(8, 4, failed=3)
    return write(tmp_path / "results" / "demo" / "egoschema@mini" / "run", result_of(rows), rows, "task: egoschema\n")


# --- writing


def test_a_run_is_written_whole_and_read_back(run: Path) -> None:
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "predictions.jsonl", "result.json"]
    assert [path.name for path in run.parent.iterdir()] == ["run"]
    assert load_rows(run) == rows_of(8, 4, failed=3)
    stored = load(run)
    assert load(run / "result.json") == stored
    assert (
        stored["data"].pop("predictions_sha256") == hashlib.sha256((run / "predictions.jsonl").read_bytes()).hexdigest()
    )
    assert stored["provenance"].pop("config_sha256") == hashlib.sha256(b"task: egoschema\n").hexdigest()
    assert stored["task"].pop("protocol_sha256") == digest({"frames": 16, "sampling": "uniform"})
    assert stored == result_of(rows_of(8, 4, failed=3))
    assert (run / "config.yaml").read_text() == "task: egoschema\n"
    assert validate(run) == []


def test_nothing_is_ever_overwritten(run: Path) -> None:
    before = (run / "result.json").read_bytes()
    rows = rows_of(1, 1)
    names = [write(run, result_of(rows), rows, "").name for _ in range(3)]
    assert names == ["run-2", "run-3", "run-4"]
    assert (run / "result.json").read_bytes() == before
    empty = run.parent / "empty"
    empty.mkdir()
    assert write(empty, result_of(rows), rows, "").name == "empty-2"


def test_a_name_taken_by_another_process_at_the_last_moment_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "run"
    exists = Path.exists

    def too_late(path: Path) -> bool:
        if path == taken and not exists(path):
            taken.mkdir()
            (taken / "result.json").write_text("theirs")
            return False
        return exists(path)

    monkeypatch.setattr(Path, "exists", too_late)
    assert write(taken, result_of(rows_of(1, 1)), rows_of(1, 1), "").name == "run-2"
    assert (taken / "result.json").read_text() == "theirs"


def test_extra_files_are_part_of_the_run(tmp_path: Path) -> None:
    rows = rows_of(2, 1)

    def submission(folder: Path) -> None:
        (folder / "submission").mkdir()
        (folder / "submission" / "answers.csv").write_text("q_uid,answer\n")

    run = write(tmp_path / "run", result_of(rows), rows, "", extra=submission)
    assert (run / "submission" / "answers.csv").read_text() == "q_uid,answer\n"
    assert validate(run) == []


@pytest.mark.parametrize("at", [0, 1, 3, 4])
def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    calls = iter(range(99))
    flush = os.fsync

    def full(descriptor: int) -> None:
        if next(calls) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    rows = rows_of(2, 1)
    if at == 4:  # renamed already: the run is whole
        with pytest.raises(OSError):
            write(tmp_path / "run", result_of(rows), rows, "")
        assert validate(tmp_path) == []
        return
    with pytest.raises(OSError) as error:
        write(tmp_path / "run", result_of(rows), rows, "")
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which only Linux has")
def test_a_disk_that_fills_up_while_a_submission_is_written_leaves_nothing(tmp_path: Path) -> None:
    rows = rows_of(2, 1)
    with pytest.raises(OSError) as error:
        write(tmp_path / "run", result_of(rows), rows, "", extra=lambda folder: Path("/dev/full").write_text("x"))
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
import evalkit.results.run_folder
name, call, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
result, rows = pickle.load(sys.stdin.buffer)
owner = Path if name in ("mkdir", "write_text", "write_bytes") else os
real, calls = getattr(owner, name), iter(range(99))
def killed(*args, **settings):
    if next(calls) == call:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **settings)
setattr(owner, name, killed)
evalkit.results.run_folder.write(folder, result, rows, "config: 1\\n")
"""


@pytest.mark.parametrize(
    ("name", "call", "whole"),
    [
        ("write_text", 0, False),
        ("write_text", 1, False),
        ("fsync", 3, False),
        ("replace", 0, False),
        ("fsync", 4, True),
    ],
)
def test_a_run_killed_at_any_moment_is_either_whole_or_not_there(
    tmp_path: Path, name: str, call: int, whole: bool
) -> None:
    import pickle

    rows = rows_of(2, 1)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, name, str(call), str(tmp_path / "run")],
        input=pickle.dumps((result_of(rows), rows)),
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    visible = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert visible == (["run"] if whole else [])
    if whole:
        assert validate(tmp_path) == []
    else:
        with pytest.raises(UserError, match="no run at or under"):
            validate(tmp_path)
    assert write(tmp_path / "run", result_of(rows), rows, "").name == ("run-2" if whole else "run")


def test_a_result_that_contradicts_its_rows_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data.n_failed is 0, but 1"):
        write(tmp_path / "run", result_of(rows_of(2, 1)), rows_of(2, 0, failed=1), "")
    assert list(tmp_path.iterdir()) == []


def test_a_run_id_sorts_by_utc_time_and_tells_configurations_apart() -> None:
    early = datetime(2026, 3, 1, 1, 0, tzinfo=timezone(timedelta(hours=5)))
    late = datetime(2026, 2, 28, 21, 0, tzinfo=timezone(timedelta(hours=0)))
    assert run_id("a", early).startswith("20260228T200000Z-")
    assert run_id("a", early) < run_id("a", late)
    assert run_id("a", early) != run_id("b", early)


# --- re-scoring and checking


def change(run: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    result = load(run)
    edit(result)
    (run / "result.json").write_text(json.dumps(result))


def test_re_scoring_gives_the_stored_scores_and_leaves_the_run_alone(run: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()}
    again = rescore(run)
    assert again.pop("differences") == []
    assert again == load(run)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()} == before


def test_re_scoring_rows_that_a_score_function_does_not_take_is_told_in_one_line(run: Path) -> None:
    change(run, lambda result: result["task"].update(score="evalkit.metrics:top1_top5"))
    rows = (run / "predictions.jsonl").read_text()
    (run / "predictions.jsonl").write_text(
        rows.replace('"prediction": 1', '"prediction": ["a", "b", "c", "d", "e"]', 1)
    )
    with pytest.raises(UserError, match=r"cannot be re-scored: ") as caught:
        rescore(run)
    assert "\n" not in str(caught.value)


def test_re_scoring_says_where_stored_and_recomputed_differ(run: Path) -> None:
    change(run, lambda result: result["scores"][0].update(value=99.0))
    assert rescore(run)["differences"] == ["accuracy value: stored 99.0, recomputed 53.333333"]
    assert rescore(run)["scores"][0]["value"] == 53.333333
    change(run, lambda result: result["scores"].append({**result["scores"][0], "metric": "top5"}))
    assert rescore(run)["differences"] == ["scores: stored accuracy, top5; recomputed accuracy"]


def test_re_scoring_with_evalkits_own_metrics_imports_no_torch(run: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from evalkit.results.validate import rescore, validate
from evalkit.results.table import table
print(table(rescore(Path({str(run)!r}))))
assert validate(Path({str(run)!r})) == []
assert not {{"torch", "lightning", "transformers", "sklearn", "pandas", "scipy"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)


def test_a_run_of_a_tasks_own_file_is_re_scored_from_that_file(tmp_path: Path) -> None:
    from evalkit.plugins import factory

    file = tmp_path / "my_task.py"
    file.write_text(PLUGIN)
    rows = rows_of(5, 2)
    run = write(tmp_path / "run", result_of(rows, factory("task", str(file)).__globals__["score"]), rows, "")
    assert validate(run, [file.resolve()]) == []
    (problem,) = validate(run)
    assert problem.startswith(f"{run}: unverified: the scores come from the task file {file.resolve()}")
    assert problem.endswith(f"task={file.resolve()} verifies them")


def drop_last_line(run: Path) -> None:
    lines = (run / "predictions.jsonl").read_text().splitlines(keepends=True)
    (run / "predictions.jsonl").write_text("".join(lines[:-1]))


def flip_a_prediction(run: Path) -> None:
    text = (run / "predictions.jsonl").read_text()
    (run / "predictions.jsonl").write_text(text.replace('"prediction": 0', '"prediction": 1', 1))


def repeat_a_line(run: Path) -> None:
    first = (run / "predictions.jsonl").read_text().splitlines(keepends=True)[0]
    with (run / "predictions.jsonl").open("a") as file:
        file.write(first)


def cut(name: str, to: int) -> Callable[[Path], object]:
    return lambda run: os.truncate(run / name, to)


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(content)


def folder_of(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (drop_last_line, "sha256 is not data.predictions_sha256"),
        (drop_last_line, "data.n_expected is 15, but 14 in predictions.jsonl"),
        (drop_last_line, "accuracy n: stored 15, recomputed 14"),
        (flip_a_prediction, "accuracy value: stored 53.333333, recomputed 60.0"),
        (repeat_a_line, "2 rows with id 'q0'"),
        (cut("result.json", 100), "result.json is not JSON, perhaps cut off"),
        (cut("result.json", 0), "result.json is not JSON"),
        (cut("predictions.jsonl", 200), "predictions.jsonl line 2: cut off"),
        (put("result.json", b"\xff\xfe"), "result.json: 'utf-8' codec can't decode"),
        (put("result.json", b"[1]"), "result.json: not a JSON object"),
        (put("result.json", b'{"schema": NaN}'), "NaN is not JSON"),
        (put("result.json", b"[" * 100_000), "RecursionError"),
        (put("result.json", b'{"a": ' * 101 + b"1" + b"}" * 101), "result.json: nested more than 100 deep"),
        (put("predictions.jsonl", b"[" * 500 + b"]" * 500 + b"\n"), "predictions.jsonl line 1: nested more than 100"),
        (put("result.json", b"{}"), "result.json: 'adapter' is a required property"),
        (put("predictions.jsonl", b"\n\n"), "predictions.jsonl line 1 is not JSON"),
        (put("predictions.jsonl", b'{"id": "q"}\n'), "predictions.jsonl line 1: 'video' is a required property"),
        (put("config.yaml", b"task: nextqa\n"), "config.yaml was changed: its sha256 is not provenance.config_sha256"),
        (lambda run: (run / "config.yaml").unlink(), "config.yaml was changed"),
        (lambda run: (run / "predictions.jsonl").unlink(), "no predictions.jsonl"),
        (lambda run: (run / "result.json").unlink(), "no result.json in it"),
        (lambda run: folder_of(run / "result.json"), "result.json cannot be read: Is a directory"),
        (lambda run: folder_of(run / "predictions.jsonl"), "predictions.jsonl cannot be read: Is a directory"),
        (put("result.json", b'{"schema": 1e999}'), "1e999 is too large for a number"),
    ],
)
def test_a_damaged_run_is_a_line_and_not_a_traceback(run: Path, damage: Callable[[Path], object], problem: str) -> None:
    damage(run)
    found = validate(run)
    assert any(problem in line for line in found), found
    assert all(line.startswith(f"{run}: ") and "\n" not in line and len(line) < 600 for line in found)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda r: r["task"]["protocol"].update(frames=32), "task.protocol was changed"),
        (lambda r: r.update(status="complete"), "status is complete, but data.n_failed is 3"),
        (lambda r: r.update(status="failed"), "status is failed, but data.n_scored is 12"),
        (lambda r: r["data"].update(n_scored=15), "data.n_scored is 15, but 12"),
        (lambda r: r["data"]["failures"].pop(), "data.failures differs from what is given"),
        (lambda r: r["scores"][0].update(ci95=[59.0, 61.0]), "accuracy ci95: stored [59.0, 61.0], recomputed"),
        (lambda r: r["scores"][0].update(bounds=[60.0, 60.0]), "accuracy bounds: stored"),
        (lambda r: r["task"].update(score="evalkit.metrics:acc"), "cannot be re-scored: score function"),
        (
            lambda r: r["task"].update(score="evalkit.metrics:retrieval"),
            "cannot be re-scored: retrieval: prediction",
        ),
        (lambda r: r.update(note="hello"), "'note' was unexpected"),
        (lambda r: r["provenance"].update(finished="2026-13-45T99:99:99+00:00"), "99+00:00, which is no time"),
    ],
)
def test_an_edited_result_is_found_out(run: Path, edit: Callable[[dict[str, Any]], object], problem: str) -> None:
    change(run, edit)
    found = validate(run)
    assert any(problem in line for line in found), found


def test_a_tree_of_runs_is_checked_and_each_problem_names_its_run(run: Path) -> None:
    rows = rows_of(3, 1)
    other = write(run.parents[1] / "other" / "run", result_of(rows), rows, "")
    hidden = run.parent / ".run.1234"
    hidden.mkdir()
    (hidden / "result.json").write_text("{")
    root = run.parents[2]
    assert validate(root) == []
    change(other, lambda result: result.update(chance="high"))
    (problem,) = validate(root)
    assert problem == f"{other}: result.json: chance: 'high' is not of type 'number', 'null'"
    assert validate(other / "result.json") == [problem]


def test_where_there_is_no_run_that_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="no run at or under"):
            validate(path)
    with pytest.raises(UserError, match="nothing: there is no such folder$"):
        load(tmp_path / "nothing")


def test_the_table_shows_differences_that_re_scoring_found(run: Path) -> None:
    change(run, lambda result: result["scores"][0].update(value=99.0))
    assert table(rescore(run)).endswith("  accuracy value: stored 99.0, recomputed 53.333333")
