"""Fitting keeps the epoch that is best on val, says in one line what goes wrong, and is the same for one seed."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evalkit.api import Batch, Clip, Example, Prediction, Task
from evalkit.config.parse import resolve
from evalkit.errors import UserError
from evalkit.features.batches import InMemoryFeatures
from evalkit.features.sources import Source
from evalkit.heads.adapter import Adapter
from evalkit.metrics import accuracy, top1_top5
from evalkit.pipeline.setup import Experiment, prepare
from evalkit.pipeline.training.examples import Examples, predict
from evalkit.pipeline.training.fit import fit_adapter, split_val
from evalkit.pipeline.training.trainer import DivergedError, Fitted, TrainingCurve, TrainSpec, fit
from evalkit.results.scores import headline
from evalkit.weights import trained_adapter
from tests.given import make_adapter, make_grid

CPU = torch.device("cpu")


class Walker(Adapter):
    """One weight that grows by 1 with every step; predicts the class of that number."""

    def __init__(self, epochs: int = 4, batch_size: int = 8, losses: Sequence[float] = (), pause: float = 0) -> None:
        super().__init__()
        self.epochs, self.batch_size, self.losses = epochs, batch_size, list(losses)
        self.weight = nn.Parameter(torch.zeros(()))
        self.frozen_part = nn.Linear(2, 2).requires_grad_(False)
        self.seen: list[str] = []
        self.pause = pause

    def training_step(self, batch: Batch, index: int) -> Tensor:
        self.seen += [example.id for example in batch.examples]
        time.sleep(self.pause)
        return -self.weight * (self.losses.pop(0) if self.losses else 1.0)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.weight], lr=1.0)

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        assert not self.training
        return [Prediction(round(self.weight.item())) for _ in examples]


def examples(n: int, target: int = 0, prefix: str = "") -> Examples:
    rows = [Example(f"{prefix}{i}", Path(f"{prefix}{i}"), target) for i in range(n)]
    return Examples(
        rows, InMemoryFeatures(torch.zeros(n, 1, 2)), {Source(row.video, None): i for i, row in enumerate(rows)}
    )


def fitted(adapter: Any, train: Examples, val: Examples, score: Any = accuracy, **changed: Any) -> Fitted:
    return fit(adapter, train, val, score, TrainSpec(CPU, **changed))


# --- which epoch -----------------------------------------------------------------------------------------------------


def test_the_module_holds_the_epoch_that_was_best_on_val() -> None:
    walker = Walker(epochs=5)
    found = fitted(walker, examples(8), examples(3, target=2, prefix="v"))
    assert found == Fitted([TrainingCurve([0, 100, 0, 0, 0], best_epoch=2)])
    assert walker.weight.item() == pytest.approx(2) and not walker.training


def test_of_equal_epochs_the_last_is_kept() -> None:
    walker = Walker(epochs=3)
    found = fitted(walker, examples(8), examples(3, target=77, prefix="v"))
    assert found == Fitted([TrainingCurve([0, 0, 0], best_epoch=3)])
    assert walker.weight.item() == pytest.approx(3)


def test_every_epoch_sees_every_example_once_in_an_order_of_the_seed() -> None:
    orders = []
    for seed in (0, 0, 1):
        walker = Walker(epochs=2, batch_size=3)
        fitted(walker, examples(8), examples(1, prefix="v"), seed=seed)
        assert sorted(walker.seen[:8]) == sorted(walker.seen[8:]) == [str(i) for i in range(8)]
        assert walker.seen[:8] != walker.seen[8:]
        orders.append(walker.seen)
    assert orders[0] == orders[1] != orders[2]


def test_what_is_frozen_stays_as_it_is() -> None:
    walker = Walker()
    before = walker.frozen_part.weight.clone()
    fitted(walker, examples(8), examples(1, prefix="v"))
    assert torch.equal(walker.frozen_part.weight, before) and not walker.frozen_part.weight.requires_grad


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["training_step", "configure_optimizers"])
def test_an_adapter_that_lacks_a_method_of_training_is_refused_in_one_line(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Walker, method)
    with pytest.raises(UserError, match=rf"^adapter Walker has epochs=4 and no {method}\(\)$"):
        fitted(Walker(), examples(8), examples(1, prefix="v"))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_with_one_line(loss: float) -> None:
    walker = Walker(losses=[1.0, 1.0, loss])
    with pytest.raises(UserError) as caught:
        fitted(walker, examples(8), examples(1, prefix="v"))
    told = str(caught.value)
    assert told.startswith("the loss became ") and told.endswith(": try a lower adapter.lr") and "\n" not in told


@pytest.mark.parametrize(("train", "val", "split"), [(0, 1, "training"), (1, 0, "validation")])
def test_nothing_to_fit_or_to_choose_on_is_told(train: int, val: int, split: str) -> None:
    with pytest.raises(UserError, match=f"there are no {split} examples that could be decoded"):
        fitted(Walker(), examples(train), examples(val, prefix="v"))


def test_the_time_limit_ends_the_fit_with_an_epoch_that_was_scored() -> None:
    walker = Walker(epochs=100_000, batch_size=4, pause=0.02)
    found = fitted(walker, examples(8), examples(2, target=3, prefix="v"), max_minutes=0.01)
    assert 1 <= len(found.curves[0].val_scores) < 100


def test_a_limit_within_the_first_epoch_keeps_what_was_learned_until_then() -> None:
    walker = Walker(epochs=3, batch_size=1, pause=0.05)
    found = fitted(walker, examples(40), examples(2, prefix="v"), max_minutes=0.005)
    assert found.curves == [TrainingCurve([0.0], best_epoch=1)] and 1 <= len(walker.seen) < 40


def test_a_limit_shorter_than_one_step_is_told() -> None:
    with pytest.raises(UserError, match=r"^trainer.max_minutes=1e-09 ended before the first epoch did: increase it"):
        fitted(Walker(batch_size=1), examples(8), examples(2, prefix="v"), max_minutes=1e-9)


# --- a real adapter --------------------------------------------------------------------------------------------------


class Shape(nn.Module):
    """What a probe wants to know of an encoder."""

    clip, dim = Clip(), 8


def clusters(n: int, prefix: str) -> Examples:
    generator = torch.Generator().manual_seed(len(prefix))
    targets = [i % 3 for i in range(n)]
    rows = [Example(f"{prefix}{i}", Path(f"{prefix}{i}"), target) for i, target in enumerate(targets)]
    features = torch.eye(8)[targets][:, None] + 0.3 * torch.randn(n, 1, 8, generator=generator)
    return Examples(rows, InMemoryFeatures(features), {Source(row.video, None): i for i, row in enumerate(rows)})


PROBE = Task(test=(), score=top1_top5, classes=("a", "b", "c"))


def probe(**settings: Any) -> Any:
    torch.manual_seed(0)
    settings = {"head": "linear", "epochs": 6, "batch_size": 8, "lr": 1e-2, **settings}
    return make_adapter("probe", Shape(), PROBE, **settings)


def grid(points: Sequence[dict[str, Any]], **settings: Any) -> Any:
    torch.manual_seed(0)
    settings = {"head": "linear", "epochs": 6, "batch_size": 8, **settings}
    return make_grid("probe", Shape(), PROBE, [{**settings, **point} for point in points])


def test_a_probe_learns_and_one_seed_gives_one_result() -> None:
    adapters = [probe(), probe()]
    found = [fitted(one, clusters(48, ""), clusters(24, "val"), top1_top5) for one in adapters]
    assert found[0] == found[1] and (best := found[0].curves[0].best) and best > 80
    for one, other in zip(adapters[0].parameters(), adapters[1].parameters(), strict=True):
        assert torch.equal(one, other)
    (values,) = predict(adapters[0], clusters(24, "val"), None)
    targets = [example.target for example in clusters(24, "val").examples]
    assert headline(top1_top5, values, targets) == best


def test_predictions_at_hand_are_in_the_order_of_the_examples_whatever_the_order_of_the_rows() -> None:
    one, data = probe(), clusters(150, "")
    assert isinstance(data.rows, InMemoryFeatures)
    rows = InMemoryFeatures(data.rows.features.flip(0))
    backwards = Examples(list(reversed(data.examples)), rows, {s: 149 - i for s, i in data.index.items()})
    assert predict(one.eval(), backwards, None)[0] == predict(one, data, None)[0][::-1]


# --- many points -----------------------------------------------------------------------------------------------------

POINTS = [{"lr": 1e-6}, {"lr": 1e-2, "dropout": 0.2}, {"lr": 1e-3, "weight_decay": 0.1}]


def test_the_point_that_is_best_on_val_is_chosen_and_ends_as_it_would_alone() -> None:
    together = grid(POINTS)
    found = fitted(together, clusters(48, ""), clusters(24, "val"), top1_top5)
    alone = [probe(**point) for point in POINTS]
    courses = [fitted(one, clusters(48, ""), clusters(24, "val"), top1_top5).curves[0] for one in alone]
    assert found == Fitted(courses, chosen=1)
    assert found.curves[0] != found.curves[2] and together.points == 1 and not together.training
    expected = alone[1].bank.state(0)
    for name, value in together.bank.state(0).items():
        assert torch.allclose(value, expected[name], atol=1e-5)


def test_of_equal_points_the_first_is_chosen_with_its_own_epoch() -> None:
    together = grid([{"lr": 1e-2}, {"lr": 2e-2}])
    found = fitted(together, clusters(48, ""), clusters(24, "val"), lambda p, t: {"same": 50.0})
    assert found.chosen == 0 and [one.best_epoch for one in found.curves] == [6, 6]
    assert together.bank.points[0].lr == 1e-2


def test_each_point_keeps_its_own_epoch() -> None:
    together = grid([{"lr": 1e-2}, {"lr": 2e-2}])
    told = iter([1.0, 5.0, 9.0, 4.0, 3.0, 4.0, *[0.0] * 6])
    states = []

    def score(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        states.append(copy.deepcopy(together.bank.state(0)))
        return {"told": next(told)}

    found = fitted(together, clusters(48, ""), clusters(24, "val"), score)
    assert [(one.best_epoch, one.best) for one in found.curves] == [(2, 9.0), (1, 5.0)] and found.chosen == 0
    assert all(torch.equal(value, states[2][name]) for name, value in together.bank.state(0).items())


def test_a_point_that_diverges_is_told_and_the_others_go_on_as_without_it() -> None:
    together, without = grid([POINTS[1], {"lr": 1e30}, POINTS[2]]), grid([POINTS[1], POINTS[2]])
    found, expected = (fitted(one, clusters(48, ""), clusters(24, "val"), top1_top5) for one in (together, without))
    failure = found.curves[1].failure
    assert failure and "nan at step" in failure and found.curves[1].best is None
    assert [found.curves[0], found.curves[2]] == expected.curves and found.chosen == 0


def test_where_every_point_diverges_that_is_the_error() -> None:
    with pytest.raises(DivergedError, match=r"^the loss became \w+ at step \d+: try a lower adapter.lr$") as caught:
        fitted(grid([{"lr": 1e30}, {"lr": 1e31}]), clusters(48, ""), clusters(24, "val"), top1_top5)
    assert len(caught.value.curves) == 2


# --- a run's grid ----------------------------------------------------------------------------------------------------

TASK = '''
from pathlib import Path

from evalkit.api import Example, Task
from evalkit.metrics import accuracy


def task(root: Path) -> Task:
    """Which way a shape moves."""
    options = ("left", "right")
    found = enumerate(sorted(root.glob("*.mp4")))
    films = [Example(film.stem, film, i % 2, text="Which way?", choices=options) for i, film in found]
    return Task(test=films[:1], train=films[1:8], val=films[8:], score=SCORE, classes=CLASSES)
'''


@pytest.fixture
def words(tmp_path: Path, films: Path, tiny: Path) -> list[str]:
    """A run of a probe on three quarters of the films."""
    for classes, score, name in (('("left", "right")', "top1_top5", "classes"), ("()", "accuracy", "choice")):
        text = TASK.replace("CLASSES", classes).replace("SCORE", score).replace("import accuracy", f"import {score}")
        (tmp_path / f"{name}.py").write_text(text)
    return [f"task={tmp_path / 'classes.py'}", f"data.root={films}", f"ckpt={tiny}", "adapter.epochs=3", "workers=1"]


def chosen(words: Sequence[str], *points: dict[str, Any]) -> tuple[Experiment, dict[str, Any]]:
    config = replace(resolve("run", words), points=points)
    experiment = prepare(config)
    return experiment, fit_adapter(experiment, config.trainer, config.options.seed)[0]


def alike(one: Experiment, other: Experiment) -> bool:
    learned, expected = (trained_adapter.adapter_state(experiment.adapter) for experiment in (one, other))
    return all(torch.allclose(learned[name], value, atol=1e-5) for name, value in expected.items())


def test_points_that_one_pass_can_fit_share_it_and_each_ends_as_a_fit_of_its_own(words: list[str]) -> None:
    points = [{"head": head, "lr": lr} for lr in (1e-6, 1e-2) for head in ("linear", "attentive")]
    experiment, record = chosen(words, *points)
    assert experiment.passes == [[0, 2], [1, 3]]  # the heads read different features
    each = [chosen([*words, f"adapter.head={one['head']}", f"adapter.lr={one['lr']}"]) for one in points]
    assert record["grid_val_scores"] == [own["val_score"] for _, own in each]
    best = record["grid_val_scores"].index(max(record["grid_val_scores"]))
    assert record["chosen"] == {**each[best][1]["chosen"], "point": best} and record["failures"] == []
    assert record["grid"] == [own["grid"][0] for _, own in each] and record["n_val"] == 4
    assert record["val_scores"] == each[best][1]["val_scores"]
    assert experiment.settings == each[best][0].settings and alike(experiment, each[best][0])
    assert experiment.adapter.feature_spec == each[best][0].adapter.feature_spec
    assert (
        experiment.reader.cache
        and each[best][0].reader.cache
        and experiment.reader.cache.key == each[best][0].reader.cache.key
    )


def test_points_that_cannot_train_together_are_fitted_one_by_one_on_features_encoded_once(words: list[str]) -> None:
    points = [{"batch_size": size, "epochs": size} for size in (2, 3)]
    experiment, record = chosen([*words, "cache=off"], *points)
    assert experiment.passes == [[0], [1]] and experiment.extractor.cost.encoder_forwards == 11
    each = [chosen([word for word in words if "epochs" not in word] + _words(one)) for one in points]
    assert record["grid_val_scores"] == [own["val_score"] for _, own in each]
    assert alike(experiment, each[record["chosen"]["point"]][0])


def _words(point: dict[str, Any]) -> list[str]:
    return [f"adapter.{key}={value}" for key, value in point.items()]


def test_an_adapter_without_a_pass_for_many_points_fits_one_after_another(
    words: list[str], lm: Path, tmp_path: Path
) -> None:
    """The one that diverges is told, and what follows starts as if it had not been there."""
    task = [f"task={tmp_path / 'choice.py'}", "adapter=multiple_choice", f"lm={lm}", "adapter.latents=2"]
    words = [*task, *words[1:]]
    experiment, record = chosen(words, {"lr": 1e30}, {"lr": 1e-3})
    assert experiment.passes == [[0], [1]]
    assert [one["point"] for one in record["failures"]] == [0] and record["grid_val_scores"][0] is None
    assert "nan at step" in record["failures"][0]["reason"]
    alone, own = chosen([*words, "adapter.lr=1e-3"])
    assert record["val_scores"] == own["val_scores"] and record["chosen"] == {**own["chosen"], "point": 1}
    assert experiment.settings == alone.settings and alike(experiment, alone)
    with pytest.raises(DivergedError, match="became .*nan at step .*: try a lower adapter.lr$"):
        chosen(words, {"lr": 1e30}, {"lr": 1e31})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["adapter=contrastive"], "the adapter changes the encoder for those that follow: give one"),
        (["adapter.epochs=0"], "the adapter is not fitted: give one"),
    ],
)
def test_a_grid_that_nothing_chooses_from_is_refused(words: list[str], changed: list[str], told: str) -> None:
    config = resolve("adapt", [*[word for word in words if "epochs" not in word], *changed, "out=nowhere"])
    with pytest.raises(UserError, match=f"^adapter.lr has several values, but {told}$"):
        prepare(replace(config, points=({"lr": 1e-3}, {"lr": 1e-2})))


# --- val -------------------------------------------------------------------------------------------------------------


def test_val_is_a_seeded_tenth_of_the_videos_and_shares_none_with_train() -> None:
    rows = [Example(str(i), Path(f"{i // 3}.mp4")) for i in range(90)]
    train, val = split_val(rows, 0)
    assert len(val) == 9 and len(train) == 81 and {*train, *val} == set(rows)
    assert not {row.video for row in train} & {row.video for row in val}
    assert split_val(rows, 0) == (train, val) and split_val(rows, 1)[1] != val
    assert split_val(rows[::-1], 0)[1] == val[::-1]  # whatever the order that they come in
    assert len(split_val(rows[:6], 0)[1]) == 3  # at least one video


@pytest.mark.parametrize("value", [50.0, [1.0, 0.0], {"a": [1.0, 0.0], "b": 3.0}])
def test_the_headline_is_the_first_entry_in_percent(value: Any) -> None:
    found = value if isinstance(value, dict) else {"a": value}
    assert headline(lambda predictions, targets: found, [], []) == 50
