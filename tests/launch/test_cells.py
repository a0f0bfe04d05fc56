"""What the words of a sweep ask for: what becomes a grid point, and what a pass of its own."""

import pytest

from evalkit.errors import UserError
from evalkit.launch import cells


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("1e-4", ["1e-4"]),
        ("1e-4,3e-4", ["1e-4", "3e-4"]),
        ("[0.9,0.99],[0.9,0.999]", ["[0.9,0.99]", "[0.9,0.999]"]),
        ("(1,2)", ["(1,2)"]),
        ('"a,b",c', ["a,b", "c"]),
        ("'a,b'", ["a,b"]),
        ("", [""]),
    ],
)
def test_commas_count_outside_brackets_and_quotes(value: str, parts: list[str]) -> None:
    assert cells.split(value) == parts


def test_adapter_keys_make_points_and_all_others_passes() -> None:
    jobs, planned = cells.plan(
        ["task=kinetics400", "mini=true", "ckpt=demo,random:vivit_demo", "adapter.lr=1e-4,3e-4", "jobs=2"]
        + ["adapter.weight_decay=0,1e-2", "adapter.epochs=2", "seed=0,1"]
    )
    assert jobs.count == 2 and len(planned) == 4
    assert {(cell.config.options.ckpt, cell.config.options.seed) for cell in planned} == {
        (ckpt, seed) for ckpt in ("demo", "random:vivit_demo") for seed in (0, 1)
    }
    for cell in planned:
        assert [(p["lr"], p["weight_decay"]) for p in cell.config.points] == [
            (1e-4, 0.0),
            (1e-4, 1e-2),
            (3e-4, 0.0),
            (3e-4, 1e-2),
        ]
        assert cell.config.adapter == {"epochs": 2}
        assert "adapter.lr=3e-4" in cell.points[3] and "adapter.epochs=2" in cell.points[3]
        ((_, again),) = [cells.plan(cell.words)]
        assert [one.config for one in again] == [cell.config]


def test_the_order_of_keys_changes_neither_a_pass_nor_its_points() -> None:
    words = ["task=kinetics400", "mini=true", "ckpt=demo", "adapter.weight_decay=0,1e-2", "adapter.lr=1e-4,3e-4"]
    (_, (one,)), (_, (other,)) = cells.plan(words), cells.plan(words[::-1])
    assert one.config.to_yaml() == other.config.to_yaml() and one.config.points == other.config.points
    assert [set(point) for point in one.points] == [set(point) for point in other.points]
    assert next(iter(one.config.points[0])) == "weight_decay" and next(iter(other.config.points[0])) == "lr"  # drawn


def test_cache_folders_with_commas_are_one_value() -> None:
    _, (cell,) = cells.plan(["task=kinetics400", "mini=true", "ckpt=demo", "cache.also=/a,/b"])
    assert cell.config.options.cache_also == "/a,/b" and cells.plan(cell.words)[1][0].config == cell.config


def test_one_value_alone_is_a_plain_run() -> None:
    _, (cell,) = cells.plan(["task=kinetics400", "mini=true", "ckpt=demo", "adapter.lr=1e-4"])
    assert cell.config.points == () and cell.config.adapter == {"lr": 1e-4} and len(cell.points) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["task=kinetics400", "ckpt=demo", "adapter.lr=1e-4,"], "adapter.lr=1e-4,: a value between commas is empty"),
        (["task=kinetics400", "ckpt=demo", "adapter.lr=1e-4,x"], "adapter.lr=x: expected a number"),
        (["task=kinetics400", "ckpt=demo", "adaptr.lr=1,2"], "unknown key 'adaptr.lr'. Did you mean 'adapter.lr'?"),
        (["task=kinetics400", "ckpt=demo", "jobs=0"], "jobs=0: expected a whole number above 0"),
        (["task=kinetics400", "ckpt=demo", "seed=1", "seed=2"], "seed is given twice"),
        (["task"], "expected key=value, got 'task'"),
    ],
)
def test_a_wrong_word_is_told_before_anything_runs(words: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        cells.plan(words)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("value", ["1e-4", "a,b", 'Größe, "so"', "it's, so", "[1,2]", "'a'", "a\\b, c"])
def test_a_value_means_the_same_to_the_sweep_of_a_single_pass(value: str) -> None:
    assert cells.split(cells._quoted(value)) == [value]


def test_trained_adapters_are_passes_and_not_grid_points() -> None:
    _, planned = cells.plan(["task=egoschema", "mini=true", "ckpt=demo", "adapter.from=none,x"])
    assert [cell.config.options.adapter_from for cell in planned] == ["none", "x"]


def test_values_of_an_adapter_that_nothing_is_fitted_of_are_passes() -> None:
    _, planned = cells.plan(["task=egoschema", "mini=true", "ckpt=none", "adapter.scorer=likelihood,letter"])
    assert [cell.config.adapter["scorer"] for cell in planned] == ["likelihood", "letter"]
    assert not any(cell.config.points for cell in planned)
