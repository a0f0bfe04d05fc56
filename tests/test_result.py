import copy
import errno
import functools
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evalkit.result
from evalkit.api import UserError
from evalkit.metrics import accuracy, retrieval, top1_top5
from evalkit.result import (
    Row,
    digest,
    load,
    load_rows,
    plain,
    reference,
    rescore,
    resolve,
    run_id,
    scores,
    table,
    tally,
    validate,
    write,
)
from evalkit.statistics import interval

MISSING = "no such file"


def rows_of(right: int, wrong: int, failed: int = 0, unlabelled: int = 0) -> list[Row]:
    """Rows with three examples per video, in that order."""
    rows = [Row(f"q{i}", f"v{i // 3}", target=1, prediction=1) for i in range(right)]
    rows += [Row(f"q{right + i}", f"v{(right + i) // 3}", target=1, prediction=0) for i in range(wrong)]
    rows += [Row(f"f{i}", f"x{i // 3}", target=1, failure=MISSING) for i in range(failed)]
    return rows + [Row(f"u{i}", f"u{i // 3}", prediction=0) for i in range(unlabelled)]


def result_of(rows: Sequence[Row], score: Callable[..., Any] = accuracy, seed: int = 0) -> dict[str, Any]:
    """A full result, but for the two hashes that `write` adds."""
    counts = tally(rows)
    return {
        "schema": 1,
        "status": "partial" if counts["n_failed"] else "complete",
        "task": {
            "name": "egoschema@mini",
            "version": 1,
            "split": "test",
            "score": reference(score),
            "protocol": {"sampling": "uniform", "frames": 16},
            "published": {"ShortViViT": 47.9, "LongViViT": 56.8},
        },
        "encoder": {
            "name": "demo",
            "ckpt": "demo",
            "sha256": "0" * 64,
            "architecture": "vivit",
            "clip": {"frames": 16, "size": 64},
            "parameters": 1_234_567,
            "settings": {"masking": 0.75},
        },
        "adapter": {"name": "multiple_choice", "settings": {"pooling": "mean"}, "trainable_parameters": 4321},
        "data": {"fingerprint": "abc", **counts},
        "scores": scores(score, rows, seed),
        "chance": 20.0,
        "controls": [{"name": "blind", "metric": "accuracy", "value": 22.5}],
        "selection": {"grid": [{"lr": 0.1}], "chosen": {"lr": 0.1}, "val_score": 50.0},
        "cost": {
            "decode_s": 1.5,
            "encode_s": 2.0,
            "fit_s": 0.0,
            "score_s": 0.1,
            "encoder_forwards": 10,
            "cache_hits": 0,
            "cache_misses": 10,
            "peak_memory_bytes": 10**9,
            "wall_s": 4,
        },
        "provenance": {
            "command": "evalkit run task=egoschema",
            "git_commit": None,
            "dirty": None,
            "packages": {"numpy": "2.4.6"},
            "python": "3.11.9",
            "platform": "Linux",
            "device": "cpu",
            "decoder": "decord2 3.4.0",
            "seed": seed,
            "started": "2026-01-31T23:59:59+00:00",
            "finished": "2026-02-01T00:00:59+00:00",
        },
    }


def minimal_of(rows: Sequence[Row]) -> dict[str, Any]:
    """A result without anything that is optional or may be unknown."""
    result = result_of(rows)
    del result["task"]["published"], result["encoder"]["settings"]
    result["encoder"]["sha256"] = result["encoder"]["parameters"] = result["chance"] = result["selection"] = None
    result["controls"] = []
    return result


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = rows_of(8, 4, failed=3)
    return write(tmp_path / "results" / "demo" / "egoschema@mini" / "run", result_of(rows), rows, "task: egoschema\n")


# --- rows


def test_a_row_equals_what_is_read_back() -> None:
    import torch

    row = Row(
        "q\u2028\n1",
        "caf\u00e9/\udcff.mp4",
        target=np.int64(3),
        prediction=(torch.tensor(2), np.float32(0.5), {"boxes": np.ones((2, 2)), 3: torch.tensor([1.0])}),
        detail={"logp": [-math.inf, math.nan, np.float64(-1.25)], "right": np.bool_(True)},
        decoder="av 18.1.0",
    )
    line = row.json()
    assert "\n" not in line and line.isascii()
    assert Row.parse(line) == row
    assert row.target == 3 and type(row.target) is int
    assert row.prediction == [2, 0.5, {"boxes": [[1.0, 1.0], [1.0, 1.0]], "3": [1.0]}]
    assert row.detail == {"logp": [None, None, -1.25], "right": True}


