"""The printed numbers, where they are put beside measured ones."""

import importlib

import pytest

from evalkit import plugins
from evalkit.datasets.published import SOURCES, published_numbers, rows
from evalkit.datasets.suites import Suite, nearest_published
from evalkit.metrics import wups
from tests.given import make

VIDEOGLUE = {"stratified_mean", "videoglue_score", "trainable_gflops"}  # of several tasks together


def test_every_number_is_of_a_task_that_exists_and_an_entry_of_its_score(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = published_numbers()
    assert {number.task for number in numbers} - {"videoglue"} <= set(plugins.names("task"))
    assert {number.metric for number in numbers if number.task == "videoglue"} == VIDEOGLUE
    module = importlib.import_module("evalkit.metrics.text.wups")
    monkeypatch.setattr(module, "_nltk", lambda: None)
    monkeypatch.setattr(module, "wordnet", lambda: None)
    entries = {("nextqa_open", ""): set(wups([], []))}  # the miniature, which needs no WordNet, has another score
    for number in numbers:
        setting = number.setting
        if number.task != "videoglue" and (number.task, setting) not in entries:
            word, _, value = setting.removeprefix("data.").partition("=")
            task = make(number.task, mini=True, **({word: value} if word else {}))
            targets = [example.target for example in task.test[:4]]
            entries[number.task, setting] = set(task.score(targets, targets))
        assert number.task == "videoglue" or number.metric in entries[number.task, setting], number


def test_a_number_of_one_setting_of_a_task_names_it() -> None:
    assert rows("activitynet_captions", "ROUGE-L", "fine-tuned")["LongViViT"] == 24.0
    assert rows("activitynet_captions", "CIDEr", "fine-tuned")["ShortViViT-L"] == 44.8
    settings = {n.metric: n.note for n in published_numbers() if n.task == "activitynet_captions"}
    assert settings["ROUGE-L"] == "data.what=paragraph"


@pytest.mark.parametrize(
    ("task", "metric", "adaptation", "protocol"),
    [
        ("ava", "mAP", "frozen", "videoglue_truth"),
        ("ava_kinetics", "mAP", "frozen", "videoprism_truth"),
        ("activitynet_captions", "CIDEr", "fine-tuned", "given"),
    ],
)
def test_a_protocol_that_asks_for_something_else_has_no_numbers(
    task: str, metric: str, adaptation: str, protocol: str
) -> None:
    assert rows(task, metric, adaptation) and rows(task, metric, adaptation, "val", "videoglue")
    assert rows(task, metric, adaptation, "val", protocol) == {}


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


def test_what_depends_on_the_rest_of_the_test_has_no_number_beside_it() -> None:
    task = {"name": "msrvtt", "split": "1k-A", "protocol": {}}
    record = {"task": task, "encoder": {"ckpt": "x", "parameters": 1}, "scores": [{"metric": "t2v_R@1"}]}
    suite = Suite({}, sizes={1: [next(iter(rows("msrvtt", "t2v_R@1", "zero-shot", "1k-A")))]})
    assert nearest_published(suite, "zero-shot", record)[0]
    task["protocol"] = {"transductive": True}
    assert nearest_published(suite, "zero-shot", record) == ("", "")


def test_what_was_re_ranked_stands_beside_what_was_re_ranked_alone() -> None:
    assert rows("msrvtt", "t2v_R@1", "zero-shot, re-ranked") == {"InternVideo2-s2-1B": 51.9, "UMT-L 25M": 40.7}
    assert not {"InternVideo2-s2-1B", "UMT-L 25M"} & rows("msrvtt", "t2v_R@1", "zero-shot").keys()


def test_an_unknown_task_has_none() -> None:
    assert rows("folder", "top1", "frozen") == {}
