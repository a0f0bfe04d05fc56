"""V-JEPA 1 gives what its published definition gives, and its weights are never taken for V-JEPA 2's."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.api import Clip, Example, Task, Views
from evalkit.encoders import Spec, load_encoder, read_preset, save_encoder
from evalkit.encoders.vjepa2 import model as vjepa2
from evalkit.errors import UserError
from evalkit.metrics.classification import top1_top5
from evalkit.weights import checkpoint
from tests.encoders.test_vjepa2 import by_their_names, folder, training_state
from tests.given import make_adapter
from tests.saved import load, refusal, same, saved_and_loaded

TIMES, SIDE, DIM, DEPTH, HEADS, TUBELET, PATCH = 3, 2, 24, 2, 3, 2, 8


# --- the definition, written anew ------------------------------------------------------------------------------------


def table(kind: str, times: int = TIMES, side: int = SIDE, dim: int = DIM) -> Tensor:
    """Positions (1, T' x S x S, D), number by number."""

    def waves(place: int, width: int) -> list[float]:
        angles = [place / 10_000 ** (2 * i / width) for i in range(width // 2)]
        return [*map(math.sin, angles), *map(math.cos, angles)]

    third = 2 * math.ceil(dim / 6)
    widths = (third, third, third) if kind == "sincos_uniform" else (dim // 2, dim // 4, dim // 4)
    rows = [
        [number for place, width in zip((t, y, x), widths, strict=True) for number in waves(place, width)][:dim]
        for t in range(times)
        for y in range(side)
        for x in range(side)
    ]
    return torch.tensor(rows)[None]


def random_weights(dim: int = DIM, depth: int = DEPTH, mlp: int = 4) -> dict[str, Tensor]:
    """Of an encoder, by the authors' names and without its table."""
    draw = torch.Generator().manual_seed(3)
    shapes = {"patch_embed.proj.weight": (dim, 3, TUBELET, PATCH, PATCH), "patch_embed.proj.bias": (dim,)}
    for block in [f"blocks.{i}" for i in range(depth)]:
        for name, rows, columns in [("attn.qkv", 3 * dim, dim), ("attn.proj", dim, dim)]:
            shapes |= {f"{block}.{name}.weight": (rows, columns), f"{block}.{name}.bias": (rows,)}
        for name, rows, columns in [("mlp.fc1", mlp * dim, dim), ("mlp.fc2", dim, mlp * dim)]:
            shapes |= {f"{block}.{name}.weight": (rows, columns), f"{block}.{name}.bias": (rows,)}
        shapes |= {f"{block}.norm{k}.{kind}": (dim,) for k in (1, 2) for kind in ("weight", "bias")}
    shapes |= {"norm.weight": (dim,), "norm.bias": (dim,)}
    return {name: torch.randn(shape, generator=draw) * 0.3 for name, shape in shapes.items()}


def norm(x: Tensor, weights: dict[str, Tensor], name: str, epsilon: float) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    return (
        centered / (centered.square().mean(-1, keepdim=True) + epsilon).sqrt() * weights[f"{name}.weight"]
        + weights[f"{name}.bias"]
    )


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    parts = zip(*(x.chunk(heads, -1) for x in (q, k, v)), strict=True)
    return torch.cat([(q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v for q, k, v in parts], -1)


def block(x: Tensor, weights: dict[str, Tensor], name: str, heads: int, epsilon: float) -> Tensor:
    queries, keys, values = linear(norm(x, weights, f"{name}.norm1", epsilon), weights, f"{name}.attn.qkv").chunk(3, -1)
    x = x + linear(attend(queries, keys, values, heads), weights, f"{name}.attn.proj")
    return x + perceptron(x, weights, name, epsilon)


def perceptron(x: Tensor, weights: dict[str, Tensor], name: str, epsilon: float) -> Tensor:
    hidden = linear(norm(x, weights, f"{name}.norm2", epsilon), weights, f"{name}.mlp.fc1")
    return linear(hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5)), weights, f"{name}.mlp.fc2")


def definition(weights: dict[str, Tensor], positions: Tensor, video: Tensor, heads: int = HEADS) -> Tensor:
    """Tokens (B, N, D) of video (B, T, 3, H, W)."""
    x = F.conv3d(
        video.transpose(1, 2),
        weights["patch_embed.proj.weight"],
        weights["patch_embed.proj.bias"],
        (TUBELET, *[PATCH] * 2),
    )
    x = x.flatten(2).mT + positions
    for i in range(len([name for name in weights if name.endswith("norm1.weight")])):
        x = block(x, weights, f"blocks.{i}", heads, 1e-6)
    return norm(x, weights, "norm", 1e-6)


# --- what files give -------------------------------------------------------------------------------------------------


def released(weights: dict[str, Tensor], **more: Any) -> dict[str, Any]:
    """What V-JEPA 1's training writes."""
    return training_state(weights, predictor=predictor(2)) | more


def predictor(mask_tokens: int) -> dict[str, Tensor]:
    return {f"module.backbone.mask_tokens.{i}": torch.zeros(1) for i in range(mask_tokens)}


def video(frames: int = TIMES * TUBELET, size: int = SIDE * PATCH) -> Tensor:
    return torch.randn(2, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "training": released,
    "encoder": lambda weights: {"encoder": released(weights)["target_encoder"], "epoch": 3},
    "target": lambda weights: {"target_encoder": weights},
    "weights": lambda weights: weights,
    "halves": lambda weights: weights | {"pos_embed": weights["pos_embed"].half()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["sincos", "sincos_uniform"])
def test_released_files_give_what_the_definition_gives(tmp_path: Path, kind: str, layout: str) -> None:
    weights = random_weights()
    file = tmp_path / "vitl16.pth.tar"
    torch.save(LAYOUTS[layout](weights | {"pos_embed": table(kind)}), file)
    encoder = load(file, heads=HEADS)
    assert (encoder.clip.frames, encoder.clip.size, encoder.clip.share) == (6, 16, 0.875)
    found = encoder(video())
    assert found.tokens.shape == (2, TIMES, SIDE**2, DIM)
    wanted = definition(weights, table(kind), video())
    assert same(found.tokens.flatten(1, 2), wanted, 1e-5 if layout != "halves" else 5e-3)
    assert same(found.pooled, wanted.mean(1), 1e-5 if layout != "halves" else 5e-3)
    assert not same(found.tokens.flatten(1, 2), definition(weights, torch.zeros(1), video()), 1e-2)


@pytest.mark.parametrize(
    ("kind", "dim", "heads", "times", "side", "mlp"), [("sincos", 32, 4, 1, 5, 2), ("sincos_uniform", 20, 5, 5, 1, 3)]
)
def test_any_width_and_grid_is_told_by_the_table(
    tmp_path: Path, kind: str, dim: int, heads: int, times: int, side: int, mlp: int
) -> None:
    weights, positions = random_weights(dim, 1, mlp), table(kind, times, side, dim)
    torch.save(released(weights | {"pos_embed": positions}), tmp_path / "mine.pt")
    encoder, inputs = load(tmp_path / "mine.pt", heads=heads), video(2 * times, 8 * side)
    assert (encoder.clip.frames, encoder.clip.size) == (2 * times, 8 * side)
    assert same(encoder(inputs).tokens.flatten(1, 2), definition(weights, positions, inputs, heads), 1e-5)


@pytest.mark.parametrize(("frames", "size"), [(12, 16), (6, 32), (2, 8)])
def test_other_sizes_have_the_table_interpolated(tmp_path: Path, frames: int, size: int) -> None:
    weights = random_weights()
    torch.save({"encoder": weights | {"pos_embed": table("sincos")}}, tmp_path / "vitl16.pth.tar")
    grid = (frames // TUBELET, size // PATCH, size // PATCH)
    scales = tuple(n / of for n, of in zip(grid, (TIMES, SIDE, SIDE), strict=True))
    volume = table("sincos").view(1, TIMES, SIDE, SIDE, DIM).permute(0, 4, 1, 2, 3)
    positions = F.interpolate(volume, scale_factor=scales, mode="trilinear").flatten(2).mT
    found = load(tmp_path / "vitl16.pth.tar", heads=HEADS)(video(frames, size)).tokens
    assert same(found.flatten(1, 2), definition(weights, positions, video(frames, size)), 1e-5)


@pytest.mark.parametrize("kind", ["sincos", "sincos_uniform"])
def test_without_its_table_a_setting_says_that_it_is_v_jepa_1(tmp_path: Path, kind: str) -> None:
    torch.save(random_weights(), tmp_path / "vitl.pt")
    encoder = load(tmp_path / "vitl.pt", heads=HEADS, positions=kind)
    assert (encoder.clip.frames, encoder.clip.size) == (16, 224)
    positions = table(kind, 8, 28)
    assert same(encoder.positions.flatten(0, 2)[None], positions, 1e-6)
    torch.save(random_weights(), tmp_path / "vitl-384.pt")
    assert load(tmp_path / "vitl-384.pt", heads=HEADS, positions=kind).clip.size == 384


# --- neither is taken for the other ----------------------------------------------------------------------------------

PUBLISHED = {"SIZES_1": {(DIM, DEPTH): (SIDE * PATCH,)}, "HEADS": {(DIM, DEPTH): HEADS}}
UNREAD = table("sincos_uniform", 2, 4)  # of V-JEPA 2's published files: of no size that V-JEPA 1 was published in


def wrong(**more: Tensor) -> dict[str, Tensor]:
    return random_weights() | more


@pytest.mark.parametrize(
    ("state", "settings", "expected"),
    [
        (wrong(pos_embed=table("sincos")), {"positions": "rotary"}, "encoder.positions=rotary: the pos_embed of"),
        (
            wrong(pos_embed=table("sincos")),
            {"positions": "sincos_uniform"},
            "V-JEPA 1's table, sincos, of 3 x 2 x 2 tokens",
        ),
        (
            wrong(pos_embed=torch.zeros(1, 12, DIM)),
            {"positions": "sincos"},
            "is zero, which V-JEPA 1's is: give encoder.posi",
        ),
        (wrong(pos_embed=torch.ones(1, 12, DIM)), {}, "is not a table of sines and cosines, which V-JEPA 1's"),
        (wrong(pos_embed=table("sincos") * math.nan), {}, "is not a table of sines and cosines"),
        (wrong(pos_embed=torch.ones(3)), {}, "is not a table of sines and cosines"),
        (wrong(pos_embed=torch.ones(1, 12, DIM)), {"positions": "sincos"}, "give encoder.positions=rotary if these"),
        (wrong(), {}, "holds no table of positions (pos_embed), so it may be V-JEPA 1 or V-JEPA 2: give encoder.pos"),
        (released(wrong()), {}, "give encoder.positions=rotary for V-JEPA 2, encoder.positions=sincos_uniform for the"),
        (released(wrong(pos_embed=UNREAD)), {}, "may be V-JEPA 1 or V-JEPA 2, whose published files hold such a table"),
        (wrong(pos_embed=UNREAD), {"positions": "sincos"}, "the pos_embed of"),
        (wrong(), {"positions": "rope"}, "encoder.positions='rope': expected one of auto, rotary, sincos"),
    ],
)
def test_what_may_be_the_other_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Any, settings: dict[str, Any], expected: str
) -> None:
    for name, value in PUBLISHED.items():
        monkeypatch.setattr(vjepa2, name, value)
    torch.save(state, tmp_path / "file.pt")
    assert expected in refusal(tmp_path / "file.pt", heads=HEADS, **settings)


@pytest.mark.parametrize(
    ("state", "settings"),
    [
        (wrong(), {"positions": "rotary"}),
        (wrong(pos_embed=UNREAD), {"positions": "rotary"}),
        (wrong(pos_embed=torch.zeros(1, 12, DIM)), {}),
        (wrong(pos_embed=torch.ones(1, 12, DIM)), {"positions": "rotary"}),
        (released(wrong(pos_embed=UNREAD), predictor=predictor(10)), {}),
        (released(wrong(), predictor=predictor(10)), {}),
    ],
)
def test_v_jepa_2_is_told_by_its_setting_or_its_predictor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Any, settings: dict[str, Any]
) -> None:
    for name, value in PUBLISHED.items():
        monkeypatch.setattr(vjepa2, name, value)
    torch.save(state, tmp_path / "file.pt")
    encoder = load(tmp_path / "file.pt", **settings)
    assert encoder.positions is None and encoder.clip.frames == 64
    moved = encoder(video())
    assert not same(moved.tokens.flatten(1, 2), definition(random_weights(), torch.zeros(1), video()), 1e-3)


def test_without_a_table_a_size_that_nobody_published_is_refused(tmp_path: Path) -> None:
    """V-JEPA 2's code writes no table, but V-JEPA 1's encoder whose table was left out has none, either."""
    torch.save(wrong(), tmp_path / "mine.pt")
    half = predictor(2) | {"module.backbone.predictor_pos_embed": torch.zeros(1, 12, DIM)}
    torch.save(released(wrong(), predictor=half), tmp_path / "half.pt")
    for name in ("mine.pt", "half.pt"):
        told = refusal(tmp_path / name, heads=HEADS)
        assert "holds no table of positions (pos_embed), so it may be V-JEPA 1 or V-JEPA 2: give encoder.pos" in told
        assert load(tmp_path / name, heads=HEADS, positions="rotary").positions is None
        assert load(tmp_path / name, heads=HEADS, positions="sincos").positions is not None


def test_the_published_size_that_is_v_jepa_2s_alone_needs_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vjepa2, "HEADS", PUBLISHED["HEADS"])
    torch.save(wrong(), tmp_path / "vitg.pt")
    assert load(tmp_path / "vitg.pt").positions is None
    short = {name: value for name, value in wrong().items() if not name.startswith(f"blocks.{DEPTH - 1}.")}
    torch.save(short, tmp_path / "cut.pt")
    told = refusal(tmp_path / "cut.pt")
    assert f"{DIM} wide and {DEPTH - 1} layers deep, no published size ({DEPTH} layers are: get the file again" in told


def test_a_folder_of_the_one_does_not_load_as_the_other(tmp_path: Path) -> None:
    shape = {"crop_size": 16, "patch_size": 8, "frames_per_clip": 6, "hidden_size": DIM, "num_hidden_layers": 1}
    settings: dict[str, Any] = {**shape, "num_attention_heads": HEADS, "positions": "sincos_uniform"}
    old, new = Spec("vjepa2", Clip(6, 16), settings), Spec("vjepa2", Clip(6, 16), {**settings, "positions": "rotary"})
    modules = [
        saved_and_loaded(spec, path)[0] for spec, path in [(old, make(tmp_path / "1")), (new, make(tmp_path / "2"))]
    ]
    assert checkpoint.sha256(modules[0]) != checkpoint.sha256(modules[1])
    save_encoder(modules[0], new, tmp_path / "2")
    assert "unexpected positions" in refusal(tmp_path / "2")
    save_encoder(modules[1], old, tmp_path / "1")
    assert "missing positions" in refusal(tmp_path / "1")
    with pytest.raises(UserError, match="encoder.positions=sincos has no effect on"):
        load_encoder(str(folder(tmp_path)), positions="sincos")


def make(path: Path) -> Path:
    path.mkdir()
    return path


def test_weights_of_v_jepa_2_are_not_moved_by_the_table_that_nothing_reads(tmp_path: Path) -> None:
    path = folder(tmp_path)
    torch.save(by_their_names(path), tmp_path / "vitl.pt")
    inputs = torch.randn(1, 6, 3, 32, 32)
    assert torch.equal(load(tmp_path / "vitl.pt", heads=2)(inputs).tokens, load(path)(inputs).tokens)


# --- presets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dim", "depth", "size"), [("large", 1024, 24, 224), ("huge", 1280, 32, 224), ("huge_384", 1280, 32, 384)]
)
def test_a_preset_has_its_papers_shape_and_its_table(name: str, dim: int, depth: int, size: int) -> None:
    with torch.device("meta"):
        module: Any = read_preset(f"vjepa_{name}").build()
    assert (module.clip.frames, module.clip.size, module.dim, len(module.model.layer)) == (16, size, dim, depth)
    assert module.positions.shape == (8, size // 16, size // 16, dim)
    patch, each = 3 * 2 * 16 * 16 * dim + dim, 12 * dim**2 + 13 * dim  # of a block with biases and two norms
    assert sum(value.numel() for value in module.parameters()) == patch + depth * each + 2 * dim
    assert "fetch https://dl.fbaipublicfiles.com/jepa/vit" in refusal(f"vjepa_{name}")


# --- the attentive classifier ----------------------------------------------------------------------------------------


def probe_weights(blocks: int, classes: int = 5) -> dict[str, Tensor]:
    """Of V-JEPA 1's classifier: in the query's attention a map that its forward pass leaves out."""
    draw, cross = torch.Generator().manual_seed(4), "pooler.cross_attention_block"
    shapes: dict[str, tuple[int, ...]] = {"pooler.query_tokens": (1, 1, DIM), "linear.weight": (classes, DIM)}
    shapes |= {"linear.bias": (classes,)}
    maps = {f"{cross}.xattn.q": 1, f"{cross}.xattn.kv": 2, f"{cross}.xattn.proj": 1}
    maps |= {f"pooler.blocks.{i}.attn.{name}": n for i in range(blocks - 1) for name, n in [("qkv", 3), ("proj", 1)]}
    shapes |= {f"{name}.weight": (n * DIM, DIM) for name, n in maps.items()}
    shapes |= {f"{name}.bias": (n * DIM,) for name, n in maps.items()}
    for name in [cross, *(f"pooler.blocks.{i}" for i in range(blocks - 1))]:
        shapes |= {f"{name}.norm{k}.{kind}": (DIM,) for k in (1, 2) for kind in ("weight", "bias")}
        shapes |= {f"{name}.mlp.fc1.weight": (4 * DIM, DIM), f"{name}.mlp.fc1.bias": (4 * DIM,)}
        shapes |= {f"{name}.mlp.fc2.weight": (DIM, 4 * DIM), f"{name}.mlp.fc2.bias": (DIM,)}
    return {name: torch.randn(shape, generator=draw) * 0.2 for name, shape in shapes.items()}


def logits(tokens: Tensor, weights: dict[str, Tensor], blocks: int) -> Tensor:
    """Of the published definition: the query first, then its own blocks."""
    cross, query = "pooler.cross_attention_block", weights["pooler.query_tokens"].expand(len(tokens), -1, -1)
    keys, values = linear(norm(tokens, weights, f"{cross}.norm1", 1e-5), weights, f"{cross}.xattn.kv").chunk(2, -1)
    query = query + attend(linear(query, weights, f"{cross}.xattn.q"), keys, values, HEADS)
    query = query + perceptron(query, weights, cross, 1e-5)
    for i in range(blocks - 1):
        query = block(query, weights, f"pooler.blocks.{i}", HEADS, 1e-5)
    return linear(query[:, 0], weights, "linear")


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_released_probe_on_its_encoder_gives_the_logits_of_the_definition(tmp_path: Path, blocks: int) -> None:
    weights, head = random_weights(), probe_weights(blocks)
    torch.save(released(weights | {"pos_embed": table("sincos_uniform")}), tmp_path / "vitl16.pth.tar")
    wrapped = {f"module.{name}": value for name, value in head.items()}
    torch.save(
        {"classifier": wrapped, "opt": {}, "scaler": None, "epoch": 20, "lr": 1e-3}, tmp_path / "k400-probe.pth.tar"
    )
    encoder = load(tmp_path / "vitl16.pth.tar", heads=HEADS)
    task = Task(test=(), score=top1_top5, classes=tuple("abcde"), views=Views("dense", clips=2, crops=3))
    probe = make_adapter("attentive_classifier", encoder, task, heads=HEADS, probe=tmp_path / "k400-probe.pth.tar")
    assert probe.epochs == 0
    clips = torch.stack([video(), video().flip(1)], 1)  # (B, 2, T, 3, H, W)
    with torch.no_grad():
        tokens = encoder(clips.flatten(0, 1)).tokens.unflatten(0, (2, 2))
        features = torch.stack([tokens, tokens + 1, tokens.flip(0)], 2).flatten(1, 2)  # three crops of two clips
        found = probe(features)[0]
        joined = [definition(weights, table("sincos_uniform"), clip) for clip in clips.unbind(1)]
        wanted = logits(torch.cat(joined, 1), head, blocks)
    assert same(found[:, 0], wanted, 1e-5) and same(found[:, 2], wanted.flip(0), 1e-5)
    best = probe.predict([Example(str(i), Path(str(i))) for i in range(2)], features)
    assert [one.value for one in best] == found.softmax(-1).mean(1).argsort(-1, descending=True).tolist()
