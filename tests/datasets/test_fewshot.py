"""Few-shot takes the same seeded examples of each class whatever stands around them, and the record says how many."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evalkit.api import Example
from evalkit.cli import main
from evalkit.datasets.fewshot import few_shot, share_of
from evalkit.errors import UserError
from evalkit.results import run_folder, validate

pytestmark = pytest.mark.usefixtures("decoding_here")

CLASSES = ("cat", "dog", "owl")
EXAMPLES = [Example(f"v{i:02d}", Path(f"v{i:02d}.mp4"), i % 3) for i in range(30)]


def ids(examples: list[Example]) -> list[str]:
    return [example.id for example in examples]


def test_each_class_gets_so_many_in_the_order_in_which_they_stand() -> None:
    found = few_shot(EXAMPLES, CLASSES, 4, 0)
    assert Counter(example.target for example in found) == {0: 4, 1: 4, 2: 4}
    assert ids(found) == sorted(ids(found))


def test_the_choice_is_of_the_seed_and_not_of_the_order() -> None:
    shuffled = random.Random(1).sample(EXAMPLES, len(EXAMPLES))
    assert sorted(ids(few_shot(shuffled, CLASSES, 4, 0))) == ids(few_shot(EXAMPLES, CLASSES, 4, 0))
    assert len({tuple(ids(few_shot(EXAMPLES, CLASSES, 4, seed))) for seed in range(5)}) == 5


def test_fewer_shots_are_among_more() -> None:
    chosen = [set(ids(few_shot(EXAMPLES, CLASSES, shots, 3))) for shots in range(1, 11)]
    assert all(less < more for less, more in zip(chosen, chosen[1:], strict=False))
    assert chosen[-1] == set(ids(EXAMPLES))


def test_a_class_with_too_few_is_told_unless_fewer_will_do() -> None:
    with pytest.raises(UserError, match=r"^trainer.shots=4: class 'cat' has 3 training examples; give no more$"):
        few_shot(EXAMPLES[:8], CLASSES, 4, 0)
    assert Counter(example.target for example in few_shot(EXAMPLES[:11], CLASSES, 4, 0, at_most=True)) == {
        0: 4,
        1: 4,
        2: 3,
    }


@pytest.mark.parametrize(
    ("examples", "classes", "why"),
    [(EXAMPLES, (), "this task has none"), ([Example("x", Path("x"), [0, 2])], CLASSES, "an example .* has several")],
)
def test_what_has_no_class_has_no_shots(examples: Any, classes: Any, why: str) -> None:
    with pytest.raises(UserError, match=f"^trainer.shots=1 needs a task with classes, one per example; {why}"):
        few_shot(examples, classes, 1, 0)


@pytest.fixture
def words(tiny: Path, films: Path, tmp_path: Path) -> list[str]:
    experiment = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    rows = [f"{film},{i % 2},{experiment[i]}" for i, film in enumerate(sorted(films.glob("*.mp4")))]
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    common = [f"data.root={tmp_path / 'labels.csv'}", f"ckpt={tiny}", "canary=false", "workers=1", "cache=off"]
    return ["task=folder", *common, f"out={tmp_path / 'out'}"]


def test_a_run_with_shots_encodes_and_records_only_those(words: list[str], tmp_path: Path) -> None:
    protocols = []
    for shots in ("0", "3"):
        out = tmp_path / shots
        assert main(["run", *words[:-1], f"out={out}", "adapter=knn", "adapter.k=1", f"trainer.shots={shots}"]) == 0
        (run,) = [path.parent for path in out.rglob(run_folder.RESULT)]
        record = run_folder.load(run)
        assert validate.validate(run) == []
        train = 6 if shots == "3" else 8
        assert (record["selection"]["n_train"], record["selection"]["n_val"]) == (train, 2)
        assert record["cost"]["encoder_forwards"] == train + 4
        assert record["task"]["protocol"].get("shots") == (3 if shots == "3" else None)
        protocols.append(record["task"]["protocol_sha256"])
    assert protocols[0] != protocols[1]


def test_shots_of_what_is_not_fitted_are_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *words, "adapter=contrastive", "trainer.shots=2"]) == 2
    assert "trainer.shots=2 has no effect" in capsys.readouterr().err


# --- a share of the training data ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "of_each"), [(0.01, 1), (0.1, 1), (0.3, 3), (0.5, 5), (1.0, 10)])
def test_a_share_is_of_each_class_and_at_least_one(share: float, of_each: int) -> None:
    found = share_of(EXAMPLES, CLASSES, share, 0)
    assert Counter(example.target for example in found) == {0: of_each, 1: of_each, 2: of_each}
    assert ids(found) == sorted(ids(found))


def test_a_smaller_share_is_among_a_larger_one_and_both_are_of_the_seed() -> None:
    shuffled = random.Random(1).sample(EXAMPLES, len(EXAMPLES))
    assert sorted(ids(share_of(shuffled, CLASSES, 0.3, 0))) == ids(share_of(EXAMPLES, CLASSES, 0.3, 0))
    chosen = [set(ids(share_of(EXAMPLES, CLASSES, share, 3))) for share in (0.01, 0.2, 0.5, 1.0)]
    assert all(less < more for less, more in zip(chosen, chosen[1:], strict=False))
    assert len({tuple(ids(share_of(EXAMPLES, CLASSES, 0.3, seed))) for seed in range(5)}) == 5


def test_a_share_of_examples_with_several_classes_has_each_of_them() -> None:
    several = [Example(str(i), Path(str(i)), (0,) if i else (0, 1, 2)) for i in range(100)]
    found = share_of(several, CLASSES, 0.02, 0)
    assert "0" in ids(found) and len(found) <= 3
    plain = [Example(str(i), Path(str(i)), f"v{i}") for i in range(100)]
    assert len(share_of(plain, (), 0.1, 0)) == 10


def test_a_run_with_a_share_encodes_and_records_only_that(words: list[str], tmp_path: Path) -> None:
    assert main(["run", *words, "adapter=knn", "adapter.k=1", "trainer.share=0.5"]) == 0
    (run,) = [path.parent for path in (tmp_path / "out").rglob(run_folder.RESULT)]
    record = run_folder.load(run)
    assert validate.validate(run) == []
    assert (record["selection"]["n_train"], record["selection"]["n_val"]) == (4, 2)
    assert record["task"]["protocol"]["share"] == 0.5 and "shots" not in record["task"]["protocol"]


def test_a_share_that_does_not_fit_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for more, message in (
        (["trainer.share=0"], "trainer.share=0: expected a number above 0 to 1"),
        (["trainer.share=0.5", "trainer.shots=1"], "trainer.shots=1 and trainer.share=0.5 are two sizes: give one"),
        (["adapter=contrastive", "trainer.share=0.5"], "trainer.share=0.5 has no effect"),
    ):
        assert main(["run", *words, *more]) == 2
        assert message in capsys.readouterr().err