def test_a_nan_prediction_is_a_failed_one() -> None:
    assert Row("q", "v", target=1, prediction=math.nan).prediction is None
    assert tally([Row("q", "v", prediction=np.float32("nan"))])["failures"] == [{"id": "q", "reason": "no prediction"}]


def test_what_json_cannot_hold_is_refused_with_the_examples_id() -> None:
    with pytest.raises(UserError, match="^prediction of example 'q7': a result cannot hold set"):
        Row("q7", "v", prediction=[{1, 2}])


def test_a_row_is_not_both_predicted_and_failed() -> None:
    with pytest.raises(ValueError, match="'q7' has both"):
        Row("q7", "v", prediction=1, failure="broken file")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[]", "not of type 'object'"),
        ('{"id": "q"}', "required"),
        (Row("q", "v").json().replace('"kind"', '"knid"'), "knid"),
        (Row("q", "v").json().replace('"v"', "7"), "video: 7 is not of type 'string'"),
        (Row("q", "v", prediction=1).json().replace("1", "NaN"), "NaN is not JSON"),
    ],
)
def test_a_line_that_is_no_row_is_refused(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Row.parse(line)


# --- scores


def test_every_labelled_example_counts_and_a_failed_one_is_wrong() -> None:
    rows = rows_of(60, 30, failed=10, unlabelled=7)
    (entry,) = scores(accuracy, rows, seed=4)
    low, high = interval([1.0] * 60 + [0.0] * 40, [row.video for row in rows[:100]], seed=4)
    assert entry == {
        "metric": "accuracy",
        "value": 60.0,
        "ci95": [round(100 * low, 6), round(100 * high, 6)],
        "n": 100,
        "n_clusters": 34,
        "bounds": [60.0, 70.0],
    }


def test_with_496_of_500_failed_the_bounds_differ_by_99_2() -> None:
    (entry,) = scores(accuracy, rows_of(3, 1, failed=496), seed=0)
    assert entry["bounds"] == [0.6, 99.8]
    assert entry["n"] == 500


def test_without_labels_there_is_no_score() -> None:
    assert scores(accuracy, rows_of(0, 0, unlabelled=5), seed=0) == []
    assert scores(accuracy, [], seed=0) == []


def test_the_headline_is_also_given_per_kind() -> None:
    rows = [
        Row(f"q{i}", f"v{i}", kind=kind, target=0, prediction=prediction)
        for i, (kind, prediction) in enumerate(
            [("order", [0, 1]), ("object", [1, 0]), ("order", [0, 1]), ("order", None), ("", [0, 1])]
        )
    ]
    found = {entry["metric"]: entry for entry in scores(top1_top5, rows, seed=0)}
    assert list(found) == ["top1", "top5", "top1/object", "top1/order"]
    assert (found["top1"]["value"], found["top5"]["value"]) == (60.0, 80.0)
    assert found["top1/order"]["value"] == 66.666667 and found["top1/order"]["bounds"] == [66.666667, 100.0]
    assert found["top1/order"]["n"] == 3 and found["top1/object"]["ci95"] == [0.0, 97.5]


def test_a_score_over_the_whole_split_gets_interval_bounds_and_kinds_too() -> None:
    rng = np.random.default_rng(0)
    rows = [
        Row(f"q{i}", f"v{i}", "even" if i % 2 == 0 else "odd", i, {"rank": int(rank)})
        for i, rank in enumerate(rng.integers(1, 20, size=30))
    ]
    rows += [Row(f"f{i}", f"f{i}", "odd", i, failure=MISSING) for i in range(10)]

    def mean_rank(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
        return {"mean_rank": np.array(retrieval(predictions, targets)["mean_rank"])}

    found = scores(mean_rank, rows, seed=0)
    assert [entry["metric"] for entry in found] == ["mean_rank", "mean_rank/even", "mean_rank/odd"]
    ranks = [row.prediction["rank"] for row in rows[:30]]
    assert found[0]["bounds"] == [round((sum(ranks) + 400) / 40, 6), round((sum(ranks) + 10) / 40, 6)]
    assert found[0]["ci95"][0] < found[0]["value"] < found[0]["ci95"][1]
    assert found[1]["bounds"] == [round(np.mean(ranks[::2]), 6)] * 2 and found[1]["n"] == 15
    (odd,) = scores(
        mean_rank, [Row(r.id, r.video, "", r.target, r.prediction) for r in rows if r.kind == "odd"], seed=0
    )
    assert found[2] == {**odd, "metric": "mean_rank/odd"}


def test_retrieval_gives_rates_and_ranks_in_one_result() -> None:
    rows = [Row(f"q{i}", f"v{i}", target=i, prediction={"rank": 1.0 + i % 3}) for i in range(30)]
    found = {entry["metric"]: entry for entry in scores(retrieval, rows, seed=0)}
    assert list(found) == ["R@1", "R@5", "R@10", "median_rank", "mean_rank"]
    assert found["R@1"]["value"] == 33.333333 and found["mean_rank"]["value"] == 2.0
    assert found["mean_rank"]["ci95"][0] < 2.0 < found["mean_rank"]["ci95"][1]


def test_an_undefined_number_is_none() -> None:
    (entry,) = scores(lambda p, t: {"mAP": math.nan}, rows_of(3, 3), seed=0)
    assert (entry["value"], entry["ci95"], entry["bounds"]) == (None, [None, None], [None, None])


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ([0.5] * 4, "must return a dictionary"),
        ({}, "must return a dictionary"),
        ({"accuracy": [1.0, 0.0]}, "one number in 0..1 for each of the 4 examples"),
        ({"accuracy": [100.0, 0.0, 0.0, 0.0]}, "0..1"),
        ({"accuracy": [math.nan, 0.0, 0.0, 0.0]}, "0..1"),
        ({"accuracy": [[1.0]] * 4}, "0..1"),
        ({"accuracy": [[1.0], [], [], []]}, "0..1"),
        ({"accuracy": "good"}, "0..1"),
        ({"accuracy": [1.0, 1.0, 1.0, 1.0]}, "gives 'accuracy' another value than 0 to a failed example"),
        ({"accuracy": [1.0, 1.0, 1.0, 0.0]}, "another value than 1 to a target in place of a prediction"),
    ],
)
def test_a_score_function_that_breaks_its_contract_is_named(returned: Any, problem: str) -> None:
    def my_score(predictions: Sequence[Any], targets: Sequence[Any]) -> Any:
        return returned

    with pytest.raises(UserError, match=r"my_score.*" + problem):
        scores(my_score, rows_of(2, 1, failed=1), seed=0)


