"""Accuracies against scikit-learn and torchmetrics."""

import math
from typing import Any

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.metrics.classification import accuracy, macro_accuracy, top1_top5
from evalkit.metrics.retrieval import retrieval
from evalkit.runtime import notes


def percent(values: Any) -> float:
    return float(100 * np.mean(values))


def test_accuracy_equals_scikit_learn_and_torchmetrics() -> None:
    import torch
    from sklearn.metrics import accuracy_score
    from torchmetrics.functional.classification import multiclass_accuracy

    rng = np.random.default_rng(0)
    predictions, targets = rng.integers(7, size=(2, 500)).tolist()
    found = percent(accuracy(predictions, targets)["accuracy"])
    assert found == pytest.approx(100 * accuracy_score(targets, predictions), abs=1e-9)
    reference = multiclass_accuracy(torch.tensor(predictions), torch.tensor(targets), 7, average="micro")
    assert found == pytest.approx(100 * float(reference), abs=1e-4)


def test_a_failed_or_nan_prediction_is_wrong_and_a_target_in_its_place_is_right() -> None:
    assert accuracy([None, math.nan, 2, 0], [0, 1, 2, 3]) == {"accuracy": [0.0, 0.0, 1.0, 0.0]}
    assert top1_top5([None, math.nan, 2], [0, 1, 2]) == {"top1": [0.0, 0.0, 1.0], "top5": [0.0, 0.0, 1.0]}
    found = retrieval([None, {"t2v": math.nan, "v2t": 2}, {"t2v": 3, "v2t": None}, "d"], "abcd")
    assert found["t2v_R@10"] == [0.0, 0.0, 1.0, 1.0] and found["v2t_R@10"] == [0.0, 1.0, 0.0, 1.0]


def test_a_failed_prediction_is_wrong_even_where_the_target_is_nan() -> None:
    assert accuracy([None], [0])["accuracy"] == [0.0]
    assert retrieval([None], [None])["t2v_R@1"] == [0.0]


def test_numpy_and_torch_integers_are_class_indices() -> None:
    import torch

    assert accuracy([np.int64(3), torch.tensor(1)], [3, 1])["accuracy"] == [1.0, 1.0]


@pytest.mark.parametrize("prediction", [[3, 1], "3", 3.0, {"rank": 1}])
def test_accuracy_refuses_what_is_not_a_class_index(prediction: object) -> None:
    with pytest.raises(UserError, match=r"accuracy: prediction .* is not a class index"):
        accuracy([prediction], [3])


def test_top1_and_top5_equal_scikit_learn_and_torchmetrics() -> None:
    import torch
    from sklearn.metrics import top_k_accuracy_score
    from torchmetrics.functional.classification import multiclass_accuracy

    rng = np.random.default_rng(1)
    logits = rng.normal(size=(400, 11))
    targets = np.concatenate([np.arange(11), rng.integers(11, size=389)])
    found = top1_top5(np.argsort(-logits, axis=1).tolist(), targets.tolist())
    for k in (1, 5):
        mine = percent(found[f"top{k}"])
        assert mine == pytest.approx(100 * top_k_accuracy_score(targets, logits, k=k), abs=1e-9)
        theirs = multiclass_accuracy(torch.tensor(logits), torch.tensor(targets), 11, average="micro", top_k=k)
        assert mine == pytest.approx(100 * float(theirs), abs=1e-4)


def test_top5_needs_no_five_entries_where_there_are_fewer_classes() -> None:
    assert top1_top5([[1, 0], [1, 0]], [0, 1]) == {"top1": [0.0, 1.0], "top5": [1.0, 1.0]}


@pytest.mark.parametrize("prediction", [[0, 1, 2], 3, "01234", {"rank": 1}])
def test_top5_refuses_a_prediction_that_is_too_short_or_no_list(prediction: object) -> None:
    with pytest.raises(UserError, match="is not a list of at least 5 class indices in falling order of score"):
        top1_top5([prediction, [9, 8, 7, 6, 5]], [0, 9])


def test_a_top5_that_counts_everything_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with notes.remarks():
        assert top1_top5([[0, 1, 2, 3], [3, 2, 1, 0], None], [3, 3, 0])["top5"] == [1.0, 1.0, 0.0]
        assert "with 4 classes, top5 counts every prediction as right" in caplog.text
        top1_top5([[4, 3, 2, 1, 0], [0, 1, 2, 3, 4]] * 10, [4, 2] * 10)
        assert "with 5 classes" in caplog.text
    caplog.clear()
    with notes.remarks():
        top1_top5([[4, 3, 2, 1, 0], [0, 1, 2, 3, 4]], [4, 2])  # as of a val of two, which may leave out a sixth
        top1_top5([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]], [0, 5])  # five of six
        macro_accuracy([[0, 1], [1, 0]], [0, 1])  # which has no top5
    assert not caplog.text


def test_macro_accuracy_is_scikit_learns_balanced_accuracy() -> None:
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    targets = rng.choice(8, 300, p=np.array([30, 20, 20, 10, 10, 5, 3, 2]) / 100).tolist()
    ranked = [rng.permutation(8).tolist()[:5] if rng.random() < 0.5 else [t, *range(8)][:5] for t in targets]
    found = macro_accuracy(ranked, targets)
    wanted = balanced_accuracy_score(targets, [one[0] for one in ranked])
    assert found["macro_accuracy"] == pytest.approx(100 * wanted, abs=1e-9)
    assert found["top1"] == [float(one[0] == t) for one, t in zip(ranked, targets, strict=True)]


def test_macro_accuracy_of_failures_is_zero_and_of_nothing_unknown() -> None:
    assert macro_accuracy([None, [1, 0]], [0, 1])["macro_accuracy"] == 50
    value = macro_accuracy([], [])["macro_accuracy"]
    assert isinstance(value, float) and np.isnan(value)
