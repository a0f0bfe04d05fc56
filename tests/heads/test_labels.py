"""Predictions of classes: the likeliest first, of equals the lower."""

from pathlib import Path

import pytest
import torch

from evalkit.api import Example, Task, Views
from evalkit.errors import UserError
from evalkit.heads.labels import best_classes, class_predictions, multi_label


@pytest.mark.parametrize("classes", [3, 7, 400])
def test_a_tie_goes_to_the_lower_class(classes: int) -> None:
    """As of an encoder that gives zeros; torch.topk gives any."""
    ((prediction,),) = class_predictions(torch.zeros(1, 1, 2, classes), several=False)
    assert prediction.value == [0, 1, 2, 3, 4][:classes]
    assert prediction.detail == {"probabilities": [round(1 / classes, 6)] * min(5, classes)}


def test_the_best_come_first_and_equals_keep_their_order() -> None:
    scores = torch.tensor([[0.5, 1.0, 0.5, 1.0, 0.25, 0.5, 0.0]]).repeat(3, 1)
    best = best_classes(scores)
    assert best.indices.tolist() == [[1, 3, 0, 2, 5]] * 3
    assert best.values.tolist() == [[1.0, 1.0, 0.5, 0.5, 0.5]] * 3


@pytest.mark.parametrize("target", [[[1.0, 2.0, "jump"]], [], 0])
def test_sequences_of_windows_are_refused_with_the_adapter_that_reads_them(target: object) -> None:
    example = Example("a", Path("a.mp4"), target, (0.0, 9.0))
    task = Task([example], lambda values, targets: {}, classes=("jump",), views=Views(window=1.0))
    with pytest.raises(UserError, match="sequence of windows .* use adapter=localizer"):
        multi_label(task)