# --- the score function by name

PLUGIN = '''
from evalkit.metrics import accuracy

def score(predictions, targets):
    return {"half": [value / 2 if p != t else value for value, p, t in zip(accuracy(predictions, targets)["accuracy"],
                                                                           predictions, targets)]}

def task():
    """Mine."""
'''


def local(predictions: Any, targets: Any) -> dict[str, float]:
    return {}


def test_a_score_function_of_evalkit_is_found_by_its_module() -> None:
    assert reference(accuracy) == "evalkit.metrics:accuracy"
    assert resolve("evalkit.metrics:accuracy") is accuracy


def test_a_score_function_of_a_tasks_file_is_found_by_its_path(tmp_path: Path) -> None:
    from evalkit.plugins import factory

    file = tmp_path / "my:task.py"
    file.write_text(PLUGIN)
    score = factory("task", str(file)).__globals__["score"]
    assert reference(score) == f"{file.resolve()}:score"
    assert resolve(reference(score)) is score
    assert reference(factory("task", str(file)).__globals__["accuracy"]) == "evalkit.metrics:accuracy"


@pytest.mark.parametrize(
    "function",
    [lambda p, t: {}, functools.partial(accuracy), local, Row.json, len],
    ids=["lambda", "partial", "no task file", "method", "builtin"],
)
def test_a_score_function_that_re_scoring_could_not_find_is_refused(function: Any) -> None:
    with pytest.raises(UserError, match="define .*task's"):
        reference(function)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("evalkit.metrics:acuracy", "defines no function 'acuracy'"),
        ("evalkit.no_such:accuracy", "No module named 'evalkit.no_such'"),
        ("/no/such/file.py:score", "no task file '/no/such/file.py'"),
        ("accuracy", "not part of evalkit"),
        ("", "not part of evalkit"),
    ],
)
def test_an_unknown_score_function_is_a_plain_error(name: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        resolve(name)


@pytest.mark.parametrize(
    "name",
    ["subprocess:call", "os:system", f"{subprocess.__file__}:call", "evalkit.provenance:version", "evalkit.api:Path"],
)
def test_a_result_cannot_name_and_so_call_just_any_function(name: str) -> None:
    with pytest.raises(UserError):
        resolve(name)


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
import evalkit.result
name, call, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
result, rows = pickle.load(sys.stdin.buffer)
owner = Path if name in ("rename", "mkdir", "write_text", "write_bytes") else os
real, calls = getattr(owner, name), iter(range(99))
def killed(*args, **settings):
    if next(calls) == call:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **settings)
