"""The presets: what each describes, and where its weights come from."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit import api, encoders
from evalkit.config.keys import known_keys
from evalkit.config.parse import resolve
from evalkit.errors import UserError
from evalkit.weights import checkpoint, huggingface, presets
from tests.encoders.test_load import load
from tests.given import library


def test_presets_with_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    one = checkpoint.sha256(load("random:vivit_demo", seed=3))
    assert torch.equal(torch.get_rng_state(), state)  # what is random elsewhere stays as it was
    torch.rand(5)
    assert checkpoint.sha256(load("random:vivit_demo", seed=3)) == one
    assert checkpoint.sha256(load("random:vivit_demo", seed=4)) != one


def test_settings_of_random_weights_stand_in_place_of_the_presets(vocabulary: Path) -> None:
    small = load("random:vivit_demo", dim=40, depth=2, frames=16, size=32, tubelet=(4, 16, 16), attention="frame")
    assert (small.dim, len(small.blocks), small.clip.frames, small.clip.size) == (40, 2, 16, 32)
    assert small.clip.mean == (0.5, 0.5, 0.5) and small.tubes[0].kernel == (4, 16, 16)
    settings = {"dim": 40, "heads": 4, "frames": 8, "tokenizer": vocabulary}
    spec = encoders.spec_of("random:vivit_demo", vocabulary, settings=settings)
    assert spec.settings["dim"] == 40 and spec.clip.frames == 8 and spec.tokenizer == vocabulary
    assert spec.settings["heads"] == 4 and "tokenizer" not in spec.settings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dmi": 40}, "unknown setting 'dmi' of an encoder of family longvivit. Known: frames, size, tubelet, dim"),
        ({"depths": 4}, "unknown setting 'depths' of an encoder of family longvivit. Did you mean 'depth'?"),
        ({"depth": "x"}, "encoder longvivit cannot be built as its settings say: depth='x': expected a whole number"),
        ({"frames": "x"}, "encoder.frames='x': expected a whole number"),
        ({"frames": 0}, ""),
        ({"prefix": "m."}, "encoder.prefix=m. has no effect on random weights: leave it out"),
    ],
)
def test_a_wrong_setting_of_random_weights_is_told(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        load("random:vivit_demo", **settings)
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)


def test_settings_of_random_weights_are_keys_with_the_presets_values() -> None:
    keys = known_keys("run", "folder", "", "random:factorized_vivit_base")
    assert keys["encoder.attention"].default == "factorized" and keys["encoder.frames"].default == 16
    assert keys["encoder.heads"].default == 12 and "encoder.tubes" not in keys
    assert "encoder.dim" not in known_keys("run", "folder", "", "demo")
    words = ["task=folder", "mini=true", "ckpt=random:vivit_demo", "encoder.tubelet=[4,16,16]", "encoder.lora=4"]
    assert resolve("run", words).encoder == {"tubelet": (4, 16, 16), "lora": 4}
    with pytest.raises(UserError, match="unknown key 'encoder.loar'. Did you mean 'encoder.lora'?"):
        resolve("run", [*words[:-1], "encoder.loar=4"])


@functools.cache
def built(name: str) -> Any:
    """The encoder of a preset, without values; only where the package that has it is installed."""
    if encoders.read_preset(name).family == "open_clip":
        library("open_clip")
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
    assert card.source.startswith("https://") and bool(card.license) == bool(
        card.hub or card.url or name == "vivit_demo"
    )
