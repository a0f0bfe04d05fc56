"""The printed numbers, where they are put beside measured ones."""

from evalkit.datasets.published import SOURCES, published_numbers, rows


def test_every_number_has_a_source_and_stands_once() -> None:
    assert {number.source for number in published_numbers()} == SOURCES.keys()
    once = [(n.source, n.table, n.row, n.task, n.split, n.adaptation, n.metric, n.note) for n in published_numbers()]
    assert len(set(once)) == len(once)


def test_rates_are_in_percent() -> None:
    rates = [n for n in published_numbers() if n.metric not in ("trainable_gflops", "CIDEr")]
    assert all(0 < n.value < 100 for n in rates)


def test_rows_give_one_value_per_model() -> None:
    found = rows("kinetics400", "top1", "frozen")
    assert found["VideoPrism-B"] == 84.2
    assert found["VideoMAE-B"] == 65.1
    assert found["CLIP-B"] == 75.2  # and not the one of a share of the training data
    assert rows("egoschema", "accuracy", "zero-shot", "subset")["LongViViT"] == 56.8
    assert rows("egoschema", "accuracy", "zero-shot", "full")["LongViViT"] == 33.3


def test_an_unknown_task_has_none() -> None:
    assert rows("folder", "top1", "frozen") == {}
