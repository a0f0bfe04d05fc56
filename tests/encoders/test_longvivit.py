import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evalkit.api import Clip, Encoder
from evalkit.encoders.longvivit import encoder
from evalkit.errors import UserError

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
