import functools
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.metrics.bootstrap import interval
from evalkit.metrics.classification import accuracy, top1_top5
from evalkit.metrics.retrieval import retrieval
from evalkit.results.rows import Row
from evalkit.results.scores import reference, resolve, scores
from tests.records import MISSING, PLUGIN, rows_of


def test_every_labeled_example_counts_and_a_failed_one_is_wrong() -> None:
    rows = rows_of(60, 30, failed=10, unlabeled=7)
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
    assert scores(accuracy, rows_of(0, 0, unlabeled=5), seed=0) == []
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
        Row(f"q{i}", f"v{i}", "even" if i % 2 == 0 else "odd", i, {"t2v": int(rank), "v2t": 1})
        for i, rank in enumerate(rng.integers(1, 20, size=30))
    ]
    rows += [Row(f"f{i}", f"f{i}", "odd", i, failure=MISSING) for i in range(10)]

    def mean_rank(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
        return {"mean_rank": np.array(retrieval(predictions, targets)["t2v_mean_rank"])}

    found = scores(mean_rank, rows, seed=0)
    assert [entry["metric"] for entry in found] == ["mean_rank", "mean_rank/even", "mean_rank/odd"]
    ranks = [row.prediction["t2v"] for row in rows[:30]]
    assert found[0]["bounds"] == [round((sum(ranks) + 400) / 40, 6), round((sum(ranks) + 10) / 40, 6)]
    assert found[0]["ci95"][0] < found[0]["value"] < found[0]["ci95"][1]
    assert found[1]["bounds"] == [round(np.mean(ranks[::2]), 6)] * 2 and found[1]["n"] == 15
    (odd,) = scores(
        mean_rank, [Row(r.id, r.video, "", r.target, r.prediction) for r in rows if r.kind == "odd"], seed=0
    )
    assert found[2] == {**odd, "metric": "mean_rank/odd"}


def test_retrieval_gives_rates_and_ranks_in_one_result() -> None:
    rows = [Row(f"q{i}", f"v{i}", target=i, prediction={"t2v": 1.0 + i % 3, "v2t": 1}) for i in range(30)]
    found = {entry["metric"]: entry for entry in scores(retrieval, rows, seed=0)}
    metrics = ("R@1", "R@5", "R@10", "median_rank", "mean_rank")
    assert list(found) == [f"{way}_{metric}" for way in ("t2v", "v2t") for metric in metrics]
    assert found["t2v_R@1"]["value"] == 33.333333 and found["t2v_mean_rank"]["value"] == 2.0
    assert found["t2v_mean_rank"]["ci95"][0] < 2.0 < found["t2v_mean_rank"]["ci95"][1]


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
    assert resolve(reference(score), [file.resolve()]) is score
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
        ("evalkit.no_such:accuracy", "no score functions in evalkit.no_such"),
        ("evalkit.metrics.text.no_such:accuracy", "no score functions in evalkit.metrics.text.no_such"),
        ("/no/such/file.py:score", "unverified: .* task file /no/such/file.py"),
        ("accuracy", "not part of evalkit"),
        ("", "not part of evalkit"),
    ],
)
def test_an_unknown_score_function_is_a_plain_error(name: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        resolve(name)


@pytest.mark.parametrize(
    "name",
    [
        "subprocess:call",
        "os:system",
        f"{subprocess.__file__}:call",
        "evalkit.results.provenance:version",
        "evalkit.api:Path",
    ],
)
def test_a_result_cannot_name_and_so_call_just_any_function(name: str) -> None:
    with pytest.raises(UserError):
        resolve(name)
