"""What all metrics have in common: nothing to score, a wrong number of predictions, draws of a bootstrap."""

import math
from typing import Any

import numpy as np
import pytest

from evalkit.metrics.average_precision import box_map, charades_map, foreground_map, multilabel_map, pr_auc
from evalkit.metrics.bootstrap import ReweightedScore
from evalkit.metrics.classification import accuracy, macro_accuracy, top1_top5
from evalkit.metrics.retrieval import retrieval


def test_nothing_to_score_gives_nothing_rather_than_an_error() -> None:
    assert accuracy([], []) == {"accuracy": []}
    assert top1_top5([], []) == {"top1": [], "top5": []}
    found = retrieval([], [])
    assert found["t2v_R@1"] == [] and isinstance(found["v2t_mean_rank"], float) and math.isnan(found["v2t_mean_rank"])


@pytest.mark.parametrize("score", [accuracy, top1_top5, retrieval])
def test_a_wrong_number_of_predictions_is_an_error(score: Any) -> None:
    with pytest.raises(ValueError):
        score([None, None], [1])


@pytest.mark.parametrize(
    ("score", "several"),
    [
        pytest.param(score, several)
        for score, several in ((retrieval, False), (retrieval, True), (macro_accuracy, False))
    ]
    + [pytest.param(score, False) for score in (multilabel_map, foreground_map, box_map, charades_map, pr_auc)],
)
def test_a_score_that_knows_its_draws_is_what_it_gives_on_the_drawn_examples(score: Any, several: bool) -> None:
    rng = np.random.default_rng(0)
    n, several_classes = 60, score not in (retrieval, macro_accuracy)
    predictions: list[Any] = [(rng.integers(0, 10, 4) / 9).tolist() for _ in range(n)]  # with ties
    targets: list[Any] = [np.flatnonzero(rng.random(4) < 0.4).tolist() for _ in range(n)]
    if score is retrieval:
        predictions = [{"t2v": int(a), "v2t": int(b)} for a, b in rng.integers(1, 60, size=(n, 2))]
        targets = [(f"v{i // 3}", i % 3) if several else f"v{i}" for i in range(n)]
    elif score is macro_accuracy:
        predictions, targets = rng.integers(4, size=(n, 5)).tolist(), rng.integers(4, size=n).tolist()
    if several_classes:
        predictions[7] = None
    found = score(predictions, targets)
    known = {name: value for name, value in found.items() if not isinstance(value, list)}
    assert known
    for _ in range(5):
        times = rng.multinomial(n, np.full(n, 1 / n))
        drawn = np.repeat(np.arange(n), times).tolist()
        again = score([predictions[i] for i in drawn], [targets[i] for i in drawn])
        for name, value in known.items():
            if isinstance(value, ReweightedScore):
                ours = value.of(np.stack([times, times], 1).astype(np.float32))[1]
            else:
                ours = value.of(times @ value.parts)
            assert ours == pytest.approx(float(again[name]), abs=1e-9), name
