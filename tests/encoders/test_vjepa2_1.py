"""V-JEPA 2.1 gives what its published definition gives, and is never taken for V-JEPA 2."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.api import Clip
from evalkit.encoders import Spec, read_preset
from evalkit.errors import UserError
from tests.encoders.test_vjepa import linear, norm, perceptron
from tests.saved import load, refusal, same, saved_and_loaded

DIM, DEPTH, HEADS, PATCH = 48, 12, 3, 16
NORMED = [2, 5, 8, 11]


def weights() -> dict[str, Tensor]:
    """Of an encoder, by the authors' names."""
    draw = torch.Generator().manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {"img_mod_embed": (1, 1, DIM), "video_mod_embed": (1, 1, DIM)}
    for name, depth in [("patch_embed", 2), ("patch_embed_img", 1)]:
        shapes |= {f"{name}.proj.weight": (DIM, 3, depth, PATCH, PATCH), f"{name}.proj.bias": (DIM,)}
    maps = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM), "mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM)}
    for i in range(DEPTH):
        for name, shape in maps.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        shapes |= {f"blocks.{i}.norm{k}.{kind}": (DIM,) for k in (1, 2) for kind in ("weight", "bias")}
    shapes |= {f"norms_block.{k}.{kind}": (DIM,) for k in range(4) for kind in ("weight", "bias")}
    return {name: torch.randn(shape, generator=draw) * 0.2 for name, shape in shapes.items()}


def rotated(x: Tensor, place: Tensor) -> Tensor:
    """Neighbors (a, b) of x (B, N, W) -> (a cos - b sin, b cos + a sin) with one angle per pair."""
    pairs = []
    for k in range(x.shape[-1] // 2):
        angle = place * 10_000 ** (-2 * k / x.shape[-1])
        a, b = x[..., 2 * k], x[..., 2 * k + 1]
        pairs += [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()]
    return torch.stack(pairs, -1)


def definition(weights: dict[str, Tensor], video: Tensor, out_layers: list[int]) -> list[Tensor]:
    """Tokens (B, N, D) after each of these layers and its norm, of video (B, T, 3, H, W)."""
    kernel = weights["patch_embed.proj.weight"]
    x = F.conv3d(video.transpose(1, 2), kernel, weights["patch_embed.proj.bias"], (2, PATCH, PATCH))
    _, _, times, rows, columns = x.shape
    x = x.flatten(2).mT + weights["video_mod_embed"]
    time, row, column = torch.cartesian_prod(*map(torch.arange, (times, rows, columns))).float().unbind(1)
    places = [time, row * 15 / (rows - 1), column * 15 / (columns - 1)]  # of 256 / 16 patches
    each = DIM // HEADS
    width = each // 3 // 2 * 2
    outs = []
    for i in range(DEPTH):
        block = f"blocks.{i}"
        qkv = linear(norm(x, weights, f"{block}.norm1", 1e-6), weights, f"{block}.attn.qkv").chunk(3, -1)
        heads = []
        for q, k, v in zip(*(torch.split(part, each, -1) for part in qkv), strict=True):
            q, k = (
                torch.cat(
                    [rotated(part[..., n * width : (n + 1) * width], place) for n, place in enumerate(places)]
                    + [part[..., 3 * width :]],
                    -1,
                )
                for part in (q, k)
            )
            heads.append((q @ k.mT / each**0.5).softmax(-1) @ v)
        x = x + linear(torch.cat(heads, -1), weights, f"{block}.attn.proj")
        x = x + perceptron(x, weights, block, 1e-6)
        if i in out_layers:
            outs.append(norm(x, weights, f"norms_block.{NORMED.index(i)}", 1e-6))
    return outs


def released(path: Path, values: dict[str, Tensor], part: str) -> Path:
    wrapped = {f"module.backbone.{name}": value for name, value in values.items()}
    torch.save({part: wrapped, "encoder": {name: value * 0 for name, value in wrapped.items()}, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("part", ["target_encoder", "ema_encoder"])
@pytest.mark.parametrize("size", [(48, 48), (32, 64)])
def test_released_files_give_what_the_definition_gives(tmp_path: Path, part: str, size: tuple[int, int]) -> None:
    values = weights()
    encoder = load(released(tmp_path / "vjepa2_1_vitb.pt", values, part), heads=HEADS)
    assert (encoder.clip.frames, encoder.clip.size, encoder.clip.share) == (64, 384, 0.875)
    video = torch.randn(2, 4, 3, *size, generator=torch.Generator().manual_seed(1))
    wanted = definition(values, video, NORMED)
    found = encoder(video, layers=(2, 5, 11))
    assert same(found.tokens.flatten(1, 2), wanted[3], 1e-5) and same(found.pooled, wanted[3].mean(1), 1e-5)
    for layer, out in zip(found.layers, (wanted[0], wanted[1], wanted[3]), strict=True):
        assert same(layer.flatten(1, 2), out, 1e-5)
    with pytest.raises(UserError, match="layer 3 of V-JEPA 2.1 has no norm: name layers of 2, 5, 8, 11"):
        encoder(video, layers=(3, 11))


def test_it_is_never_taken_for_v_jepa_2(tmp_path: Path) -> None:
    values = weights()
    assert "encoder.positions=sincos: " in refusal(
        released(tmp_path / "a.pt", values, "target_encoder"), heads=HEADS, positions="sincos"
    )
    del values["video_mod_embed"]
    assert "unexpected img_mod_embed" in refusal(released(tmp_path / "b.pt", values, "target_encoder"), heads=HEADS)
    values = weights()
    del values["norms_block.1.weight"]
    assert "missing norms.1.weight" in refusal(released(tmp_path / "c.pt", values, "target_encoder"), heads=HEADS)
    values = {name: value for name, value in weights().items() if not name.startswith("blocks.11.")}
    assert "is 11 layers deep and has patches of 16 pixels, as no V-JEPA 2.1 has" in refusal(
        released(tmp_path / "d.pt", values, "target_encoder"), heads=HEADS
    )


def test_a_trained_copy_is_saved_and_read_back(tmp_path: Path) -> None:
    settings = {"dense": True, "crop_size": 32, "frames_per_clip": 4, "hidden_size": 24, "num_attention_heads": 2}
    module, loaded = saved_and_loaded(Spec("vjepa2", Clip(4, 32), {**settings, "num_hidden_layers": 12}), tmp_path)
    assert loaded.dense and len(loaded.norms) == 3 and module.video_embedding.shape == (1, 1, 24)
    with pytest.raises(UserError, match="3 layers and patches of 16 pixels: V-JEPA 2.1 has 12, 24, 40, 48 layers"):
        Spec("vjepa2", Clip(4, 32), {**settings, "num_hidden_layers": 3}).build()


@pytest.mark.parametrize(
    ("name", "dim", "depth", "heads", "mlp"),
    [
        ("base", 768, 12, 12, 3072),
        ("large", 1024, 24, 16, 4096),
        ("giant", 1408, 40, 22, 6144),
        ("gigantic", 1664, 48, 26, 8192),
    ],
)
def test_a_preset_has_its_models_shape(name: str, dim: int, depth: int, heads: int, mlp: int) -> None:
    with torch.device("meta"):
        module: Any = read_preset(f"vjepa2_1_{name}").build()
    assert (module.clip.size, module.dim, len(module.model.layer)) == (384, dim, depth)
    assert module.model.layer[0].attention.num_attention_heads == heads
    assert module.model.layer[0].mlp.fc1.out_features == mlp
    assert "fetch https://dl.fbaipublicfiles.com/vjepa2/vjepa2_1_vit" in refusal(f"vjepa2_1_{name}")
