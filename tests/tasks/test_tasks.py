"""Every task and adapter keeps its contract."""

import inspect
import random
from pathlib import Path
from typing import Any

import pytest

from evalkit import plugins
from evalkit.api import Example, Task
from evalkit.config.keys import REQUIRED, _keys, adapter_defaults, default_adapter, known_keys, settings_class
from evalkit.results.scores import headline, reference, resolve
from tests.given import make, refusal

TASKS, ADAPTERS = list(plugins.names("task")), list(plugins.names("adapter"))
CONTROLS = {"blind", "shuffled", "single_frame", "option_order"}


@pytest.fixture(scope="module")
def minis() -> dict[str, Task]:
    """The miniature of every task; making it films nothing."""
    return {name: make(name, mini=True) for name in TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_every_parameter_of_a_task_has_a_type_a_default_and_a_meaning(name: str) -> None:
    function = plugins.factory("task", name)
    parameters = inspect.signature(function).parameters
    assert "mini" in parameters and parameters["mini"].default is False
    for parameter in parameters.values():
        assert parameter.annotation is not parameter.empty and parameter.default is not parameter.empty, parameter
        assert f"\n        {parameter.name}: " in (function.__doc__ or ""), parameter
    assert all(key.meaning for key in known_keys("run", name).values())


@pytest.mark.parametrize("name", TASKS)
def test_the_miniature_of_a_task_is_whole(name: str, minis: dict[str, Task]) -> None:
    task = minis[name]
    assert task.test and task.train and task.prepare_videos
    for split in (task.train, task.val, task.test):
        assert len({example.id for example in split}) == len(split)
    assert not {e.video for e in task.test} & {e.video for e in [*task.train, *task.val]}
    for example in [*task.train, *task.val, *task.test]:
        assert example.target is not None
        if example.choices:
            assert 0 <= example.target < len(example.choices) == len(set(example.choices))
        elif task.views.window:
            assert example.target and {label for *_, label in example.target} <= {*task.classes} and example.span
        elif example.boxes is not None:
            assert example.target and {box[4] for box in example.target} <= {*task.classes}
        elif task.classes:
            held = example.target if isinstance(example.target, tuple) else (example.target,)
            assert list(held) == sorted(set(held)) and all(0 <= one < len(task.classes) for one in held)
    assert task.published == {}, "numbers of papers are not about generated videos"
    assert task.submission is None


# A task of each set of films; which set a task's films are of, their paths say.
FILM_SETS = {
    "folder": "folder",
    "kinetics400": "kinetics400",
    "charades": "three-steps",
    "chimpact": "side-by-side",
    "egoschema": "three-minutes-",
    "activitynet_tal": "moments",
}


def test_every_miniature_is_of_one_of_the_sets_of_films(minis: dict[str, Task]) -> None:
    for task in minis.values():
        for example in [*task.train, *task.val, *task.test]:
            assert example.video.parent.name.startswith(tuple(FILM_SETS.values()))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILM_SETS)
def test_the_videos_of_a_miniature_are_made_when_they_are_wanted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    task = make(name, mini=True)
    assert task.prepare_videos and not any(tmp_path.iterdir())
    wanted = [task.test[0], task.train[-1]]
    assert all(example.video.parent.name.startswith(FILM_SETS[name]) for example in wanted)
    task.prepare_videos(wanted)
    assert {path for path in tmp_path.rglob("*.mp4")} == {example.video for example in wanted}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_states_what_its_numbers_mean(name: str, minis: dict[str, Task]) -> None:
    task = minis[name]
    assert set(task.controls) <= CONTROLS and len(set(task.controls)) == len(task.controls)
    assert task.license and task.source and task.split and task.version >= 1
    adapter = default_adapter(name)
    assert adapter in ADAPTERS
    assert set(task.settings) <= set(adapter_defaults(adapter))


@pytest.mark.parametrize("name", TASKS)
def test_a_score_is_100_for_the_targets_0_for_nothing_and_chance_for_guesses(name: str, minis: dict[str, Task]) -> None:
    task = minis[name]
    targets = [example.target for example in task.test]
    for metric, value in task.score(targets, targets).items():
        assert isinstance(value, float | int) or set(value) == {1.0}, metric
    first = next(iter(task.score(targets, targets)))
    perfect = headline(task.score, targets, targets)
    assert perfect == 100 or (first == "CIDEr" and perfect > 100)  # captions that are equal have 1000 at best
    assert headline(task.score, [None] * len(targets), targets) == 0
    if task.views.window or not (task.classes or task.test[0].choices):
        return  # what a guess is, the task's own tests know
    rng = random.Random(0)
    guesses = []
    for _ in range(50):
        drawn = [[rng.random() for _ in task.classes or e.choices] for e in task.test]
        guesses.append(
            headline(task.score, [said(task, row, e) for row, e in zip(drawn, task.test, strict=True)], targets)
        )
    assert sum(guesses) / len(guesses) == pytest.approx(task.chance, abs=3)


def said(task: Task, scores: list[float], example: Example) -> Any:
    """Scores of classes, or of options, as the task's adapter says them; of a key frame, those of its true boxes."""
    if example.boxes is not None:
        boxes = dict.fromkeys(tuple(box[:4]) for box in example.target)
        turned = [scores[k:] + scores[:k] for k in range(len(boxes))]
        return [
            [*box, name, score]
            for box, row in zip(boxes, turned, strict=True)
            for name, score in zip(task.classes, row, strict=True)
        ]
    ranked = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return scores if isinstance(example.target, tuple) else ranked if task.classes else ranked[0]


@pytest.mark.parametrize("name", TASKS)
def test_a_score_function_is_found_again_by_its_name(name: str, minis: dict[str, Task]) -> None:
    assert resolve(reference(minis[name].score)) is minis[name].score


@pytest.mark.parametrize("name", TASKS)
def test_a_missing_root_is_told_with_its_path(name: str, tmp_path: Path) -> None:
    told = refusal(name, root=tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in told and "wanted" in told


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_setting_of_an_adapter_has_a_type_a_default_and_a_meaning(name: str) -> None:
    function = plugins.factory("adapter", name)
    assert list(inspect.signature(function).parameters) == ["encoder", "task", "points"]
    assert (function.__doc__ or "").splitlines()[0].endswith(".")
    keys = _keys("adapter", settings_class(name))
    assert (keys or name == "representation") and set(settings_class(name).STACKABLE) <= adapter_defaults(name).keys()
    for key in keys.values():
        assert key.type is not Any and key.default is not REQUIRED and key.meaning, key
