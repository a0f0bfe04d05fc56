"""OneVision-Encoder gives what its published definition gives, written anew, and runs no code of its folder."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evalkit.api import has_text
from tests.encoders.opengvlab_files import gelu, linear, norm, normed, through
from tests.saved import load, refusal, same, takes_batches_of_any_size_and_gives_the_same_every_time

DIM, HEADS, HIDDEN, PATCH = 64, 2, 40, 14
CONFIG = {
    "auto_map": {"AutoModel": "modeling_onevision_encoder.OneVisionEncoderModel"},
    "model_type": "onevision_encoder",
    "hidden_size": DIM,
    "intermediate_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_hidden_layers": 2,
    "patch_size": PATCH,
    "image_size": 448,
    "rope_temporal_size": 64,
    "use_head": True,
}


def weights() -> dict[str, Tensor]:
    made = {"embeddings.patch_embedding.weight": torch.randn(DIM, 3, PATCH, PATCH) * 0.05}
    made |= norm("layernorm_pre", DIM) | norm("layernorm_post", DIM)
    for number in range(2):
        layer = f"encoder.layers.{number}"
        for part in "qkv":
            made |= linear(f"{layer}.self_attn.{part}_proj", DIM, DIM)
        made |= linear(f"{layer}.self_attn.out_proj", DIM, DIM)
        made |= norm(f"{layer}.layer_norm1", DIM) | norm(f"{layer}.layer_norm2", DIM)
        made |= linear(f"{layer}.mlp.fc1", DIM, HIDDEN) | linear(f"{layer}.mlp.fc2", HIDDEN, DIM)
    made |= {"head.probe": torch.randn(1, 1, DIM), "head.attention.in_proj_weight": torch.randn(3 * DIM, DIM) * 0.1}
    made |= {"head.attention.in_proj_bias": torch.randn(3 * DIM) * 0.1} | linear("head.attention.out_proj", DIM, DIM)
    made |= norm("head.norm", DIM, False) | linear("head.mlp.fc1", DIM, HIDDEN) | linear("head.mlp.fc2", HIDDEN, DIM)
    return made


def folder(path: Path, **changes: Any) -> tuple[Path, dict[str, Tensor]]:
    torch.manual_seed(5)
    (path / "config.json").write_text(json.dumps(CONFIG | changes))
    (path / "modeling_onevision_encoder.py").write_text("raise SystemExit('this code ran')\n")
    made = weights()
    save_file(made, path / "model.safetensors")
    return path, made


def spun(vector: Tensor, time: int, row: int, column: int) -> Tensor:
    """One head's query or key (32,) turned, number by number: a quarter of 16 angles by time, the rest by place."""
    angles = [time * 10_000 ** (-i / 4) for i in range(4)]
    angles += [place * 10_000 ** (-i / 6) for place in (row, column) for i in range(6)]
    angles = angles + angles
    out = []
    for i in range(0, 32, 2):
        first, second = float(vector[i]), float(vector[i + 1])
        out.append(first * math.cos(angles[i]) - second * math.sin(angles[i]))
        out.append(second * math.cos(angles[i + 1]) + first * math.sin(angles[i + 1]))
    return torch.tensor(out)


def definition(video: Tensor, made: dict[str, Tensor], times: list[int]) -> tuple[Tensor, Tensor]:
    """Tokens (N, D) and the pooled vector (D,) of one video (T, 3, H, W)."""
    kernel = made["embeddings.patch_embedding.weight"]
    rows, columns = video.shape[2] // PATCH, video.shape[3] // PATCH
    places = [(t, y, x) for t in range(len(video)) for y in range(rows) for x in range(columns)]
    cut = [video[t, :, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH] for t, y, x in places]
    x = torch.stack([(kernel * piece).sum((1, 2, 3)) for piece in cut])
    x = normed(x, made, "layernorm_pre", 1e-6)
    for number in range(2):
        layer = f"encoder.layers.{number}"
        first = normed(x, made, f"{layer}.layer_norm1", 1e-6)
        query, key, value = (through(first, made, f"{layer}.self_attn.{part}_proj") for part in "qkv")
        heads = []
        for head in range(HEADS):
            part = slice(32 * head, 32 * head + 32)
            turned = [
                torch.stack([spun(each[part], times[t], y, z) for each, (t, y, z) in zip(vectors, places, strict=True)])
                for vectors in (query, key)
            ]
            heads.append((turned[0] @ turned[1].T / math.sqrt(32)).softmax(-1) @ value[:, part])
        x = x + through(torch.cat(heads, -1), made, f"{layer}.self_attn.out_proj")
        inner = gelu(through(normed(x, made, f"{layer}.layer_norm2", 1e-6), made, f"{layer}.mlp.fc1"), False)
        x = x + through(inner, made, f"{layer}.mlp.fc2")
    x = normed(x, made, "layernorm_post", 1e-6)
    three = list(
        zip(made["head.attention.in_proj_weight"].chunk(3), made["head.attention.in_proj_bias"].chunk(3), strict=True)
    )
    query = made["head.probe"][0] @ three[0][0].T + three[0][1]
    key, value = (x @ weight.T + bias for weight, bias in three[1:])
    seen = torch.cat(
        [(query[:, p] @ key[:, p].T / math.sqrt(32)).softmax(-1) @ value[:, p] for p in (slice(0, 32), slice(32, 64))],
        -1,
    )
    seen = through(seen, made, "head.attention.out_proj")
    scaled = seen / (seen.square().mean(-1, keepdim=True) + 1e-6).sqrt() * made["head.norm.weight"]
    return x, (seen + through(gelu(through(scaled, made, "head.mlp.fc1"), False), made, "head.mlp.fc2"))[0]


@pytest.mark.parametrize(("frames", "times"), [(1, [0]), (2, [0, 63]), (4, [0, 21, 42, 63])])
def test_a_folder_gives_what_the_definition_gives(tmp_path: Path, frames: int, times: list[int]) -> None:
    path, made = folder(tmp_path)
    encoder = load(path)
    assert (encoder.clip.frames, encoder.clip.size, encoder.clip.interpolation) == (16, 224, "bicubic")
    assert encoder.clip.mean == (0.48145466, 0.4578275, 0.40821073) and not has_text(encoder)
    video = torch.randn(1, frames, 3, 28, 42)
    tokens, pooled = definition(video[0], made, times)
    found = encoder(video, layers=2)
    assert same(found.tokens[0].flatten(0, 1), tokens, 1e-5) and same(found.pooled[0], pooled, 1e-5)
    assert len(found.layers) == 2 and torch.equal(found.layers[1], found.tokens)


def test_clips_of_a_batch_do_not_depend_on_each_other(tmp_path: Path) -> None:
    takes_batches_of_any_size_and_gives_the_same_every_time(load(folder(tmp_path)[0]), torch.randn(3, 2, 3, 28, 28))


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    path, made = folder(tmp_path)
    save_file(made | {"more": torch.zeros(2)}, path / "model.safetensors")
    assert "unexpected more" in refusal(path)
    del made["head.probe"]
    save_file(made, path / "model.safetensors")
    assert "missing head.probe" in refusal(path)
    folder(tmp_path, num_attention_heads=4)
    assert "hidden_size=64 over 4 heads: wanted a multiple of 32 for each" in refusal(path)
    folder(tmp_path, patch_size="x")
    assert "patch_size=x: wanted a whole number above 0" in refusal(path)
    folder(tmp_path, use_head=False)
    assert "unexpected" in refusal(path)
    (path / "model.safetensors").unlink()
    assert "wanted one file of weights, model.safetensors, found 0" in refusal(path)
