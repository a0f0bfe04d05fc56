"""Trained adapters on disk: settings checked as words are, weights that must be numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evalkit.config.keys import adapter_keys
from evalkit.errors import UserError
from evalkit.pipeline.settings import trained_settings
from evalkit.weights import trained_adapter
from tests.adapters.test_captioner import captioner


def stored(folder: Path, settings: Any) -> Path:
    (folder / "adapter.json").write_text(json.dumps({"settings": settings}))
    return folder


def test_settings_of_a_trained_adapter_are_checked_as_words_are(tmp_path: Path) -> None:
    keys = adapter_keys("captioner")
    good = {"latents": 3, "depth": 1, "lr": 1, "join": "prefix", "gate": False, "unknown": 1}
    assert trained_settings(stored(tmp_path, good), {}, keys) == {**good, "lr": 1.0}
    for name, value, told in (
        ("latents", "x", "latents=x: expected a whole number"),
        ("latents", 0, "latents=0: expected a whole number above 0"),
        ("latents", None, "latents=None: expected a whole number"),
        ("latents", [3], "expected a whole number"),
        ("latents", {"a": {}}, "expected a whole number"),
        ("lr", 10**400, "expected a number"),
        ("lr", float("nan"), "expected"),
        ("gate", 3, "gate=3: expected true or false"),
        ("join", "prefi", "is not one of prefix, cross_attention. Did you mean 'prefix'?"),
    ):
        with pytest.raises(UserError) as caught:
            trained_settings(stored(tmp_path, {**good, name: value}), {}, keys)
        assert str(caught.value).startswith(f"{tmp_path / 'adapter.json'}: ") and told in str(caught.value)
        assert len(str(caught.value)) < 1000


def test_weights_that_are_missing_more_or_no_numbers_are_told_by_name(tmp_path: Path, lm: Path) -> None:
    settings: dict[str, Any] = {"latents": 3, "depth": 2}
    folder = tmp_path / "adapter"
    trained_adapter.save_adapter(captioner(lm, **settings), folder, {"settings": settings})
    fresh = captioner(lm, **settings)
    trained_adapter.restore_adapter(fresh, folder)
    weights = load_file(folder / "adapter.safetensors")
    name = next(name for name in weights if name.endswith("resampler.latents"))

    def told(adapter: Any) -> str:
        with pytest.raises(UserError) as caught:
            trained_adapter.restore_adapter(adapter, folder)
        return str(caught.value)

    assert "unexpected " in told(captioner(lm, latents=3, depth=1))
    assert "missing " in told(captioner(lm, latents=3, depth=3))
    for value in (float("nan"), float("-inf")):
        save_file({**weights, name: torch.full_like(weights[name], value)}, folder / "adapter.safetensors")
        assert f"{name} holds " in told(fresh) and "NaN or infinite" in told(fresh)
    save_file({k: v for k, v in weights.items() if k != name}, folder / "adapter.safetensors")
    assert f"missing {name}" in told(fresh)
    (folder / "adapter.json").write_text('{"settings": {}, "frozen": [1]}')
    assert told(fresh) == f"{folder / 'adapter.json'}: its frozen is a list, wanted hashes by name"
    (folder / "adapter.json").write_text("[" * 100_000)
    assert told(fresh) == f"cannot read {folder / 'adapter.json'}: it is nested too deeply"
