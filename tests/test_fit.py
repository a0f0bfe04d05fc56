"""Fitting keeps the epoch that is best on val, says in one line what goes wrong, and is the same for one seed."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

from evalkit import plugins
from evalkit.api import Batch, Clip, Example, Kept, Prediction, Task, UserError
from evalkit.encode import Source
from evalkit.fit import Examples, Fitted, fit, headline, predict, split_val
from evalkit.metrics import accuracy, top1_top5
from evalkit.optim import adamw

CPU = torch.device("cpu")


class Walker(lightning.LightningModule):
    """One weight that grows by 1 with every step; predicts the class of that number."""

    trains_encoder = False
    kept = Kept()

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
    return Examples(rows, torch.zeros(n, 1, 2), {Source(row.video, None): i for i, row in enumerate(rows)})


def fitted(adapter: Any, train: Examples, val: Examples, score: Any = accuracy, **changed: Any) -> Fitted:
    settings = {"keep": None, "epochs": adapter.epochs, "seed": 0, "device": CPU, "precision": "32-true"}
    return fit(adapter, train, val, score, **{**settings, "max_minutes": 0.0, **changed})


# --- which epoch -----------------------------------------------------------------------------------------------------


def test_the_module_holds_the_epoch_that_was_best_on_val() -> None:
    walker = Walker(epochs=5)
    found = fitted(walker, examples(8), examples(3, target=2, prefix="v"))
    assert found == Fitted(epochs=5, kept=2, val_scores=[0, 100, 0, 0, 0])
    assert walker.weight.item() == pytest.approx(2) and not walker.training


def test_of_equal_epochs_the_last_is_kept() -> None:
    walker = Walker(epochs=3)
    found = fitted(walker, examples(8), examples(3, target=77, prefix="v"))
    assert found == Fitted(epochs=3, kept=3, val_scores=[0, 0, 0])
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
    assert 1 <= found.epochs < 100 and len(found.val_scores) == found.epochs


def test_a_limit_within_the_first_epoch_keeps_what_was_learned_until_then() -> None:
    walker = Walker(epochs=3, batch_size=1, pause=0.05)
    found = fitted(walker, examples(40), examples(2, prefix="v"), max_minutes=0.005)
    assert found.epochs == found.kept == 1 and 1 <= len(walker.seen) < 40


def test_a_limit_shorter_than_one_step_is_told() -> None:
    with pytest.raises(UserError, match=r"^trainer.max_minutes=1e-09 were over before the first epoch was: give it mo"):
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
    return Examples(rows, features, {Source(row.video, None): i for i, row in enumerate(rows)})


def probe() -> Any:
    torch.manual_seed(0)
    task = Task(test=(), score=top1_top5, classes=("a", "b", "c"))
    return plugins.factory("adapter", "probe")(Shape(), task, head="linear", epochs=6, batch_size=8, lr=1e-2)


def test_a_probe_learns_and_one_seed_gives_one_result() -> None:
    adapters = [probe(), probe()]
    found = [fitted(one, clusters(48, ""), clusters(24, "val"), top1_top5) for one in adapters]
    assert found[0] == found[1] and found[0].val_scores[found[0].kept - 1] > 80
    for one, other in zip(adapters[0].parameters(), adapters[1].parameters(), strict=True):
        assert torch.equal(one, other)
    values = predict(adapters[0], clusters(24, "val"), None)
    targets = [example.target for example in clusters(24, "val").examples]
    assert headline(top1_top5, values, targets) == max(found[0].val_scores)


def test_predictions_at_hand_are_in_the_order_of_the_examples_whatever_the_order_of_the_rows() -> None:
    one, data = probe(), clusters(150, "")
    backwards = Examples(list(reversed(data.examples)), data.rows.flip(0), {s: 149 - i for s, i in data.index.items()})
    assert predict(one.eval(), backwards, None) == list(reversed(predict(one, data, None)))


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


# --- the optimiser ---------------------------------------------------------------------------------------------------


def test_matrices_decay_and_biases_norms_and_scales_do_not() -> None:
    module = nn.ModuleDict({"linear": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "frozen": nn.Linear(2, 2)})
    module["frozen"].requires_grad_(False)
    module.register_parameter("scale", nn.Parameter(torch.ones(())))
    groups = adamw(module, 1e-3, 0.1, 100)["optimizer"].param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 1), (0.0, 4)]
    assert groups[0]["params"][0] is module["linear"].weight


@pytest.mark.parametrize("steps", [1, 2, 10, 100, 1000])
def test_the_rate_warms_up_to_its_peak_and_falls_as_a_cosine_to_almost_nothing(steps: int) -> None:
    made = adamw(nn.Linear(2, 2), 0.5, 0.0, steps)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    first = max(1, round(0.05 * steps))
    assert rates[first - 1] == max(rates) == 0.5
    assert rates[:first] == pytest.approx([0.5 * (i + 1) / first for i in range(first)])
    falling = [0.25 * (1 + math.cos(math.pi * i / (steps - first))) for i in range(steps - first)]
    assert rates[first:] == pytest.approx(falling)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12) or steps == 1
