"""From what was predicted to the rows of a run: a prediction that is not a number is a failure."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evalkit.api import Example, Prediction
from evalkit.pipeline.journal import Journal
from evalkit.pipeline.predict import Predictions
from evalkit.pipeline.runner import _rows


def row_of(prediction: Prediction) -> Any:
    (row,) = _rows([Example("a", Path("a.mp4"), 1)], Predictions({"": {"a": prediction}}, {}, {}, Journal("")))
    return row


@pytest.mark.parametrize(
    "prediction",
    [
        Prediction(float("nan")),
        Prediction([0.5, float("inf")]),
        Prediction(([1], np.array([1.0, np.nan]))),
        Prediction(torch.tensor([float("nan")])),
        Prediction([2, 0, 1], {"probabilities": [float("nan")] * 3}),  # the order of what has none
    ],
)
def test_a_prediction_of_nan_is_a_failure_by_name(prediction: Prediction) -> None:
    row = row_of(prediction)
    assert (row.prediction, row.detail) == (None, None)
    assert row.failure == "the adapter predicted NaN or infinity"


@pytest.mark.parametrize(
    "prediction",
    [
        Prediction([2, 0, 1], {"probabilities": [0.5, 0.3, 0.2], "said": "nan"}),
        Prediction(3, {"log_likelihood": [-1.5, float("-inf")]}),  # of an option that cannot be said
        Prediction("nan"),
        Prediction((torch.arange(3), np.ones(2))),
    ],
)
def test_a_prediction_of_numbers_and_words_is_kept(prediction: Prediction) -> None:
    assert row_of(prediction).prediction is not None and row_of(prediction).failure is None
