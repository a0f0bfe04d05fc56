"""Ridge, logistic regression and k-NN as adapters say what scikit-learn says, share a pass, and need no trainer."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor, nn

from evalkit.api import Batch, Clip, Example, Task
from evalkit.cli import main
from evalkit.config.keys import settings_class
from evalkit.config.parse import resolve
from evalkit.errors import UserError
from evalkit.metrics.classification import top1_top5
from evalkit.pipeline.setup import prepare
from evalkit.results import run_folder, validate
from evalkit.weights import trained_adapter
from tests.given import make_adapter, make_grid

pytestmark = pytest.mark.usefixtures("decoding_here")

NAMES = ("ridge", "logistic", "knn")
CLASSES = tuple("abcdef")
TASK = Task(test=(), score=top1_top5, classes=CLASSES)
GRIDS: dict[str, list[dict[str, Any]]] = {
    "ridge": [{"alpha": alpha} for alpha in (100.0, 0.1, 3.0)],
    "logistic": [{"c": c} for c in (1.0, 0.01, 0.1)],
    "knn": [{"k": k, "temperature": t} for k, t in ((5, 0.07), (1, 0.07), (12, 1.0))],
}


class Shape(nn.Module):
    """What a probe wants to know of an encoder."""

    clip, dim, pooled_dim = Clip(), 99, 9


def batch(n: int, seed: int, views: int = 1) -> Batch:
    """Clusters whose features differ in scale, far from the origin; the last feature is all but constant."""
    generator = torch.Generator().manual_seed(seed)
    targets = [i % len(CLASSES) for i in range(n)]
    centers = torch.randn(len(CLASSES), 9, generator=torch.Generator().manual_seed(7))
    x = centers[targets][:, None] + 0.8 * torch.randn(n, views, 9, generator=generator)
    x = x * torch.tensor([1e-3, 0.1, 0.1, 1, 1, 1, 5, 100, 0]) + torch.tensor([0, 0, 2, 0, 5, 0, 0, 300, 7.0])
    return Batch([Example(str(i), Path(f"{i}.mp4"), target) for i, target in enumerate(targets)], x)


def make(name: str, task: Task = TASK, **settings: Any) -> Any:
    return make_adapter(name, Shape(), task, **settings).eval()


def fitted(name: str, train: Batch, **settings: Any) -> Any:
    adapter = make(name, **settings)
    adapter.solve(train)
    return adapter


def said(adapter: Any, data: Batch) -> Tensor:
    """What the adapter says of each class (n, classes): of the five it names, and nan for the others."""
    found = torch.full((len(data.examples), len(CLASSES)), math.nan, dtype=torch.float64)
    for row, prediction in zip(found, adapter.predict(data.examples, data.features), strict=True):
        (values,) = prediction.detail.values()
        assert len(prediction.value) == 5 and values == sorted(values, reverse=True)
        row[prediction.value] = torch.tensor(values, dtype=torch.float64)
    return found


def alike(found: Tensor, wanted: Any, tolerance: float) -> bool:
    """Whether what was said is right, and what was not said is no more than that."""
    expected = torch.as_tensor(wanted, dtype=torch.float64)
    rest = torch.where(found.isnan(), expected, -math.inf).amax(1) <= expected.topk(5).values[:, -1] + tolerance
    return bool(((found - expected).abs() < tolerance).logical_or(found.isnan()).all() and rest.all())


def flat(data: Batch) -> tuple[Any, Any]:
    """Features (n, D), the views averaged, and class indices, for scikit-learn."""
    return data.features.double().mean(1).numpy(), np.array([example.target for example in data.examples])


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("standardize", [True, False])
def test_logistic_says_the_probabilities_of_scikit_learn(standardize: bool, views: int) -> None:
    train, test = batch(150, 0, views), batch(30, 1, views)
    scaled = [StandardScaler()] if standardize else []
    c = 0.1 if standardize else 1e-4
    reference = make_pipeline(*scaled, LogisticRegression(C=c, solver="newton-cg", tol=1e-9, max_iter=1000))
    expected = reference.fit(*flat(train)).predict_proba(flat(test)[0])
    assert alike(said(fitted("logistic", train, c=c, standardize=standardize), test), expected, 0.01)


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("standardize", [True, False])
def test_ridge_says_the_estimates_of_scikit_learn(standardize: bool, views: int) -> None:
    train, test = batch(150, 0, views), batch(30, 1, views)
    reference = make_pipeline(*([StandardScaler()] if standardize else []), Ridge(alpha=2.0, solver="svd"))
    x, y = flat(train)
    expected = reference.fit(x, np.eye(len(CLASSES))[y]).predict(flat(test)[0])
    assert alike(said(fitted("ridge", train, alpha=2.0, standardize=standardize), test), expected, 1e-4)


@pytest.mark.parametrize("views", [1, 3])
def test_knn_says_the_weighted_votes_of_scikit_learn(views: int) -> None:
    train, test = batch(150, 0, views), batch(30, 1, views)

    def weights(distance: Any) -> Any:
        return np.exp((1 - distance) / 0.07)

    reference = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=weights).fit(*flat(train))
    assert alike(said(fitted("knn", train), test), reference.predict_proba(flat(test)[0]), 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_grid_says_at_each_point_what_that_point_says_alone(name: str) -> None:
    train, test = batch(90, 0), batch(20, 1)
    assert set(GRIDS[name][0]) == set(settings_class(name).STACKABLE)
    together = make_grid(name, Shape(), TASK, GRIDS[name])
    together.solve(train)
    assert together.points == 3
    found = together.predict_all(test.examples, test.features)
    for of_point, point in zip(found, GRIDS[name], strict=True):
        alone = fitted(name, train, **point).predict(test.examples, test.features)
        for one, other in zip(of_point, alone, strict=True):
            assert one.value[0] == other.value[0] and one.detail and other.detail
            assert next(iter(one.detail.values())) == pytest.approx(next(iter(other.detail.values())), abs=1e-3)
    together.select(2)
    assert together.points == 1 and together.predict(test.examples, test.features) == found[2] != found[0]


@pytest.mark.parametrize("name", ["ridge", "logistic"])
def test_what_was_solved_for_comes_back_from_disk_as_it_was(name: str, tmp_path: Path) -> None:
    adapter, test = fitted(name, batch(90, 0)), batch(20, 1)
    trained_adapter.save_adapter(adapter, tmp_path / "a", {"settings": {}})
    other = make(name)
    trained_adapter.restore_adapter(other, tmp_path / "a")
    assert other.predict(test.examples, test.features) == adapter.predict(test.examples, test.features)
    assert sum(value.numel() for value in trained_adapter.adapter_state(other).values()) == 6 * 9 + 6


def several(data: Batch) -> tuple[Batch, Task]:
    """The same with a set of classes for each example, which may be empty and never holds the last one."""
    sets = [{i % 6 % 5, i // 2 % 5} if i % 7 else set() for i in range(len(data.examples))]
    examples = [replace(one, target=tuple(sorted(own))) for one, own in zip(data.examples, sets, strict=True)]
    return Batch(examples, data.features), Task(test=examples, train=examples, score=top1_top5, classes=CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_several_classes_per_example_are_scored_one_by_one_as_scikit_learn_does(name: str) -> None:
    (train, task), (test, _) = several(batch(150, 0)), several(batch(30, 1))
    settings: dict[str, Any] = {"ridge": {"alpha": 2.0}, "logistic": {"c": 0.1}, "knn": {}}[name]
    adapter = make(name, task, **settings)
    adapter.solve(train)
    found = adapter.predict(test.examples, test.features)
    assert all(len(one.value) == 6 and one.detail is None for one in found)

    columns = np.array([[c in one.target for c in range(6)] for one in train.examples], dtype=float)
    x, other = (data.features.double().mean(1).numpy() for data in (train, test))
    if name == "knn":
        cosines = normalize(other) @ normalize(x).T
        nearest = np.argsort(-cosines)[:, :20]
        weights = np.exp(np.take_along_axis(cosines, nearest, 1) / 0.07)[..., None]
        wanted = (columns[nearest] * weights).sum(1) / weights.sum(1)
    elif name == "ridge":
        wanted = make_pipeline(StandardScaler(), Ridge(alpha=2.0, solver="svd")).fit(x, columns).predict(other)
    else:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, solver="newton-cg", tol=1e-9, max_iter=1000))
        each = [model.fit(x, column).predict_proba(other)[:, 1] for column in columns.T[:5]]
        wanted = np.stack([*each, np.zeros(len(other))], 1)  # the last class is nowhere in train
    assert np.abs(np.array([one.value for one in found]) - wanted).max() < {"ridge": 1e-4}.get(name, 0.01)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_without_classes_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"^adapter={name} needs a task with classes; this task has none$"):
        make(name, Task(test=(), score=top1_top5))


@pytest.mark.parametrize("name", NAMES)
def test_there_is_no_answer_without_a_video(name: str) -> None:
    assert make(name).needs_video and make(name).closed_form


def test_more_neighbors_than_examples_are_told() -> None:
    with pytest.raises(UserError, match=r"^adapter.k=20: there are 12 training examples; give at most as many$"):
        fitted("knn", batch(12, 0))
    with pytest.raises(UserError, match=r"^adapter.k=20: there are 19 training examples"):
        make("knn").check_examples(19)  # before they are read
    make("knn").check_examples(20)
    make("ridge").check_examples(1)


# --- from the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def words(tiny: Path, films: Path, tmp_path: Path) -> list[str]:
    """Eight films to learn which way a shape moves, four to tell."""
    rows = [f"{path},{i % 2},{'train' if i < 8 else 'test'}" for i, path in enumerate(sorted(films.glob("*.mp4")))]
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    common = [f"data.root={tmp_path / 'labels.csv'}", f"ckpt={tiny}", "canary=false", "workers=1"]
    return ["task=folder", *common, f"out={tmp_path / 'out'}"]


@pytest.fixture
def no_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a trainer was started")

    monkeypatch.setattr(lightning, "Trainer", refuse)


def runs(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.rglob(run_folder.RESULT))


def predicted(run: Path) -> list[Any]:
    rows = [json.loads(line) for line in (run / run_folder.PREDICTIONS).read_text().splitlines()]
    return [(row["prediction"], row["detail"]) for row in rows]


@pytest.mark.parametrize(
    ("name", "setting", "grid"),
    [("knn", "k", (1, 7, 3)), ("ridge", "alpha", (10.0, 0.1)), ("logistic", "c", (0.01, 1.0, 0.1))],
)
@pytest.mark.usefixtures("no_trainer")
def test_a_sweep_is_one_pass_that_keeps_the_best_on_val(
    name: str, setting: str, grid: Sequence[float], words: list[str], tmp_path: Path
) -> None:
    words = [*words, f"adapter={name}"]
    assert main(["sweep", *words, f"adapter.{setting}={','.join(map(str, grid))}"]) == 0
    (run,) = runs(tmp_path / "out")
    assert validate.validate(run) == []
    record = run_folder.load(run)
    selection = record["selection"]
    assert [point[setting] for point in selection["grid"]] == list(grid)
    best = selection["grid_val_scores"].index(max(selection["grid_val_scores"]))
    assert selection["chosen"] == {"point": best, "epoch": 1, "epochs": 1}
    for value, on_val in zip(grid, selection["grid_val_scores"], strict=True):
        out = tmp_path / str(value)
        alone_words = [word for word in words if not word.startswith("out=")]
        assert main(["run", *alone_words, f"adapter.{setting}={value}", f"out={out}"]) == 0
        (alone,) = runs(out)
        assert run_folder.load(alone)["selection"]["val_score"] == on_val
        if value == grid[best]:
            assert predicted(alone) == predicted(run)


def test_points_that_differ_in_scaling_are_passes_of_their_own(words: list[str]) -> None:
    config = resolve("run", [*words, "adapter=logistic"])
    points = tuple({"c": c, "standardize": standardize} for c in (0.1, 1.0) for standardize in (True, False))
    assert prepare(replace(config, points=points)).passes == [[0, 2], [1, 3]]


def test_an_adapted_probe_predicts_as_it_did_when_it_was_fitted(words: list[str], tmp_path: Path) -> None:
    assert main(["run", *words, "adapter=logistic"]) == 0
    words = [word for word in words if not word.startswith("out=")]
    assert main(["adapt", *words, "adapter=logistic", f"out={tmp_path / 'adapted'}"]) == 0
    words = [f"ckpt={tmp_path / 'adapted'}" if word.startswith("ckpt=") else word for word in words]
    assert main(["run", *words, "adapter=logistic", f"out={tmp_path / 'again'}"]) == 0
    (first,), (again,) = runs(tmp_path / "out"), runs(tmp_path / "again")
    assert run_folder.load(again)["selection"] is None and predicted(again) == predicted(first)


def test_neighbors_are_not_written(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", *words, "adapter=knn"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("evalkit: adapter knn learns no weights that could be written")
    assert not (tmp_path / "out").exists()
