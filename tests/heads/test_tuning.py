"""Adapters and low-rank terms fit any family, change nothing at first, and are all that a gradient reaches."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput
from evalkit.encoders import hf_image, hf_image_text, hf_video, longvivit, videoprism, vjepa2
from evalkit.errors import UserError
from evalkit.heads import tuning

CLIP = Clip(frames=4, size=32)
TEXT = {"vocabulary": 200, "dim": 24, "depth": 1, "heads": 2, "tokens": 32}
SHAPE: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
TOWER: dict[str, Any] = {**SHAPE, "image_size": 32, "patch_size": 8}
FAMILIES: dict[str, Callable[[], Any]] = {
    "vivit": lambda: longvivit.encoder(CLIP, dim=24, depth=2, heads=3, hidden=48, text=TEXT),
    "vivit with adapters": lambda: longvivit.encoder(CLIP, dim=24, depth=2, heads=3, hidden=48, adapter=4),
    "factorized vivit": lambda: longvivit.encoder(CLIP, dim=24, depth=2, heads=3, hidden=48, attention="factorized"),
    "videoprism": lambda: videoprism.encoder(
        CLIP, patch=8, dim=24, heads=3, hidden=48, spatial_depth=1, temporal_depth=1
    ),
    "videomae": lambda: hf_video.encoder(CLIP, model_type="videomae", num_frames=4, **TOWER),
    "timesformer": lambda: hf_video.encoder(CLIP, model_type="timesformer", num_frames=4, **TOWER),
    "vjepa2": lambda: vjepa2.encoder(
        CLIP,
        crop_size=32,
        patch_size=8,
        frames_per_clip=4,
        hidden_size=24,
        num_attention_heads=2,
        num_hidden_layers=2,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    ),
    "clip": lambda: hf_image_text.encoder(
        CLIP, model_type="clip", vision_config=TOWER, text_config={**SHAPE, "vocab_size": 50}, projection_dim=16
    ),
    "siglip": lambda: hf_image_text.encoder(
        CLIP, model_type="siglip", vision_config=TOWER, text_config={**SHAPE, "vocab_size": 50}
    ),
    "dinov2": lambda: hf_image.encoder(CLIP, model_type="dinov2", image_size=32, mlp_ratio=2, **_but(TOWER)),
    "dinov2 with gates": lambda: hf_image.encoder(
        CLIP, model_type="dinov2", image_size=32, mlp_ratio=3, use_swiglu_ffn=True, **_but(TOWER)
    ),
}


def _but(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in ("intermediate_size", "image_size")}


def make(family: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = FAMILIES[family]().eval().requires_grad_(False)
    for name, gate in encoder.named_parameters():
        if name.endswith("temporal.alpha"):  # behind a shut gate nothing is trained
            gate.fill_(0.5)
    return encoder


def video() -> Tensor:
    return torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def put(kind: str, encoder: Any) -> nn.ModuleList:
    reached = tuning.tuned_layers(encoder)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # a unit of a ReLU that is never open has no gradient
        return getattr(tuning, f"put_{kind}")(encoder, reached, 4)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["bottlenecks", "low_rank"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_changes_at_first_and_every_new_layer_is_trained(family: str, kind: str) -> None:
    encoder = make(family)
    before, names = encoder(video()), list(encoder.state_dict())
    sides = put(kind, encoder)
    after = encoder(video())
    assert torch.equal(after.tokens, before.tokens) and torch.equal(after.pooled, before.pooled)
    assert list(encoder.state_dict()) == names
    if kind == "bottlenecks":
        assert len(sides) == 2  # one per block, none in a text tower or a pooling head
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in sides.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.1)
    changed = encoder(video()).tokens
    assert not torch.equal(changed, before.tokens)
    changed.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in sides.parameters())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_a_bottleneck_reads_what_the_mlp_reads_and_adds_to_what_it_gives() -> None:
    encoder = make("vivit")
    block, x = encoder.blocks[1], torch.randn(2, 5, 24)
    plain = block.mlp(x)
    side: Any = put("bottlenecks", encoder)[1]
    with torch.no_grad():
        side.up.weight.normal_()
        side.scale.fill_(0.3)
    down = F.linear(x, side.down.weight, side.down.bias).clamp(min=0)
    assert torch.allclose(block.mlp(x), plain + 0.3 * (down @ side.up.weight.T), atol=1e-6)


def test_low_rank_terms_are_those_of_peft() -> None:
    peft = pytest.importorskip("peft", reason="needs peft: pip install 'video-evalkit[dev]'")
    encoder = make("vivit")
    theirs = copy.deepcopy(encoder.blocks)
    maps = ["attention.qkv", "attention.out", "mlp.0", "mlp.2"]
    peft.inject_adapter_in_model(peft.LoraConfig(r=4, lora_alpha=4, target_modules=maps), theirs)
    sides = put("low_rank", encoder)
    layers = [layer for layer in theirs.modules() if hasattr(layer, "lora_A")]
    assert len(layers) == len(sides) == 8
    with torch.no_grad():
        for layer, side in zip(layers, sides, strict=True):
            side[1].weight.normal_(std=0.1)  # type: ignore[index]
            layer.lora_A["default"].weight.copy_(side[0].weight)  # type: ignore[index]
            layer.lora_B["default"].weight.copy_(side[1].weight)  # type: ignore[index]
    x, layout = torch.randn(2, 5, 24), longvivit.Layout(1, 5, None)
    for own, other in zip(encoder.blocks, theirs, strict=True):
        assert torch.allclose(own(x, layout), other(x, layout), atol=1e-6)


def test_what_the_tokens_do_not_depend_on_is_not_reached() -> None:
    names = tuning.tuned_layers(make("siglip"))
    assert "image.model.embeddings.patch_embedding.weight" in names
    assert not [name for name in names if name.startswith(("text.", "image.model.head."))]


class Own(nn.Module):
    """An encoder of the user's own, which looks at values and has no block."""

    clip, dim = Clip(frames=2, size=4), 3

    def __init__(self) -> None:
        super().__init__()
        self.map, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, video: Tensor) -> EncoderOutput:
        brightness = float(video.mean())
        tokens = self.map(video.flatten(3).transpose(2, 3) - brightness)
        return EncoderOutput(tokens, tokens.mean((1, 2)))


def test_an_encoder_that_looks_at_values_is_called_with_some() -> None:
    assert tuning.tuned_layers(Own()) == {"map.weight", "map.bias"}


def test_an_encoder_without_mlps_or_blocks_is_refused() -> None:
    with pytest.raises(UserError, match="tune=adapters: no MLP of torch.nn.Linear from 3 values to more and back"):
        put("bottlenecks", Own())
    with pytest.raises(UserError, match=r"tune=lora: no torch.nn.Linear is in blocks of this encoder; use tune=all"):
        put("low_rank", Own())
