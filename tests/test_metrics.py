import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.api import UserError
from evalkit.metrics import accuracy, retrieval, top1_top5

EXPECTED = Path(__file__).parents[2] / "shared" / "data" / "expected" / "retrieval"


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
    found = retrieval([None, {"rank": math.nan}, {"rank": None}, "video4"], ["a", "b", "c", "video4"])
    assert found["R@10"] == [0.0, 0.0, 0.0, 1.0]


def test_a_failed_prediction_is_wrong_even_where_the_target_is_nan() -> None:
    assert accuracy([None], [0])["accuracy"] == [0.0]
    assert retrieval([None], [None])["R@1"] == [0.0]


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


def ranks_of(similarity: np.ndarray[Any, Any]) -> list[dict[str, float]]:
    """Query i should find item i."""
    return [{"rank": 1 + (row > row[i]).sum() + ((row == row[i]).sum() - 1) / 2} for i, row in enumerate(similarity)]


def test_recall_at_k_equals_torchmetrics_hit_rate() -> None:
    import torch
    from torchmetrics.functional.retrieval import retrieval_hit_rate

    similarity = np.random.default_rng(2).normal(size=(60, 60)) + np.eye(60)
    found = retrieval(ranks_of(similarity), range(60))
    for k in (1, 5, 10):
        hits = [
            float(retrieval_hit_rate(torch.tensor(row), torch.arange(60) == i, top_k=k))
            for i, row in enumerate(similarity)
        ]
        assert found[f"R@{k}"] == hits


def test_a_constant_similarity_matrix_ranks_everything_in_the_middle() -> None:
    found = retrieval(ranks_of(np.ones((50, 50))), range(50))
    assert found["median_rank"] == found["mean_rank"] == 25.5
    assert percent(found["R@10"]) == 0.0


def test_a_tie_for_the_first_place_is_no_hit_at_one() -> None:
    assert retrieval([{"rank": 1.5}], [0])["R@1"] == [0.0]


def test_a_failed_query_ranks_last_in_the_median_and_the_mean() -> None:
    assert retrieval([{"rank": 1}, None, {"rank": 2}, None], "abcd")["mean_rank"] == (1 + 4 + 2 + 4) / 4
    assert retrieval([{"rank": 1}, None, {"rank": 90}], "abc")["mean_rank"] == (1 + 90 + 90) / 3
    assert retrieval([None, None], "ab")["median_rank"] == 2


def test_nothing_to_score_gives_nothing_rather_than_an_error() -> None:
    assert accuracy([], []) == {"accuracy": []}
    assert top1_top5([], []) == {"top1": [], "top5": []}
    found = retrieval([], [])
    assert found["R@1"] == [] and isinstance(found["mean_rank"], float) and math.isnan(found["mean_rank"])


@pytest.mark.parametrize("score", [accuracy, top1_top5, retrieval])
def test_a_wrong_number_of_predictions_is_an_error(score: Any) -> None:
    with pytest.raises(ValueError):
        score([None, None], [1])


@pytest.mark.parametrize("prediction", [{"rank": 0}, {"rank": -3.0}, {"r": 1}, 5])
def test_retrieval_refuses_what_has_no_rank_from_one(prediction: object) -> None:
    with pytest.raises(UserError, match="is not"):
        retrieval([prediction], [7])


@pytest.mark.skipif(not EXPECTED.is_dir(), reason="needs shared/data/expected/retrieval, which is not part of evalkit")
def test_retrieval_equals_clip4clip_and_frozen_in_time_on_their_matrices() -> None:
    expected = json.loads((EXPECTED / "expected.json").read_text())
    with np.load(EXPECTED / "square_1000.npz") as arrays:
        square = arrays["text"] @ arrays["video"].T
    with np.load(EXPECTED / "ties_200.npz") as arrays:
        ties = arrays["sims"]
    for similarity, theirs in (
        (square, expected["square_1000"]["clip4clip_t2v"]),
        (square.T, expected["square_1000"]["clip4clip_v2t"]),
        (ties.T, expected["ties_200"]["frozen_v2t(averaging)"]),
    ):
        mine = retrieval(ranks_of(similarity), range(len(similarity)))
        assert mine["median_rank"] == theirs.get("MedianR", theirs.get("MedR"))
        assert mine["mean_rank"] == pytest.approx(theirs["MeanR"], abs=1e-9)
        assert percent(mine["R@1"]) == pytest.approx(theirs["R1"])
        if similarity.shape == (1000, 1000):  # with ties Frozen in Time takes rank 5.5 as a hit at 5, we do not
            assert [percent(mine[f"R@{k}"]) for k in (5, 10)] == pytest.approx([theirs["R5"], theirs["R10"]])