setattr(owner, name, killed)
evalkit.result.write(folder, result, rows, "config: 1\\n")
"""


@pytest.mark.parametrize(
    ("name", "call", "whole"),
    [("write_text", 0, False), ("write_text", 1, False), ("fsync", 3, False), ("rename", 0, False), ("fsync", 4, True)],
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


# --- the schema


def valid(result: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(result)
    result["task"]["protocol_sha256"] = result["data"]["predictions_sha256"] = "0" * 64
    return result


FULL = valid(result_of(rows_of(8, 4, failed=3)))
OPTIONAL = {("task", "published"), ("encoder", "settings")}
OPEN = {
    ("task", "protocol"),
    ("encoder", "clip"),
    ("encoder", "settings"),
    ("adapter", "settings"),
    ("selection", "grid"),
}
OPEN |= {("selection", "chosen"), ("provenance", "packages"), ("task", "published")}


def keys(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every key whose name the schema fixes; of a list only the first entry."""
    if path in OPEN:
        return []
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    found = []
    for key, child in inner:
        if isinstance(value, dict):
            found.append((*path, key))
        found += keys(child, (*path, key))
    return found


def at(result: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        result = result[key]
    return result


def violations(result: Any) -> list[str]:
    return evalkit.result._violations(result)


def test_the_schema_itself_is_valid() -> None:
    from jsonschema import Draft202012Validator

    file = Path(evalkit.result.__file__).parent / "result.schema.json"
    Draft202012Validator.check_schema(json.loads(file.read_text()))


def test_a_full_and_a_minimal_result_validate() -> None:
    assert violations(FULL) == []
    assert violations(valid(minimal_of(rows_of(2, 1)))) == []
    assert violations(valid(minimal_of(rows_of(0, 0, unlabelled=3)))) == []


@pytest.mark.parametrize("path", keys(FULL), ids=lambda path: ".".join(str(key) for key in path))
def test_each_removed_misnamed_or_mistyped_key_is_caught(path: tuple[Any, ...]) -> None:
    *parents, key = path
    removed, misnamed, mistyped = (copy.deepcopy(FULL) for _ in range(3))
    del at(removed, tuple(parents))[key]
    assert bool(violations(removed)) is (path not in OPTIONAL)
    inside = at(misnamed, tuple(parents))
    inside[f"{key}x"] = inside.pop(key)
    assert violations(misnamed)
    at(mistyped, tuple(parents))[key] = True if not isinstance(at(FULL, path), bool) else "yes"
    if path[-1] == "dirty":
        at(mistyped, tuple(parents))[key] = "no"
    assert violations(mistyped)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("scores", 0, "ci95"), [1.0], "scores.0.ci95: "),
        (("status",), "done", "status: 'done' is not one of"),
        (("provenance", "started"), "yesterday", "provenance.started: "),
        (("data", "n_failed"), -1, "data.n_failed: -1 is less than"),
    ],
)
def test_a_violation_names_the_key(path: tuple[Any, ...], value: Any, problem: str) -> None:
    changed = copy.deepcopy(FULL)
    at(changed, path[:-1])[path[-1]] = value
    assert violations(changed)[0].startswith(problem)


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
from evalkit.result import rescore, table, validate
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
    assert validate(run) == []
    moved = file.rename(tmp_path / "moved.py")
    assert validate(run) == [f"{run}: cannot be re-scored: no task file {str(file.resolve())!r}"]
    moved.rename(file)


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
        (cut("predictions.jsonl", 200), "predictions.jsonl line 1: cut off in its last line"),
        (put("result.json", b"\xff\xfe"), "result.json: 'utf-8' codec can't decode"),
        (put("result.json", b"[1]"), "result.json: not a JSON object"),
        (put("result.json", b'{"schema": NaN}'), "NaN is not JSON"),
        (put("result.json", b"[" * 100_000), "RecursionError"),
        (put("result.json", b"{}"), "result.json: 'adapter' is a required property"),
        (put("predictions.jsonl", b"\n\n"), "predictions.jsonl line 1 is not JSON"),
        (put("predictions.jsonl", b'{"id": "q"}\n'), "predictions.jsonl line 1: 'video' is a required property"),
        (lambda run: (run / "predictions.jsonl").unlink(), "no predictions.jsonl"),
        (lambda run: (run / "result.json").unlink(), "no result.json"),
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
        (lambda r: r["task"].update(score="evalkit.metrics:retrieval"), "cannot be re-scored: retrieval: prediction"),
        (lambda r: r.update(note="hello"), "'note' was unexpected"),
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
    with pytest.raises(UserError, match=r"nothing: no result\.json$"):
        load(tmp_path / "nothing")


