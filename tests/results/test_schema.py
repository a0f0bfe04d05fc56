import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evalkit
from evalkit.results.schema import digest, parse, plain, violations
from tests.records import minimal_of, result_of, rows_of


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


def test_the_schema_itself_is_valid() -> None:
    from jsonschema import Draft202012Validator

    file = Path(evalkit.__file__).parent / "results" / "result.schema.json"
    Draft202012Validator.check_schema(json.loads(file.read_text()))


def test_a_full_and_a_minimal_result_validate() -> None:
    assert violations(FULL) == []
    assert violations(valid(minimal_of(rows_of(2, 1)))) == []
    assert violations(valid(minimal_of(rows_of(0, 0, unlabeled=3)))) == []


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


def test_plain_settings_have_one_digest_whatever_their_order_and_container() -> None:
    assert digest({"a": (1, 2), "b": np.float64(0.5)}) == digest({"b": 0.5, "a": [1, 2]})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert plain({"path": Path("a") / "b"}) == {"path": "a/b"}


def test_lists_of_any_kind_become_plain_and_are_copies() -> None:
    for value in ([1, "a", None, True], (0.5, 1.5), [], [1, 0.5], [[1], [0.5]]):
        assert plain(value) == json.loads(json.dumps(value))
    assert plain([1.0, math.nan, math.inf]) == [1.0, None, None] == plain((1.0, math.nan, np.float32("inf")))
    assert [type(one) for one in plain([np.int64(1), np.bool_(True), np.float64(2)])] == [int, bool, float]
    kept = [0.5]
    assert plain(kept) is not kept


def test_blanks_around_json_are_part_of_it() -> None:
    assert parse(' \n{"a": [1, 2.5]}\n') == {"a": [1, 2.5]} == parse('{"a": [1, 2.5]}')
