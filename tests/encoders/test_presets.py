"""The presets: what each describes, and where its weights come from."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit import api, encoders
from evalkit.weights import checkpoint, huggingface, presets
from tests.encoders.test_load import load


def test_presets_with_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    one = checkpoint.sha256(load("random:vivit_demo", seed=3))
    assert torch.equal(torch.get_rng_state(), state)  # what is random elsewhere stays as it was
    torch.rand(5)
    assert checkpoint.sha256(load("random:vivit_demo", seed=3)) == one
    assert checkpoint.sha256(load("random:vivit_demo", seed=4)) != one


@functools.cache
def built(name: str) -> Any:
    """The encoder of a preset, without values."""
    from transformers.models.videomae import modeling_videomae

    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        # VideoMAE's table of positions holds no weights, and takes seconds.
        patch.setattr(modeling_videomae, "get_sinusoid_encoding_table", lambda n, dim: torch.zeros(1, n, dim))
        return encoders.read_preset(name).build()


@pytest.mark.parametrize("name", sorted(presets.presets()))
def test_every_preset_describes_an_encoder_that_fits_its_clip(name: str) -> None:
    spec, module = encoders.read_preset(name), built(name)
    encoded = module(torch.empty(1, spec.clip.frames, 3, spec.clip.size, spec.clip.size, device="meta"))
    assert encoded.tokens.shape[-1] == module.dim
    assert encoded.pooled.shape == (1, getattr(module, "pooled_dim", module.dim))


def test_a_preset_with_published_weights_stands_for_its_model_on_the_hub(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    asked: list[str] = []

    def fetch(name: str) -> Path:
        asked.append(name)
        return tiny

    monkeypatch.setattr(huggingface, "fetch", fetch)
    assert load("clip_base").dim == 24 and load("some/model@main").dim == 24
    assert asked == ["openai/clip-vit-base-patch16", "some/model@main"]


# --- the list --------------------------------------------------------------------------------------------------------


def test_the_list_of_encoders_is_read_without_torch() -> None:
    code = "import sys; from evalkit.cli import main; main(['list', 'encoders']); assert 'torch' not in sys.modules"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    lines = told.splitlines()
    assert lines[0].split() == ["name", "family", "parameters", "clip", "text", "weights", "source"]
    assert lines[1].startswith("demo ") and "Apache-2.0" in lines[1]
    assert {line.split(" ")[0] for line in lines[1:]} >= set(presets.presets())


@pytest.mark.parametrize("name", sorted(presets.presets()))
def test_a_preset_has_as_many_weights_as_its_card_says_and_a_text_tower_where_it_says(name: str) -> None:
    card = presets.card(presets.presets()[name])
    module = built(name)
    assert sum(parameter.numel() for parameter in module.parameters()) == card.parameters
    assert api.has_text(module) == card.text
    assert card.source.startswith("https://") and bool(card.license) == bool(card.hub or name == "vivit_demo")