def test_plain_settings_have_one_digest_whatever_their_order_and_container() -> None:
    assert digest({"a": (1, 2), "b": np.float64(0.5)}) == digest({"b": 0.5, "a": [1, 2]})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert plain({"path": Path("a") / "b"}) == {"path": "a/b"}


# --- the table


def test_the_table_says_what_was_run_what_it_scores_and_what_failed() -> None:
    rows = [*rows_of(8, 4, failed=3), Row("g", "g", target=1, failure="cannot be decoded: moov atom not found")]
    assert table(result_of(rows)).splitlines() == [
        "task     egoschema@mini, test, version 1",
        "encoder  demo, 1.2 M parameters",
        "adapter  multiple_choice, 4,321 trainable",
        "status   partial: 4 of 16 examples failed, counted as wrong",
        "",
        "                         score   95 % interval   examples   videos         bounds",
        "accuracy                  50.0    12.5 to 85.7         16        6   50.0 to 75.0",
        "",
        "chance                    20.0",
        "blind (control)           22.5",
        "ShortViViT (published)    47.9",
        "LongViViT (published)     56.8",
        "",
        "failed (bounds: with all of them wrong, with all of them right)",
        "  3  no such file  (f0, f1, f2)",
        "  1  cannot be decoded: moov atom not found  (g)",
    ]


def test_the_table_of_a_run_without_labels_or_failures_says_so() -> None:
    text = table(minimal_of(rows_of(0, 0, unlabelled=3)))
    assert "no score: no test example has a public answer" in text and "failed" not in text
    assert "status   complete" in text and "unknown parameters" in text


def test_the_table_shows_an_unknown_number_as_a_dash_and_keeps_brackets() -> None:
    result = result_of(rows_of(3, 1))
    result["task"]["name"] = "[bold]x[/bold]"
    result["scores"][0].update(value=None, ci95=[None, None])
    result["chance"] = None
    text = table(result)
    assert "[bold]x[/bold]" in text
    assert [line.split() for line in text.splitlines() if line.startswith(("accuracy", "chance"))] == [
        ["accuracy", "-", "-", "4", "2"],
        ["chance", "-"],
    ]


def test_the_table_shows_differences_that_re_scoring_found(run: Path) -> None:
    change(run, lambda result: result["scores"][0].update(value=99.0))
    assert table(rescore(run)).endswith("  accuracy value: stored 99.0, recomputed 53.333333")


def test_the_table_can_be_printed_whatever_a_file_is_called() -> None:
    rows = [*rows_of(1, 1), Row("clip\udcff.mp4", "v", target=1, failure="broken")]
    assert r"clip\udcff.mp4" in table(result_of(rows)).encode().decode()


def test_many_reasons_are_cut_to_the_most_frequent() -> None:
    rows = rows_of(1, 0, failed=496) + [Row(f"r{i}", "v", target=1, failure=f"reason {i}") for i in range(30)]
    tail = table(result_of(rows)).splitlines()[-6:]
    assert tail[0] == "  496  no such file  (f0, f1, f2, ...)"
    assert tail[-1] == "   26  for 26 other reasons"
