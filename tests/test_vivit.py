from pathlib import Path

import pytest
import torch
from torch import nn

from evalkit.api import Clip, Encoder, UserError
from evalkit.encoders import presets, read_preset
from evalkit.encoders.vivit import ViViT, encoder

CLIP = Clip(frames=8, size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def tiny(**settings: object) -> ViViT:
    torch.manual_seed(0)
    return encoder(CLIP, dim=24, depth=2, heads=3, hidden=48, **settings).eval()  # type: ignore[arg-type]


def test_tokens_and_pooled_have_the_promised_shapes() -> None:
    model = tiny()
    tokens, pooled = model(torch.randn(2, 8, 3, 32, 32))
    assert isinstance(model, Encoder)
    assert tokens.shape == (2, 4, 4, 24) and pooled.shape == (2, 24)
    assert torch.allclose(pooled, tokens.mean((1, 2)), atol=1e-6)


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
    tokens, _ = tiny()(torch.randn(1, frames, 3, 32, 32))
    assert tokens.shape == (1, -(-frames // 2), 4, 24)
    assert tokens.isfinite().all()


def test_an_odd_number_of_frames_holds_the_last_one() -> None:
    video = torch.randn(1, 7, 3, 32, 32)
    model = tiny()
    assert torch.equal(model(video).tokens, model(torch.cat([video, video[:, -1:]], 1)).tokens)


def test_positions_are_interpolated_to_another_size() -> None:
    model = tiny()
    assert model(torch.randn(1, 8, 3, 64, 48)).tokens.shape == (1, 4, 12, 24)
    assert torch.allclose(model._positions(4, torch.Size((32, 32))), model.positions[0].flatten(2).permute(1, 2, 0))


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
        nn.init.zeros_(block.attention.out.weight)  # type: ignore[union-attr,arg-type]
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
    assert torch.allclose(model(pixels).pooled, model(CLIP.normalise(pixels)).pooled, atol=1e-6)


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


def test_every_preset_describes_a_model_of_its_papers_size() -> None:
    millions = {"base": 86, "large": 307}
    for name in presets():
        with torch.device("meta"):
            model = read_preset(name).build()
        vision = sum(p.numel() for n, p in model.named_parameters() if n.split(".")[0] in ("patch", "blocks", "norm"))
        if (size := name.rpartition("_")[2]) in millions:
            assert vision / 1e6 == pytest.approx(millions[size], rel=0.02), name
