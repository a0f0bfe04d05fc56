"""The protocol of MVEB: which examples, which frames, eight of each class, drawn anew by each seed."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evalkit import plugins
from evalkit.api import Task, Views
from evalkit.cli import main
from evalkit.datasets.protocols import MVEB_TASKS
from evalkit.results import validate
from tests.given import make, refusal
from tests.tasks.test_action_lists import hmdb51, ucf101
from tests.tasks.test_classification import diving, kinetics_lists, moments, something, write
from tests.tasks.test_kinetics import HEADER


def is_mveb(task: Task) -> bool:
    return (task.protocol, task.adapter, task.shots, task.views, task.settings, task.fold) == (
        "mveb",
        "logistic",
        8,
        Views("leading"),
        {"c": 1.0, "standardize": False},
        0,
    )


def test_ucf101_is_its_51_classes_with_sound_and_hmdb51_and_diving48_are_whole(tmp_path: Path) -> None:
    with_sound = plugins.module_and_factory("task", "ucf101")[0].WITH_SOUND.split()
    names = [f"Do{c:03d}Thing" for c in range(50)] + list(reversed(with_sound))
    for layout, settings in ((ucf101, {"names": names}), (hmdb51, {}), (diving, {})):
        layout(tmp_path, **settings)
    ucf, hmdb, diving48 = (make(name, tmp_path, protocol="mveb") for name in ("ucf101", "hmdb51", "diving48"))
    assert is_mveb(ucf) and is_mveb(hmdb) and is_mveb(diving48)
    assert ucf.classes == tuple(reversed(with_sound)) and len(ucf.test) == 51 and ucf.test[3].target == 3
    assert ucf.class_texts[0] == "Writing On Board" and ucf.sizes == {"train": (4_893, 4_897), "test": 1_944}
    assert len(hmdb.classes) == 51 and diving48.sizes == {"train": 15_027, "test": 1_970}
    assert refusal("ucf101", tmp_path, protocol="mveb", fold=2) == (
        "data.fold=2: data.protocol=mveb has split 1 alone; leave data.fold out"
    )


def test_the_clips_of_kinetics400_are_those_of_the_users_list(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        rows = [f"action {c:03d},{split}{c:03d},1,11,{split},0" for c in range(400)]
        write(tmp_path, {f"{split}.csv": [HEADER, *rows]})
    clips = ["train003_000001_000011", "val002_000001_000011.mp4", "test002_000001_000011"]
    write(tmp_path, {"mine.txt": clips})
    task = make("kinetics400", tmp_path, protocol="mveb", subset=tmp_path / "mine.txt")
    assert is_mveb(task) and [e.target for e in task.train] == [3] and [e.target for e in task.test] == [2, 2]
    assert task.sizes == {"train": 3_973, "test": 3_995} and len(task.classes) == 400
    write(tmp_path, {"mine.txt": [*clips, "other"]})
    assert refusal("kinetics400", tmp_path, protocol="mveb", subset=tmp_path / "mine.txt") == (
        f"{tmp_path / 'mine.txt'}, line 4: clip 'other' is in none of the lists of train, val and test"
    )


def test_a_list_that_is_missing_or_of_no_use_is_told(tmp_path: Path) -> None:
    kinetics_lists(tmp_path)
    told = refusal("kinetics400", tmp_path, protocol="mveb")
    assert "3,973" in told and "data.subset=FILE" in told
    assert "leave it out" in refusal("kinetics400", tmp_path, subset=tmp_path / "x.txt")


@pytest.mark.parametrize(("name", "layout"), [("ssv2", something), ("moments_in_time", moments)])
def test_a_task_that_mveb_has_not_is_told(name: str, layout: Any, tmp_path: Path) -> None:
    told = f"data.protocol=mveb is not available for {name}, only for {', '.join(MVEB_TASKS)}: "
    assert refusal(name, layout(tmp_path), protocol="mveb").startswith(told)
    assert refusal(name, mini=True, protocol="mveb").startswith(told)


SOURCE = """
from pathlib import Path
from evalkit.api import Example, Task, Views
from evalkit.metrics import top1_top5

def task(films: Path = Path("films")) -> Task:
    \"\"\"Films.

    Args:
        films: their folder.
    \"\"\"
    examples = [Example(f"{i}", films / f"{i:02d}.mp4", i % 2) for i in range(12)]
    return Task(examples[8:], top1_top5, examples[:8], classes=("a", "b"), protocol="mine", shots=2,
                views=Views("leading"), license="x", source="x")
"""


@pytest.mark.usefixtures("decoding_here")
def test_a_run_records_what_its_protocol_drew(
    films: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("few.py").write_text(SOURCE)
    words = ["task=./few.py", f"data.films={films}", "adapter=logistic", f"ckpt={tiny}", "controls=false", "seed=3"]
    assert main(["run", *words, "workers=1", "canary=false"]) == 0
    (file,) = Path("results").rglob("result.json")
    record = json.loads(file.read_text())
    protocol = record["task"]["protocol"]
    assert (protocol["shots"], protocol["shots_prescribed"], record["selection"]["n_train"]) == (2, True, 4)
    assert protocol["views"]["sampling"] == "leading" and record["selection"]["n_val"] == 2
    assert validate.validate(file.parent, [Path("few.py")]) == []


def test_all_of_train_is_drawn_from_and_the_users_own_number_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from evalkit.config.options import Trainer
    from evalkit.pipeline.training.fit import training_examples

    task = make("hmdb51", mini=True, protocol="mveb")
    experiment: Any = SimpleNamespace(task=task, adapter=SimpleNamespace(check_examples=lambda count: None))
    train, val = training_examples(experiment, Trainer(), seed=0)
    assert set(Counter(e.target for e in train).values()) == {8} and not {e.id for e in train} & {e.id for e in val}
    assert set(Counter(e.target for e in val).values()) == {1}
    other, _ = training_examples(experiment, Trainer(), seed=1)
    assert {e.id for e in other} != {e.id for e in train}
    few, _ = training_examples(experiment, Trainer(shots=2), seed=0)
    assert len(few) == 2 * len(task.classes)
