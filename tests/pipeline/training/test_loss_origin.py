"""Where a loss that is not a number comes from: the step, the example, and which part of the model."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evalkit.api import Batch
from evalkit.errors import UserError
from evalkit.features.batches import InMemoryFeatures
from tests.given import QUESTIONS, TASK, make_adapter, small
from tests.pipeline.training.test_fit import Walker, examples, fitted

CAPTIONED = [replace(example, target=("a red ring", "a ring")) for example in QUESTIONS]


class Reader(Walker):
    """Whose loss is made of the features."""

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self.weight * batch.features.sum()


def test_features_that_are_no_numbers_are_named_with_step_and_example() -> None:
    features = torch.ones(8, 1, 2)
    features[5, 0, 1] = torch.nan
    train = replace(examples(8), rows=InMemoryFeatures(features))
    with pytest.raises(UserError) as caught:
        fitted(Reader(), train, examples(1, prefix="v"))
    assert str(caught.value) == "the loss became nan at step 1: the features of example 5 hold NaN or infinity"


def tokens() -> Tensor:
    return torch.randn(2, 1, 2, 4, 24, generator=torch.Generator().manual_seed(1)).half()


@pytest.mark.parametrize("name", ["multiple_choice", "captioner"])
def test_a_part_of_the_model_that_gives_nan_is_named(name: str) -> None:
    def made() -> Any:
        torch.manual_seed(0)
        return make_adapter(name, small(), TASK, latents=3, depth=1).train()

    asked = QUESTIONS if name == "multiple_choice" else CAPTIONED
    adapter, batch = made(), Batch(asked, tokens())
    assert adapter.training_step(batch, 0).isfinite() and adapter.loss_origin(batch) == ""

    broken = tokens()
    broken[1, 0, 0, 0, 0] = torch.inf
    assert adapter.loss_origin(Batch(asked, broken)) == "the encoder's tokens of example 2 hold NaN or infinity"

    with torch.no_grad():
        adapter.reader.resampler.latents.fill_(torch.nan)
    assert adapter.loss_origin(batch) == (
        "the trained weights resampler.latents hold NaN or infinity, try a lower adapter.lr"
    )

    adapter = made()
    with torch.no_grad():
        adapter.reader.words.weight.fill_(torch.nan)
    assert adapter.loss_origin(batch) == (
        "the language model gives NaN or infinity for the text of example 1 and 1 more, without the video, too"
    )
