"""Controls of a run: options in other orders, and no video at all."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from evalkit.api import Example, Prediction, Task
from evalkit.cli import main
from evalkit.metrics import accuracy
from evalkit.pipeline.controls import cyclic, measure_control
from evalkit.results import run_folder
from tests.pipeline import tiny_world
from tests.pipeline.tiny_world import run

pytestmark = pytest.mark.slow

world = tiny_world.world


def question(name: str, options: str, target: int) -> Example:
    return Example(name, Path(name), target, choices=tuple(options))


class Likes:
    """Answers with the option that stands first in its favourite order, and the first of all others' where none is."""

    def __init__(self, favourites: str) -> None:
        self.favourites = favourites

    def predict(self, examples: Sequence[Example], features: object) -> list[Prediction]:
        ranks = [[self.favourites.find(option) % 99 for option in e.choices] for e in examples]
        return [Prediction(row.index(min(row))) for row in ranks]


def test_cyclic_orders_are_told_as_indices_of_the_options_as_they_stand() -> None:
    examples = [question("long", "abcde", 2), question("short", "xyz", 1)]
    straight = {e.id: p for e, p in zip(examples, Likes("cy").predict(examples, None), strict=True)}
    turned = cyclic(Likes("cy"), examples, torch.zeros(2, 1), straight)  # type: ignore[arg-type]
    assert turned["long"].value == [2] * 5 and turned["short"].value == [1] * 3
    # one that always takes what stands first is right in one order of each question
    straight = {e.id: p for e, p in zip(examples, Likes("").predict(examples, None), strict=True)}
    turned = cyclic(Likes(""), examples, torch.zeros(2, 1), straight)  # type: ignore[arg-type]
    assert turned["long"].value == [0, 1, 2, 3, 4] and turned["short"].value == [0, 1, 2]


def test_option_order_is_the_mean_over_the_orders_and_a_failed_example_is_wrong_in_all() -> None:
    examples = [question("a", "abc", 2), question("b", "abc", 0), question("c", "abc", 1), question("d", "ab", 0)]
    task = Task(test=examples, score=accuracy)
    predicted = {"a": Prediction([2, 2, 1]), "b": Prediction([0, 0, 0]), "d": Prediction([0, 1])}
    control = measure_control("option_order", task, predicted)
    assert control["metric"] == "accuracy"
    assert control["value"] == pytest.approx(100 * (2 / 3 + 1 + 0 + 1 / 2) / 4)
    plain = {"a": Prediction(2), "b": Prediction(1), "d": Prediction(0)}
    assert measure_control("blind", task, plain)["value"] == 50


def test_a_task_that_fails_is_told_with_its_file_and_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = 'from evalkit.api import Task\n\n\ndef task() -> Task:\n    """Fails."""\n    return {}[\'label\']\n'
    (tmp_path / "my_task.py").write_text(code)
    assert main(["run", f"task={tmp_path / 'my_task.py'}", f"ckpt={tiny}", f"out={tmp_path}"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == [f"evalkit: task {tmp_path / 'my_task.py'} fails: my_task.py, line 6: KeyError: 'label'"]


@pytest.mark.usefixtures("decoded_here")
def test_an_adapter_without_an_answer_to_no_video_leaves_the_blind_control_out(
    world: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = [f"task={world / 'my_task.py'}", f"data.root={world / 'films'}", f"ckpt={tiny}", "workers=1"]
    record = run_folder.load(run(tmp_path, *task, "adapter=contrastive"))
    assert {control["name"] for control in record["controls"]} == {"shuffled", "single_frame", "option_order"}
    assert "control blind left out: " in capsys.readouterr().err
