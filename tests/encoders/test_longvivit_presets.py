"""Vision transformers on disk and their presets."""

from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit.encoders import Spec, load_encoder, read_preset, save_encoder
from evalkit.encoders.longvivit import ViViT
from evalkit.errors import UserError
from evalkit.weights.presets import card, presets
from tests.encoders.test_longvivit import CLIP
from tests.encoders.test_longvivit_tubes import TUBES

# --- on disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"attention": "factorized", "adapter": 4},
        {"tubes": [{key: list(value) for key, value in tube.items()} for tube in TUBES]},
        {"attention": "frame", "pooling": "attention"},
        {"lora": 2},
    ],
)
def test_a_variant_that_was_saved_is_loaded_as_it_was(settings: dict[str, Any], tmp_path: Path) -> None:
    spec = Spec("longvivit", CLIP, {"dim": 24, "depth": 2, "heads": 3, "hidden": 48, **settings})
    model = spec.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter).half() * 0.1)
    save_encoder(model, spec, tmp_path)
    video = torch.randn(1, 8, 3, 32, 32)
    assert torch.equal(load_encoder(str(tmp_path))(video).pooled, model(video).pooled)


def test_settings_of_tubes_that_are_none_are_told_in_one_line() -> None:
    for tubes in ([{"kernel": [1, 2]}], [{"size": [1, 2, 2]}], [3]):
        with pytest.raises(UserError, match="encoder longvivit cannot be built as its settings say"):
            Spec("longvivit", CLIP, {"tubes": tubes}).build()


# --- presets ---------------------------------------------------------------------------------------------------------

OURS = sorted(name for name, file in presets().items() if "encoder: longvivit\n" in file.read_text())


def built(name: str) -> ViViT:
    with torch.device("meta"):
        return read_preset(name).build()  # type: ignore[return-value]


@pytest.mark.parametrize("name", OURS)
def test_a_presets_card_counts_its_weights(name: str) -> None:
    said, model = card(presets()[name]), built(name)
    assert said.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert said.text is (model.text is not None) and said.source == "https://arxiv.org/abs/2312.07395"
    assert said.license == ("Apache-2.0" if name == "vivit_demo" else "") and not said.hub


@pytest.mark.parametrize("name", [name for name in OURS if not name.endswith("_demo")])
def test_every_preset_is_a_vision_transformer_of_its_papers_size(name: str) -> None:
    """Patch and positions differ from variant to variant; what a variant adds to the layers is not counted."""
    millions = 86 if "base" in name else 307
    extra = (".temporal.", ".adapter.", ".lora_")
    blocks = sum(
        parameter.numel()
        for name, parameter in built(name).blocks.named_parameters()
        if not any(part in name for part in extra)
    )
    assert blocks / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
    ("name", "shape", "kept"),
    [
        ("factorized_vivit_base", (8, 256), (8, 64)),
        ("imagevit_attention_base", (16, 256), (16, 64)),
        ("shortvivit_base", (8, 256), (1, 512)),
        ("shortvivit_base_4x16x16", (4, 256), (1, 256)),
        ("shortvivit_base_2x32x32", (8, 64), (1, 128)),
        ("tubevit_base", (1, 64 + 64 + 64 + 256), (1, 16 + 16 + 16 + 64)),
    ],
)
def test_a_variants_preset_gives_its_number_of_tokens(name: str, shape: tuple[int, int], kept: tuple[int, int]) -> None:
    model = built(name)
    video = torch.empty(1, model.clip.frames, 3, model.clip.size, model.clip.size, device="meta")
    assert model(video).tokens.shape == (1, *shape, 768)
    assert model(video, mask_ratio=0.75).tokens.shape == (1, *kept, 768)
