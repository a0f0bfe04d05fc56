"""Checks of own_adapter: pytest test_own_adapter.py."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evalkit.api import Batch, Example, Task
from evalkit.errors import UserError
from evalkit.metrics import top1_top5
from evalkit.plugins import module_and_factory

module, make = module_and_factory("adapter", "./own_adapter.py")
EXAMPLES = [Example(str(k), Path(f"{k}.mp4"), k % 3) for k in range(12)]


def adapter(**settings: Any) -> Any:
    """The adapter for an encoder of width 8 and a task of three classes."""
    torch.manual_seed(0)
    task = Task(test=EXAMPLES, score=top1_top5, classes=("a", "b", "c"))
    return make(SimpleNamespace(dim=8), task, [module.Settings(**settings)])


def features() -> torch.Tensor:
    """Vectors (B, V, D) of two views that tell the class."""
    classes = torch.eye(8)[[example.target for example in EXAMPLES]]
    return torch.stack([classes, classes + 0.1], 1)


def test_training_makes_the_loss_smaller_and_the_predictions_right() -> None:
    made = adapter(lr=1e-2)
    optimizer = made.configure_optimizers()
    losses = []
    for _ in range(60):
        loss = made.training_step(Batch(EXAMPLES, features()), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    predictions = [prediction.value for prediction in made.predict(EXAMPLES, features())]
    assert [classes[0] for classes in predictions] == [example.target for example in EXAMPLES]


def test_predictions_do_not_depend_on_targets_or_on_the_batch() -> None:
    made = adapter().eval()
    whole = made.predict(EXAMPLES, features())
    blank = [Example(example.id, example.video) for example in EXAMPLES]
    assert made.predict(blank, features()) == whole
    assert made.predict(blank[:1], features()[:1]) == whole[:1]


def test_a_task_without_classes_is_refused() -> None:
    with pytest.raises(UserError, match="classes"):
        make(SimpleNamespace(dim=8), Task(test=EXAMPLES, score=top1_top5), [module.Settings()])
