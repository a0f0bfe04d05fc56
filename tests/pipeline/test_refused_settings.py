"""Settings that a trained adapter's weights depend on, though their shapes would not tell."""

from pathlib import Path

import pytest

from evalkit.config.keys import adapter_defaults, settings_class
from evalkit.errors import UserError
from evalkit.pipeline.settings import refuse_other


@pytest.mark.parametrize("name", ["probe", "localizer", "captioner", "multiple_choice"])
def test_they_are_settings_of_the_adapter(name: str) -> None:
    assert settings_class(name).TRAINED_WITH
    assert {*settings_class(name).TRAINED_WITH} <= adapter_defaults(name).keys()


def test_another_value_than_it_was_trained_with_is_refused() -> None:
    stored, folder = {"length": None, "token_grid": 2, "lr": 1e-3}, Path("my_encoder/adapters/localizer")
    refuse_other({"token_grid": 2, "lr": 3e-3}, stored, ("length", "token_grid"), folder)
    refuse_other({"new": 1}, stored, ("new",), folder)  # which it did not have when it was trained
    with pytest.raises(UserError) as caught:
        refuse_other({"length": 128}, stored, ("length", "token_grid"), folder)
    assert str(caught.value) == (
        "adapter.length=128: the adapter in my_encoder/adapters/localizer was trained with adapter.length=none: leave "
        "it out, or train another with adapter.from=none"
    )
