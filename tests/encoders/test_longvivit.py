import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evalkit.api import Clip, Encoder
from evalkit.encoders import Spec, load_encoder, read_preset, save_encoder
from evalkit.encoders.longvivit import Tube, ViViT, encoder
from evalkit.errors import UserError
from evalkit.weights.presets import card, presets

CLIP = Clip(frames=8, size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def tiny(**settings: Any) -> Any:
    torch.manual_seed(0)
    return encoder(CLIP, dim=24, depth=2, heads=3, hidden=48, **settings).eval()


def test_tokens_and_pooled_have_the_promised_shapes() -> None:
    model = tiny()
    encoded = model(torch.randn(2, 8, 3, 32, 32))
    assert isinstance(model, Encoder)
    assert encoded.tokens.shape == (2, 4, 4, 24) and encoded.pooled.shape == (2, 24)
    assert torch.allclose(encoded.pooled, encoded.tokens.mean((1, 2)), atol=1e-6)
    assert encoded.layers == () and encoded.frames is None


def test_it_equals_a_convolution_and_torchs_own_transformer_layers() -> None:
    model = tiny()
    video = torch.randn(2, 8, 3, 32, 32)
    conv = nn.Conv3d(3, 24, (2, 16, 16), (2, 16, 16))
    conv.weight.data = model.patch.weight.data.view(24, 3, 2, 16, 16)
    conv.bias.data = model.patch.bias.data  # type: ignore[union-attr]
    x = conv(video.transpose(1, 2)) + model.positions
    x = x.flatten(2).transpose(1, 2)
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(24, 3, 48, 0.0, "gelu", batch_first=True, norm_first=True)
        own = block.state_dict()
        names = {
            "self_attn.in_proj_weight": "attention.qkv.weight",
            "self_attn.in_proj_bias": "attention.qkv.bias",
            "self_attn.out_proj.weight": "attention.out.weight",
            "self_attn.out_proj.bias": "attention.out.bias",
            "linear1.weight": "mlp.0.weight",
            "linear1.bias": "mlp.0.bias",
            "linear2.weight": "mlp.2.weight",
            "linear2.bias": "mlp.2.bias",
        }
        layer.load_state_dict({name: own[names.get(name, name)] for name in layer.state_dict()})
        x = layer.train()(x)  # its fast path in evaluation rounds otherwise
    expected = model.norm(x)
    assert torch.allclose(model(video).tokens.flatten(1, 2), expected, atol=2e-6)


@pytest.mark.parametrize("frames", [1, 2, 3, 16, 255, 256])
def test_any_number_of_frames_up_to_256_is_taken(frames: int) -> None:
    tokens = tiny()(torch.randn(1, frames, 3, 32, 32)).tokens
    assert tokens.shape == (1, -(-frames // 2), 4, 24)
    assert tokens.isfinite().all()


def test_an_odd_number_of_frames_holds_the_last_one() -> None:
    video = torch.randn(1, 7, 3, 32, 32)
    model = tiny()
    assert torch.equal(model(video).tokens, model(torch.cat([video, video[:, -1:]], 1)).tokens)


def test_positions_are_interpolated_to_another_size() -> None:
    model = tiny()
    assert model(torch.randn(1, 8, 3, 64, 48)).tokens.shape == (1, 4, 12, 24)
    assert torch.equal(model._positions(model.tubes[0], torch.Size((4, 2, 2)))[3, 1, 0], model.positions[0, :, 3, 1, 0])


@pytest.mark.parametrize("shape", [(1, 257, 3, 32, 32), (1, 8, 3, 30, 32), (1, 3, 8, 32, 32)])
def test_a_video_of_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        tiny()(torch.zeros(shape))


def test_masking_keeps_the_stated_share_and_no_mask_keeps_all() -> None:
    model = tiny()
    video = torch.randn(2, 8, 3, 32, 32)
    assert model(video, mask_ratio=0.75).tokens.shape == (2, 1, 4, 24)
    assert model(video, mask_ratio=0.3).tokens.shape == (2, 1, 11, 24)
    torch.manual_seed(1)
    first = model(video, mask_ratio=0.75).pooled
    assert not torch.allclose(first, model(video, mask_ratio=0.75).pooled)


def test_a_mask_only_leaves_tokens_out() -> None:
    """With one layer of attention switched off, what is kept is exactly what it would have been."""
    model = tiny()
    for block in model.blocks:
        nn.init.zeros_(block.attention.out.weight)
    video = torch.randn(1, 8, 3, 32, 32)
    full = model(video).tokens.flatten(1, 2)[0]
    for kept in model(video, mask_ratio=0.5).tokens[0, 0]:
        assert torch.isclose(full, kept, atol=1e-5).all(-1).any()


def test_frame_attention_sees_no_other_frame_and_joint_attention_does() -> None:
    video = torch.randn(1, 8, 3, 32, 32)
    changed = video.clone()
    changed[:, 6:] = 0
    frame = tiny(attention="frame", tubelet=(1, 16, 16))
    assert torch.allclose(frame(video).tokens[:, :6], frame(changed).tokens[:, :6], atol=1e-6)
    joint = tiny()
    assert not torch.allclose(joint(video).tokens[:, :3], joint(changed).tokens[:, :3], atol=1e-4)


def test_a_single_image_has_its_own_path_where_there_is_one() -> None:
    image = torch.randn(1, 1, 3, 32, 32)
    model = tiny(image_path=True)
    assert model(image).tokens.shape == (1, 1, 4, 24)
    assert not torch.allclose(model(image).tokens, model(image.expand(-1, 2, -1, -1, -1)).tokens)


def test_uint8_pixels_give_what_scaled_video_gives() -> None:
    model = tiny()
    pixels = torch.randint(0, 256, (2, 8, 3, 32, 32), dtype=torch.uint8)
    assert torch.allclose(model(pixels).pooled, model(CLIP.normalize(pixels)).pooled, atol=1e-6)


def test_the_text_tower_ignores_padding(vocabulary: Path) -> None:
    text = {"vocabulary": 200, "dim": 16, "depth": 2, "heads": 2, "tokens": 32}
    torch.manual_seed(0)
    model = encoder(CLIP, vocabulary, dim=24, depth=1, heads=3, hidden=48, text=text).eval()
    alone = model.encode_text(["a red ring grows"])
    together = model.encode_text(["a red ring grows", "a blue circle moves left, then a white cross blinks"])
    assert together.shape == (2, 24)
    assert torch.allclose(alone[0], together[0], atol=1e-6)


def test_an_encoder_without_a_text_tower_says_so() -> None:
    with pytest.raises(UserError, match="no text tower"):
        tiny().encode_text(["a red ring"])


# --- several layers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["joint", "frame", "factorized"])
def test_the_last_layers_are_the_blocks_own_outputs_and_the_last_one_is_tokens(attention: str) -> None:
    model = tiny(attention=attention)
    seen: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    encoded = model(torch.randn(2, 8, 3, 32, 32), layers=2)
    assert len(encoded.layers) == 2 and encoded.layers[1] is encoded.tokens
    assert torch.equal(encoded.layers[0], seen[0].reshape(2, 4, 4, 24))
    assert torch.equal(encoded.layers[1], model.norm(seen[1]).reshape(2, 4, 4, 24))


@pytest.mark.parametrize("layers", [0, 3])
def test_more_layers_than_there_are_cannot_be_asked_for(layers: int) -> None:
    with pytest.raises(UserError, match=f"layers={layers}: this encoder has 2 layers"):
        tiny()(torch.zeros(1, 8, 3, 32, 32), layers=layers)


# --- frames by themselves --------------------------------------------------------------------------------------------


def test_frame_level_encoding_gives_a_vector_a_frame_and_their_mean() -> None:
    encoded = tiny(attention="frame", tubelet=(1, 16, 16))(torch.randn(2, 8, 3, 32, 32))
    assert encoded.frames.shape == (2, 8, 24)
    assert torch.allclose(encoded.frames.mean(1), encoded.pooled, atol=1e-6)


def test_attention_pooling_is_one_query_over_the_tokens_of_all_frames() -> None:
    model = tiny(attention="frame", tubelet=(1, 16, 16), pooling="attention")
    encoded = model(torch.randn(2, 8, 3, 32, 32))
    weights, own = model.pool.attention.in_proj_weight.chunk(3), encoded.tokens.flatten(1, 2)
    assert not model.pool.attention.in_proj_bias.any() and not model.pool.attention.out_proj.bias.any()

    def pooled(tokens: Tensor) -> Tensor:
        q, k, v = model.pool.query[0] @ weights[0].T, tokens @ weights[1].T, tokens @ weights[2].T
        found = [
            ((q[:, a : a + 8] @ k[:, a : a + 8].T) / math.sqrt(8)).softmax(-1) @ v[:, a : a + 8] for a in (0, 8, 16)
        ]
        return model.pool.attention.out_proj(torch.cat(found, -1))[0]  # type: ignore[no-any-return]

    assert torch.allclose(encoded.pooled, torch.stack([pooled(tokens) for tokens in own]), atol=1e-6)
    assert torch.allclose(encoded.frames[1, 3], pooled(encoded.tokens[1, 3]), atol=1e-6)


@pytest.mark.parametrize("attention", ["frame", "factorized"])
def test_a_mask_leaves_the_stated_share_of_every_frame(attention: str) -> None:
    model = tiny(attention=attention, tubelet=(1, 8, 8))
    for block in model.blocks:  # without attention, what is kept is exactly what it would have been
        nn.init.zeros_(block.attention.out.weight)
    video = torch.randn(2, 8, 3, 32, 32)
    full, masked = model(video), model(video, mask_ratio=0.75)
    assert masked.tokens.shape == (2, 8, 4, 24)
    places = (masked.tokens[:, :, :, None] - full.tokens[:, :, None]).abs().amax(-1) < 1e-5  # (2, 8, 4, 16)
    assert (places.sum(-1) == 1).all() and (places.sum(2) <= 1).all()
    assert len({tuple(row.nonzero().flatten().tolist()) for row in places.any(2).flatten(0, 1)}) > 8


# --- factorized attention --------------------------------------------------------------------------------------------


def opened() -> Any:
    """A factorized encoder after some training: its gates stand open and no two of its weights are alike."""
    model = tiny(attention="factorized")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def reference(model: Any, x: Tensor, there: Tensor) -> Tensor:
    """Tokens (B, T', S, D) of embedded tubelets x: torch's own attention, one frame and one place after the other.

    there: (B, T', S), which tubelets are not masked; the others come out as zeros.
    """

    def attend(own: Any, rows: Tensor) -> Tensor:
        attention = nn.MultiheadAttention(24, 3, batch_first=True)
        attention.in_proj_weight.data, attention.in_proj_bias.data = own.qkv.weight.data, own.qkv.bias.data
        attention.out_proj.weight.data, attention.out_proj.bias.data = own.out.weight.data, own.out.bias.data
        return attention(rows[None], rows[None], rows[None])[0][0]  # type: ignore[no-any-return]

    x = x.clone()
    for own in model.blocks:
        for b, t in ((b, t) for b in range(x.shape[0]) for t in range(x.shape[1])):
            kept = there[b, t]
            x[b, t, kept] = x[b, t, kept] + attend(own.attention, own.norm1(x[b, t, kept]))
        h = own.temporal.norm(x)
        for b, s in ((b, s) for b in range(x.shape[0]) for s in range(x.shape[2])):
            kept = there[b, :, s]
            if kept.any():
                x[b, kept, s] += math.tanh(own.temporal.alpha) * attend(own.temporal.attention, h[b, kept, s])
        x = x + own.mlp(own.norm2(x))
    return model.norm(x) * there[..., None]  # type: ignore[no-any-return]


@torch.no_grad()
def test_factorized_attention_equals_torchs_own_over_each_frame_and_then_each_place() -> None:
    model, video = opened(), torch.randn(2, 8, 3, 32, 32)
    tubelets = model.tubes[0].cut(video)
    x = (model.patch(tubelets) + model.positions[0].permute(1, 2, 3, 0)).flatten(2, 3)
    expected = reference(model, x, torch.ones(2, 4, 4, dtype=torch.bool))
    assert torch.allclose(model(video).tokens, expected, atol=1e-5)
    assert not torch.allclose(tiny(attention="frame")(video).tokens, expected, atol=0.1)


@torch.no_grad()
def test_masked_factorized_attention_sees_the_kept_tubelets_of_its_place_only() -> None:
    model, video = opened(), torch.randn(2, 8, 3, 32, 32)
    torch.manual_seed(5)
    found = model(video, mask_ratio=0.5).tokens
    torch.manual_seed(5)
    kept = torch.rand(2, 4, 4).argsort(-1)[..., :2]
    there = torch.zeros(2, 4, 4, dtype=torch.bool).scatter(2, kept, True)
    assert not there.any(1).all() or (there.sum(1) == 1).any()  # places that stand alone are among them
    tubelets = model.tubes[0].cut(video)
    x = (model.patch(tubelets) + model.positions[0].permute(1, 2, 3, 0)).flatten(2, 3)
    expected = reference(model, x, there).gather(2, kept[..., None].expand(-1, -1, -1, 24))
    assert torch.allclose(found, expected, atol=1e-5)


def test_at_the_start_factorized_attention_is_exactly_the_frame_level_encoder() -> None:
    video = torch.randn(2, 8, 3, 32, 32)
    frame, factorized = tiny(attention="frame"), tiny(attention="factorized")
    assert torch.equal(frame(video).tokens, factorized(video).tokens)
    assert torch.equal(frame(video).pooled, factorized(video).pooled)
    for own in factorized.blocks:
        for name, value in own.attention.state_dict().items():
            assert torch.equal(own.temporal.attention.state_dict()[name], value), name


@pytest.mark.parametrize("mask_ratio", [0.0, 0.75])
def test_the_gate_of_temporal_attention_can_open(mask_ratio: float) -> None:
    model = tiny(attention="factorized")
    model(torch.randn(1, 8, 3, 32, 32), mask_ratio=mask_ratio).tokens[..., 0].sum().backward()
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            assert parameter.grad is not None and parameter.grad.isfinite() and parameter.grad != 0, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


# --- several tubes ---------------------------------------------------------------------------------------------------

TUBES: list[dict[str, Any]] = [
    {"kernel": (4, 8, 8), "stride": (4, 16, 16)},
    {"kernel": (6, 4, 4), "stride": (2, 16, 16), "offset": (0, 8, 8)},
    {"kernel": (2, 12, 12), "stride": (4, 16, 16), "offset": (1, 3, 5)},
    {"kernel": (1, 16, 16), "stride": (8, 16, 16)},
]


def test_tubes_equal_a_convolution_each_and_lie_one_kernel_after_the_other() -> None:
    model = tiny(tubes=TUBES)
    seen: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    video = torch.randn(2, 8, 3, 32, 32)
    encoded = model(video)
    expected = []
    for tube, patch in zip(TUBES, model.patch, strict=True):
        conv = nn.Conv3d(3, 24, tube["kernel"], tube["stride"])
        conv.weight.data, conv.bias.data = patch.weight.data.view(24, 3, *tube["kernel"]), patch.bias.data  # type: ignore[union-attr]
        t, h, w = tube.get("offset", (0, 0, 0))
        boxes = conv(video[:, t:, :, h:, w:].transpose(1, 2))
        for i, j, k in ((i, j, k) for i, j, k in torch.cartesian_prod(*map(torch.arange, boxes.shape[2:])).tolist()):
            position = []
            for n, step, kernel, start in zip((i, j, k), tube["stride"], tube["kernel"], (t, h, w), strict=True):
                center = start + n * step + kernel / 2
                angles = [center / 10000 ** (m / 4) for m in range(4)]
                position += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            expected.append(boxes[:, :, i, j, k] + torch.tensor(position))
    assert torch.allclose(seen[0], torch.stack(expected, 1), atol=1e-5)
    assert len(expected) == 8 + 8 + 4 + 4
    assert encoded.tokens.shape == (2, 1, 24, 24) and encoded.pooled.shape == (2, 24)


def test_tubevits_own_tubes_give_its_number_of_tokens() -> None:
    """98 + 147 + 98 + 196; the paper prints 559, which none of its four kernels' counts explain."""
    paper = [
        Tube((8, 8, 8), (16, 32, 32)),
        Tube((16, 4, 4), (6, 32, 32), (4, 8, 8)),
        Tube((4, 12, 12), (16, 32, 32), (0, 16, 16)),
        Tube((1, 16, 16), (32, 16, 16)),
    ]
    video = torch.empty(1, 32, 3, 224, 224, device="meta")
    assert [tube.cut(video).shape[1:4].numel() for tube in paper] == [98, 147, 98, 196]


def test_tubes_take_short_videos_images_masks_and_other_sizes() -> None:
    model = tiny(tubes=TUBES, image_path=True)
    video = torch.randn(1, 4, 3, 32, 32)
    held = torch.cat([video, video[:, -1:], video[:, -1:]], 1)
    assert torch.equal(model(video).tokens, model(held).tokens)
    assert model(video[:, :1]).tokens.shape == (1, 1, 4, 24)  # by the images' own path
    assert model(torch.randn(1, 8, 3, 32, 32), mask_ratio=0.75).tokens.shape == (1, 1, 2 + 2 + 1 + 1, 24)
    assert model(torch.randn(1, 256, 3, 40, 56)).tokens.isfinite().all()
    with pytest.raises(ValueError, match="wanted .* H at least 16 and W at least 17"):
        model(torch.randn(1, 8, 3, 16, 16))


def test_a_width_that_six_does_not_divide_leaves_the_last_positions_empty() -> None:
    waves = Tube((1, 2, 2), (1, 2, 2)).waves((2, 3, 4), 16, torch.zeros(1))
    assert waves.shape == (2, 3, 4, 16) and not waves[..., 12:].any() and waves[..., :12].all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "both"}, "attention=both: wanted joint or frame or factorized"),
        ({"pooling": "max"}, "pooling=max: wanted mean or attention"),
        ({"attention": "frame", "tubes": TUBES}, "attention=frame needs one grid of tokens"),
        (
            {"tubes": [{"kernel": (1, 9, 9), "stride": (1, 9, 9), "offset": (0, 0, 24)}]},
            "clip.size=32 does not hold every tube once; it takes 33 pixels",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**settings)


# --- adapters and LoRA -----------------------------------------------------------------------------------------------


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
    peft = pytest.importorskip("peft")
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


@pytest.mark.parametrize("name", [name for name in OURS if name != "vivit_demo"])
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
