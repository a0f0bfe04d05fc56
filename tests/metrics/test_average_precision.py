"""Average precisions against scikit-learn, torchmetrics, Keras and Charades' scorer."""

import json
import math
from typing import Any

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.metrics.average_precision import box_map, chance_map, charades_map, foreground_map, multilabel_map, pr_auc
from tests.given import FIXTURES

CHARADES = FIXTURES / "charades"


def several(seed: int, n: int = 80, classes: int = 7, empty: int = 9) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """Scores (n, classes) in 0..1 that know something of the classes, and the classes; the last examples have none."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, classes)) < 0.3
    truth[n - empty :] = False
    return np.clip(0.25 * truth + 0.75 * rng.random((n, classes)), 0, 1), [tuple(np.flatnonzero(row)) for row in truth]


def test_average_precision_of_several_classes_equals_scikit_learn_and_torchmetrics_ties_included() -> None:
    import torch
    from sklearn.metrics import average_precision_score
    from torchmetrics.functional.classification import multilabel_average_precision

    scores, targets = several(3)
    truth = np.array([[c in target for c in range(7)] for target in targets])
    for given in (scores, scores.round(1)):
        found = multilabel_map(given.tolist(), targets)["mAP"]
        assert found == pytest.approx(100 * average_precision_score(truth, given, average="macro"), abs=1e-9)
        theirs = multilabel_average_precision(torch.tensor(given), torch.tensor(truth).long(), 7, average="macro")
        assert found == pytest.approx(100 * float(theirs), abs=1e-4)


def test_charades_map_equals_its_own_scorer() -> None:
    expected = json.loads((CHARADES / "expected_test200.json").read_text())
    with np.load(CHARADES / "expected_test200.npz") as arrays:
        scores, truth = arrays["scores"].tolist(), arrays["gt"]
    found = charades_map(scores, [tuple(np.flatnonzero(row).tolist()) for row in truth])
    assert found["mAP"] / 100 == pytest.approx(expected["mAP(charades_map)"], abs=1e-9)
    assert found["mAP_all_videos"] / 100 == pytest.approx(expected["mAP(nanmean)"], abs=1e-9)
    for c, theirs in enumerate(expected["AP"]):
        mine = multilabel_map([row[c : c + 1] for row in scores], [(0,) if row[c] else () for row in truth])["mAP"]
        assert math.isnan(mine) if theirs is None else mine / 100 == pytest.approx(theirs, abs=1e-9)


def test_pr_auc_equals_keras() -> None:
    with np.load(CHARADES / "expected_test200.npz") as arrays:
        scores, truth = 1 / (1 + np.exp(-arrays["scores"])), arrays["gt"]
    found = pr_auc(scores.tolist(), [tuple(np.flatnonzero(row).tolist()) for row in truth])["PR-AUC"]
    # tf.keras.metrics.AUC(curve="PR", multi_label=True) of Keras 3.15.1, float32, over the 152 classes with a positive
    assert found == pytest.approx(28.467294573783875, abs=1e-4)


def test_pr_auc_is_the_integral_of_precision_where_hits_grow_linearly_between_thresholds() -> None:
    scores, targets = several(4)
    thresholds = [-1e-7, *(i / 199 for i in range(1, 199)), 1 + 1e-7]
    areas = []
    for c in range(7):
        positive = np.array([c in target for target in targets])
        area = 0.0
        for low, high in zip(thresholds[:-1], thresholds[1:], strict=True):
            (p0, t0), (p1, t1) = (
                ((scores[:, c] > t).sum(), (positive & (scores[:, c] > t)).sum()) for t in (high, low)
            )
            steps = 2000
            x = (np.arange(steps) + 0.5) / steps
            if p1 > p0:  # the midpoint rule over what is found between two thresholds
                area += ((t0 + x * (t1 - t0)) / (p0 + x * (p1 - p0))).mean() * (t1 - t0) / positive.sum()
        areas.append(area)
    assert pr_auc(scores.tolist(), targets)["PR-AUC"] == pytest.approx(100 * np.mean(areas), abs=1e-4)


@pytest.mark.parametrize("score", [multilabel_map, box_map, charades_map, pr_auc])
def test_a_failed_example_is_never_found_and_a_target_in_its_place_always(score: Any) -> None:
    scores, targets = several(5)
    predictions: list[Any] = scores.tolist()
    plain, worse, better = (
        next(iter(score(given, targets).values()))
        for given in (
            predictions,
            [None if i % 3 == 0 else row for i, row in enumerate(predictions)],
            [targets[i] if i % 3 == 0 else row for i, row in enumerate(predictions)],
        )
    )
    assert worse < plain < better
    assert next(iter(score([None] * len(targets), targets).values())) == 0
    assert next(iter(score(targets, targets).values())) == pytest.approx(100)
    assert next(iter(score([[None] * 7] * len(targets), targets).values())) == 0  # as JSON says NaN


def test_scores_that_look_like_class_indices_are_still_scores() -> None:
    assert multilabel_map([[0.0, 1.0], [1.0, 0.0]], [(0, 1), (1,)])["mAP"] == pytest.approx(75)
    assert multilabel_map([(0, 1), [1.0, 0.0]], [(0, 1), (1,)])["mAP"] == pytest.approx(100)


@pytest.mark.parametrize("empty", [True, False])
def test_chance_is_what_random_scores_give(empty: bool) -> None:
    _, targets = several(6)
    rng = np.random.default_rng(0)
    score = multilabel_map if empty else charades_map
    drawn = [score(rng.random((80, 7)).tolist(), targets)["mAP"] for _ in range(800)]
    assert np.mean(drawn) == pytest.approx(chance_map(targets, empty), abs=4 * float(np.std(drawn)) / math.sqrt(800))


@pytest.mark.parametrize(
    ("predictions", "told"),
    [
        ([[0.1, 0.2], [0.3]], "predictions hold 1 and 2 scores"),
        ([[0.1], [0.3]], "predictions hold 1 scores, and there is a class 1"),
        ([[0.1, 0.2], 3], "prediction .3. is not a list of scores"),
        ([[0.1, 0.2], "0.5"], "prediction .0.5. is not a list of scores"),
        ([[0.1, 0.2], {"a": 1}], "is not a list of scores"),
    ],
)
def test_what_is_no_score_of_each_class_is_refused(predictions: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        multilabel_map(predictions, [(0,), (1,)])


def test_pr_auc_refuses_what_is_no_probability() -> None:
    with pytest.raises(UserError, match=r"scores reach from -2 to 0.5; wanted probabilities in 0..1"):
        pr_auc([[0.5], [-2.0]], [(0,), ()])


def test_no_class_at_all_gives_nan_rather_than_an_error() -> None:
    for score in (multilabel_map, box_map, charades_map, pr_auc):
        assert math.isnan(next(iter(score([[0.1, 0.2]], [()]).values())))
        assert math.isnan(next(iter(score([], []).values())))


def test_foreground_map_is_scikit_learns_mean_over_all_classes_but_the_first() -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    truth = rng.random((200, 5)) < 0.2
    truth[:, 0] = ~truth[:, 1:].any(1)
    scores = rng.random((200, 5)).round(2)
    targets = [tuple(np.flatnonzero(row).tolist()) for row in truth]
    wanted = 100 * average_precision_score(truth[:, 1:], scores[:, 1:], average="macro")
    assert foreground_map(scores.tolist(), targets)["mAP"] == pytest.approx(wanted, abs=1e-9)
    worse = scores.copy()
    worse[:, 0] = rng.random(200)
    assert foreground_map(worse.tolist(), targets) == foreground_map(scores.tolist(), targets)


def test_foreground_map_counts_a_failed_frame_as_not_found_and_knows_no_background_alone() -> None:
    assert foreground_map([[0, 0.9], None, [0, 0.1]], [(1,), (1,), (0,)])["mAP"] == 50
    assert np.isnan(foreground_map([None, None], [(0,), (0,)])["mAP"])
