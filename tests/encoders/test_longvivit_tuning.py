"""Adapters and LoRA in a vision transformer."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.encoders.test_longvivit import tiny


def test_mlp_adapters_change_nothing_at_the_start_and_stand_after_the_mlp() -> None:
    video = torch.randn(1, 8, 3, 32, 32)
    plain, model = tiny(), tiny(adapter=4)
    model.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(plain(video).tokens, model(video).tokens)
    added = [parameter.numel() for name, parameter in model.named_parameters() if ".adapter." in name]
    assert sum(added) == 2 * (2 * 24 * 4 + 24 + 4)
    for block in model.blocks:
        nn.init.normal_(block.adapter[2].weight)
        nn.init.normal_(block.adapter[2].bias)
    seen: list[tuple[Tensor, Tensor]] = []
    own = model.blocks[0]
    own.register_forward_hook(lambda _module, inputs, output: seen.append((inputs[0], output)))
    model(video)
    x = seen[0][0] + own.attention(own.norm1(seen[0][0]))
    h = own.mlp(own.norm2(x))
    up, down = own.adapter[2], own.adapter[0]
    bottleneck = nn.functional.gelu(h @ down.weight.T + down.bias) @ up.weight.T + up.bias
    assert torch.allclose(seen[0][1], x + h + bottleneck, atol=1e-5)


@pytest.mark.parametrize("attention", ["joint", "factorized"])
def test_lora_changes_nothing_at_the_start_and_is_a_product_of_low_rank_in_every_map(attention: str) -> None:
    video = torch.randn(1, 8, 3, 32, 32)
    plain, model = tiny(attention=attention), tiny(attention=attention, lora=2)
    model.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(plain(video).tokens, model(video).tokens)
    maps = ["attention.qkv", "attention.out", "mlp.0", "mlp.2"]
    maps += ["temporal.attention.qkv", "temporal.attention.out"] if attention == "factorized" else []
    found = {name.partition(".lora_")[0] for name in model.state_dict() if ".lora_" in name}
    assert found == {f"blocks.{i}.{name}" for i in range(2) for name in maps}
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name in found:
        layer: Any = model.get_submodule(name)
        assert layer.lora_down.weight.shape[0] == layer.lora_up.weight.shape[1] == 2
        nn.init.normal_(layer.lora_up.weight)
        plain.get_submodule(name).weight.data += layer.lora_up.weight @ layer.lora_down.weight
    assert torch.allclose(plain(video).tokens, model(video).tokens, atol=1e-4)


def test_lora_gives_what_peft_gives_with_the_same_weights() -> None:
    peft = pytest.importorskip("peft", reason="needs peft: pip install 'video-evalkit[dev]'")
    plain, model = tiny(attention="factorized"), tiny(attention="factorized", lora=2)
    for block in plain.blocks:
        nn.init.constant_(block.temporal.alpha, 0.5)  # behind a shut gate the temporal maps count for nothing
    model.load_state_dict(plain.state_dict(), strict=False)
    maps = ["attention.qkv", "attention.out", "mlp.0", "mlp.2"]
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, lora_alpha=2, target_modules=maps), plain.blocks)
    layers = {name: layer for name, layer in plain.named_modules() if hasattr(layer, "lora_A")}
    assert len(layers) == 2 * 6
    with torch.no_grad():
        for name, layer in layers.items():
            ours: Any = model.get_submodule(name)
            ours.lora_up.weight.normal_(std=0.1)
            layer.lora_A["default"].weight.copy_(ours.lora_down.weight)
            layer.lora_B["default"].weight.copy_(ours.lora_up.weight)
    video = torch.randn(1, 8, 3, 32, 32)
    assert torch.allclose(plain(video).tokens, model(video).tokens, atol=1e-5)


def test_a_copy_of_an_encoder_with_lora_has_low_rank_terms_of_its_own() -> None:
    model = tiny(lora=2)
    other = copy.deepcopy(model)
    video = torch.randn(1, 8, 3, 32, 32)
    before = model(video).tokens
    with torch.no_grad():
        other.blocks[0].mlp[0].lora_up.weight.normal_()
    assert torch.equal(model(video).tokens, before) and not torch.equal(other(video).tokens, before)
