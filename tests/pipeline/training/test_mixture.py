"""Batches of one data set at a time, and the task that unites several."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evalkit.api import Example, Task, Views
from evalkit.config.options import Trainer
from evalkit.features.batches import InMemoryFeatures
from evalkit.features.sources import sources
from evalkit.metrics.classification import accuracy
from evalkit.pipeline.training.examples import Alternating, Examples, TrainingBatches
from evalkit.pipeline.training.fit import training_examples
from evalkit.runtime.ranks import Ranks
from tests.given import make, refusal, write

KINDS = ["a"] * 30 + ["b"] * 10 + ["c"] * 3


def order(seed: int = 0, **weights: float) -> Alternating:
    return Alternating(KINDS, weights, 4, torch.Generator().manual_seed(seed))


def test_each_batch_is_of_one_data_set_drawn_by_the_weights() -> None:
    batches = order(a=2, b=1, c=1)
    assert len(batches) == 11
    drawn: Counter[str] = Counter()
    for _ in range(40):
        for batch in batches:
            (kind,) = {KINDS[i] for i in batch}
            assert len(set(batch)) == len(batch) == (3 if kind == "c" else 4)
            drawn[kind] += 1
    assert sum(drawn.values()) == 440
    assert drawn["a"] == pytest.approx(220, abs=40) and drawn["b"] == pytest.approx(110, abs=35)


def test_each_example_of_a_data_set_comes_once_before_any_comes_again() -> None:
    batches = order(a=1)
    seen = [i for batch in batches for i in batch]
    assert len(seen) == 44 and len(set(seen[:28])) == 28


def test_the_order_is_the_seeds_alone_and_goes_on_from_epoch_to_epoch() -> None:
    one, two, other = order(a=1, b=1), order(a=1, b=1), order(1, a=1, b=1)
    epochs = [list(one), list(one)]
    assert epochs == [list(two), list(two)] and epochs[0] != epochs[1] and epochs[0] != list(other)


def test_several_processes_take_parts_of_the_same_batches() -> None:
    examples = [Example(str(i), Path(str(i)), 0, kind=kind) for i, kind in enumerate(KINDS)]
    index = {source: i for i, source in enumerate(sources(examples, Views()))}
    data = Examples(examples, InMemoryFeatures(torch.arange(43.0)[:, None]), index, mixture={"a": 1, "b": 3})
    alone = [[e.id for e in batch.examples] for batch in TrainingBatches(data, 4, 0)]
    parts = [
        [[e.id for e in batch.examples] for batch in TrainingBatches(data, 4, 0, Ranks(rank, 2))] for rank in range(2)
    ]
    assert [sorted(one + two) for one, two in zip(*parts, strict=True)] == [sorted(batch) for batch in alone]


def test_a_share_is_of_each_data_set_so_that_none_is_lost() -> None:
    sizes = {"a": 200, "b": 20, "c": 1}
    rows = [Example(f"{kind}{i}", Path(f"{kind}{i}"), 0, kind=kind) for kind in sizes for i in range(sizes[kind])]
    task = Task(test=(), score=accuracy, train=rows, val=rows, mixture=sizes, prepare_videos=lambda _: None)
    experiment: Any = SimpleNamespace(task=task, adapter=SimpleNamespace(check_examples=lambda count: None))
    for split in training_examples(experiment, Trainer(share=0.1), 0):
        assert Counter(example.kind for example in split) == {"a": 20, "b": 2, "c": 1}
    for split in training_examples(experiment, Trainer(share=1e-9), 0):
        assert Counter(example.kind for example in split) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("own_val", [False, True])
def test_each_data_set_without_a_val_split_has_a_tenth_of_its_training_videos(own_val: bool) -> None:
    rows = [Example(f"{kind}{i}", Path(f"{kind}{i}"), 0, kind=kind) for kind in "ab" for i in range(20)]
    val = [Example("v", Path("v"), 0, kind="a")] if own_val else []
    task = Task(test=(), score=accuracy, train=rows, val=val, mixture={"a": 1, "b": 1}, prepare_videos=lambda _: None)
    experiment: Any = SimpleNamespace(task=task, adapter=SimpleNamespace(check_examples=lambda count: None))
    train, chosen = training_examples(experiment, Trainer(), 0)
    assert Counter(e.kind for e in chosen) == ({"a": 1, "b": 2} if own_val else {"a": 2, "b": 2})
    assert [e.kind for e in chosen] == sorted(e.kind for e in chosen)  # in the mixture's order, in every process
    assert not {e.id for e in train} & {e.id for e in chosen} and len(train) + len(chosen) == 40 + own_val


# --- task=mixture ----------------------------------------------------------------------------------------------------


def test_a_mixture_has_the_examples_of_each_task_and_their_weights() -> None:
    task = make("mixture", of="msrvtt:2,youcook2_retrieval", mini=True)
    parts = {name: make(name, mini=True) for name in ("msrvtt", "youcook2_retrieval")}
    assert task.mixture == {"msrvtt": 2.0, "youcook2_retrieval": 1.0}
    for split in ("train", "test"):
        examples = getattr(task, split)
        assert Counter(e.kind for e in examples) == {name: len(getattr(of, split)) for name, of in parts.items()}
        assert all(e.id.startswith(f"{e.kind}/") and e.target[0].startswith(f"{e.kind}/") for e in examples)


def test_the_score_is_the_mean_over_the_tasks_and_each_kind_has_its_own() -> None:
    task = make("mixture", of="msrvtt:2,vatex", mini=True)
    targets: list[Any] = [e.target for e in task.test]
    ranks = {"msrvtt": 1.0, "vatex": 7.0}
    scores = task.score([{"t2v": ranks[e.kind], "v2t": ranks[e.kind]} for e in task.test], targets)
    assert (scores["t2v_R@1"], scores["t2v_R@10"], scores["v2t_R@5"]) == (50.0, 100.0, 50.0)
    members = [i for i, example in enumerate(task.test) if example.kind == "vatex"]
    headline: Any = scores["t2v_R@1"]
    assert headline.subset(members) == 0.0
    assert task.score(targets, targets)["t2v_R@1"] == 100.0


def test_each_task_reads_its_own_data_in_the_root(tmp_path: Path) -> None:
    write(tmp_path / "captions.csv", "path,caption,split\na.mp4,a ring,train\nb.mp4,a cross,test\n")
    task = make("mixture", tmp_path, of="retrieval")
    assert [(e.id, e.video) for e in task.train] == [("retrieval/a.mp4", tmp_path / "a.mp4")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"of": "msrvt"}, "no task named 'msrvt'. Did you mean one of 'msrvtt', 'msrvtt_qa', 'msrvtt_caption'?"),
        ({"of": "mixture"}, "no task named 'mixture'"),
        ({"of": ""}, "no task named ''"),
        ({"of": "./mine.py"}, "no task named './mine.py'"),
        ({"of": "msrvtt,msrvtt:2"}, "msrvtt is given twice"),
        ({"of": "msrvtt:0"}, "the weight of msrvtt is '0'; expected a number above 0"),
        ({"of": "msrvtt:many"}, "the weight of msrvtt is 'many'; expected a number above 0"),
        ({"of": "msrvtt:nan"}, "the weight of msrvtt is 'nan'; expected a number above 0"),
        ({"of": "kinetics400"}, "kinetics400 is not a retrieval task"),
    ],
)
def test_what_cannot_be_mixed_is_told(settings: dict[str, Any], message: str) -> None:
    assert message in refusal("mixture", mini=True, **settings)
