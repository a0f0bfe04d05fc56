import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from evalkit.api import Clip
from evalkit.encoders import Spec, read_preset, save_encoder
from evalkit.errors import UserError
from evalkit.weights import checkpoint
from tests.given import FIXTURES
from tests.saved import (
    IMAGENET,
    clip_of_the_family,
    load,
    preprocessor,
    preset_takes_its_models_clip,
    refusal,
    refuses_what_does_not_fit,
    same,
    save,
    takes_batches_of_any_size_and_gives_the_same_every_time,
    video,
)

REFERENCE = FIXTURES / "vjepa2"  # the authors' model, run at random weights
SETTINGS: dict[str, Any] = {
    "crop_size": 32,
    "patch_size": 8,
    "frames_per_clip": 6,
    "hidden_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
}
PREDICTOR = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1, "num_pooler_layers": 1}
# As beside the published weights, but for the size.
PREPROCESSOR = preprocessor({"shortest_edge": 36}, IMAGENET, video_processor_type="VJEPA2VideoProcessor")


def model(head: str = "VJEPA2Model", **settings: Any) -> Any:
    torch.manual_seed(0)
    return getattr(transformers, head)(transformers.VJEPA2Config(**{**SETTINGS, **PREDICTOR, **settings}))


def folder(path: Path, head: str = "VJEPA2Model", half: bool = False) -> Path:
    return save(path / "model", model(head), PREPROCESSOR, half)


def expected(path: Path, inputs: Tensor, **changes: Any) -> Any:
    """The forward pass of transformers' own model from the same folder."""
    whole: Any = transformers.VJEPA2Model.from_pretrained(path, dtype=torch.float32, **changes)
    with torch.no_grad():
        return whole.eval()(inputs, skip_predictor=True, output_hidden_states=True)


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["VJEPA2Model", "VJEPA2ForVideoClassification"])
def test_a_saved_model_gives_what_transformers_gives(tmp_path: Path, head: str) -> None:
    path = folder(tmp_path, head)
    encoder = load(path)
    assert (encoder.clip.frames, encoder.clip.size, encoder.dim) == (6, 32, 24)
    assert not any("predictor" in name or "pooler" in name for name in encoder.state_dict())
    inputs = video(path, encoder)
    found, wanted = encoder(inputs), expected(path, inputs).last_hidden_state
    assert found.tokens.shape == (2, 3, 16, 24) and same(found.tokens.flatten(1, 2), wanted)
    assert same(found.pooled, wanted.mean(1), 1e-6) and found.layers == ()


def test_the_last_layers_come_along_in_the_same_forward(tmp_path: Path) -> None:
    path = folder(tmp_path)
    encoder = load(path)
    inputs = video(path, encoder)
    raw = expected(path, inputs).hidden_states  # the input, then what each block gives
    one, three = encoder(inputs), encoder(inputs, layers=3)
    assert [same(layer.flatten(1, 2), state) for layer, state in zip(three.layers, raw[1:], strict=True)] == [
        True,
        True,
        False,
    ]
    assert torch.equal(three.layers[2], one.tokens) and torch.equal(three.tokens, one.tokens)
    with pytest.raises(ValueError, match="layers=4: this encoder has 3"):
        encoder(inputs, layers=4)


@pytest.mark.parametrize(("frames", "size"), [(6, 48), (10, 32), (2, 64), (4, 16)])
def test_any_number_of_frames_and_any_size_is_what_a_model_of_that_size_gives(
    tmp_path: Path, frames: int, size: int
) -> None:
    path = folder(tmp_path)
    inputs = torch.randn(2, frames, 3, size, size)
    wanted = expected(path, inputs, crop_size=size).last_hidden_state
    assert same(load(path)(inputs).tokens.flatten(1, 2), wanted)


def test_tokens_of_a_wide_video_are_turned_by_their_own_times_rows_and_columns(tmp_path: Path) -> None:
    encoder = load(folder(tmp_path))
    seen: list[Any] = []

    def note(module: Any, inputs: Any, options: Any, output: Any) -> None:
        seen.append(module.get_position_ids(inputs[0], options["position_mask"]))

    for block in encoder.model.layer:
        block.attention.register_forward_hook(note, with_kwargs=True)
    encoder(torch.randn(1, 4, 3, 16, 40))
    assert len(seen) == 3
    for positions in seen:
        times, rows, columns = (ids[0, 0].tolist() for ids in positions)
        assert times == [0] * 10 + [1] * 10
        assert rows == ([0] * 5 + [1] * 5) * 2
        assert columns == [0, 1, 2, 3, 4] * 4


def test_an_odd_number_of_frames_holds_the_last_one(tmp_path: Path) -> None:
    path = folder(tmp_path)
    encoder = load(path)
    inputs = video(path, encoder)[:, :5]
    assert torch.equal(encoder(inputs).tokens, encoder(torch.cat([inputs, inputs[:, -1:]], 1)).tokens)
    assert torch.equal(encoder(inputs[:, :1]).tokens, encoder(inputs[:, [0, 0]]).tokens)
    with pytest.raises(ValueError, match=r"wanted \(B, T, 3, H, W\) with H a multiple of 8 and W of 8; clip.size="):
        encoder(torch.zeros(1, 4, 3, 36, 32))


def test_half_precision_on_disk_is_float32_in_memory(tmp_path: Path) -> None:
    path = folder(tmp_path, half=True)
    encoder = load(path)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    inputs = video(path, encoder)
    assert same(encoder(inputs).tokens.flatten(1, 2), expected(path, inputs).last_hidden_state)


def test_no_clip_depends_on_another_or_on_chance(tmp_path: Path) -> None:
    whole = model(drop_path_rate=0.5, attention_probs_dropout_prob=0.5)
    path = save(tmp_path / "model", whole, PREPROCESSOR)
    encoder = load(path)
    takes_batches_of_any_size_and_gives_the_same_every_time(encoder, video(path, encoder, 3))


@pytest.mark.parametrize(("head", "prefix"), [("VJEPA2Model", ""), ("VJEPA2ForVideoClassification", "vjepa2.")])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, head: str, prefix: str) -> None:
    path = folder(tmp_path, head)
    refuses_what_does_not_fit(path, f"{prefix}encoder.layer.1.attention.query.weight")
    refuses_what_does_not_fit(path, f"{prefix}encoder.layernorm.bias")


def test_where_no_file_states_the_clip_it_is_the_familys(tmp_path: Path) -> None:
    path = folder(tmp_path)
    assert clip_of_the_family(path) == load(path).clip


def test_a_trained_copy_is_saved_and_read_back_strictly(tmp_path: Path) -> None:
    spec = Spec("vjepa2", Clip(6, 32), SETTINGS)
    module: Any = spec.build()
    save_encoder(module, spec, tmp_path)
    inputs = torch.randn(1, 6, 3, 32, 32)
    assert same(load(tmp_path)(inputs).tokens, module.half().float()(inputs).tokens)


def test_settings_that_transformers_does_not_know_are_refused() -> None:
    with pytest.raises(UserError, match="unknown setting depth"):
        Spec("vjepa2", Clip(6, 32), {"depth": 3}).build()
    with pytest.raises(UserError, match="model_type='vivit': wanted vjepa2"):
        Spec("vjepa2", Clip(6, 32), {"model_type": "vivit"}).build()


@pytest.mark.parametrize("name", ["vjepa2_large", "vjepa2_huge", "vjepa2_giant", "vjepa2_giant_384"])
def test_a_preset_states_its_models_clip(name: str) -> None:
    preset_takes_its_models_clip(name, "frames_per_clip", "crop_size")


def test_the_giant_is_as_wide_inside_as_published() -> None:
    with torch.device("meta"):
        module: Any = read_preset("vjepa2_giant").build()
    assert module.model.layer[0].mlp.fc1.out_features == 6144  # 48 / 11 of the width, which no float is exactly


# --- the authors' files ----------------------------------------------------------------------------------------------


def by_their_names(path: Path) -> dict[str, Tensor]:
    """The weights of a saved model by the authors' names."""
    state = transformers.VJEPA2Model.from_pretrained(path).encoder.state_dict()
    found: dict[str, Tensor] = {"pos_embed": torch.zeros(1, 3, 24)}  # the published files have one, and no use for it
    for name, value in state.items():
        for ours, theirs in [
            ("embeddings.patch_embeddings.", "patch_embed."),
            ("layernorm.", "norm."),
            ("layer.", "blocks."),
            (".attention.", ".attn."),
        ]:
            name = name.replace(ours, theirs)
        if ".query." in name:
            parts = [
                state[f"layer.{name.split('.')[1]}.attention.{part}.{name.split('.')[-1]}"]
                for part in ("query", "key", "value")
            ]
            found[name.replace("query", "qkv")] = torch.cat(parts)
        elif ".key." not in name and ".value." not in name:
            found[name] = value
    return found


def training_state(weights: dict[str, Tensor], **more: Any) -> dict[str, Any]:
    """What the authors' training writes: state dicts with their wrappers' names, an optimizer, numbers."""
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    wrapped = {f"module.backbone.{name}": value for name, value in weights.items()}
    return {
        "encoder": {name: value * 0 for name, value in wrapped.items()},
        "predictor": {"module.backbone.predictor_embed.weight": torch.zeros(2, 2)},
        "opt": optimizer.state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "target_encoder": wrapped,
        "epoch": 3,
        "loss": 0.5,
        "lr": 1e-4,
    } | more


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "training": training_state,
    "encoder": lambda weights: {"encoder": training_state(weights)["target_encoder"], "epoch": 3},
    "ema": lambda weights: {"ema_encoder": weights, "encoder": training_state(weights)["encoder"]},
    "state_dict": lambda weights: {"state_dict": weights},
    "weights": lambda weights: weights,
    "module": lambda weights: {f"module.{name}": value for name, value in weights.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_every_layout_of_the_authors_gives_what_the_folder_gives(tmp_path: Path, layout: str, ending: str) -> None:
    path = folder(tmp_path)
    file = tmp_path / f"vitl{ending}"
    torch.save(LAYOUTS[layout](by_their_names(path)), file)
    encoder = load(file, heads=2, positions="rotary")
    inputs = torch.randn(2, 6, 3, 32, 32)
    assert torch.equal(encoder(inputs).tokens, load(path)(inputs).tokens)
    assert (encoder.clip.mean, encoder.clip.std) == (load(path).clip.mean, load(path).clip.std)


def test_an_encoder_inside_another_training_state_is_found_by_its_prefix(tmp_path: Path) -> None:
    path = folder(tmp_path)
    weights = {f"model.encoder.{name}": value for name, value in by_their_names(path).items()}
    torch.save({"state_dict": weights | {"model.head.weight": torch.zeros(2)}}, tmp_path / "run.pt")
    inputs = torch.randn(1, 6, 3, 32, 32)
    encoder = load(tmp_path / "run.pt", heads=2, positions="rotary", prefix="model.encoder.")
    assert torch.equal(encoder(inputs).tokens, load(path)(inputs).tokens)


@pytest.mark.parametrize(("name", "size"), [("vitl.pt", 256), ("vitg-384.pt", 384)])
def test_a_file_does_not_state_its_clip_so_its_name_does(tmp_path: Path, name: str, size: int) -> None:
    torch.save(by_their_names(folder(tmp_path)), tmp_path / name)
    clip = load(tmp_path / name, heads=2, positions="rotary").clip
    assert (clip.frames, clip.size) == (64, size)


def test_heads_are_those_of_the_published_sizes_or_given(tmp_path: Path) -> None:
    weights = by_their_names(folder(tmp_path))
    torch.save(weights, tmp_path / "mine.pt")
    assert "24 wide and 3 layers deep" in refusal(tmp_path / "mine.pt")
    assert "encoder.heads=" in refusal(tmp_path / "mine.pt")
    assert "not a multiple" in refusal(tmp_path / "mine.pt", heads=7)
    large = {"patch_embed.proj.weight": torch.zeros(1280, 3, 2, 1, 1), "patch_embed.proj.bias": torch.zeros(1280)}
    for i in range(32):
        large[f"blocks.{i}.mlp.fc1.weight"] = torch.zeros(1, 1280)
    torch.save(large, tmp_path / "large.pt")
    assert "missing layer.0.attention.query.weight" in refusal(tmp_path / "large.pt")  # and nothing about heads


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("blocks.1.attn.qkv.bias"), "missing layer.1.attention.query.bias"),
        (
            lambda weights: weights.update({"blocks.1.mlp.fc3.weight": torch.zeros(2)}),
            "unexpected layer.1.mlp.fc3.weight",
        ),
        (lambda weights: weights.update({"norm.weight": torch.zeros(5)}), "layernorm.weight is (5,), wanted (24,)"),
        (
            lambda weights: weights.update({"blocks.0.attn.qkv.weight": torch.zeros(25, 24)}),
            "unexpected layer.0.attention.qkv",
        ),
        (lambda weights: weights.pop("patch_embed.proj.weight"), "does not say which model it belongs to"),
        (lambda weights: weights.update({"epoch": 3}), "wanted weights, or a training state"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, change: Callable[[Any], object], words: str) -> None:
    weights: dict[str, Any] = by_their_names(folder(tmp_path))
    change(weights)
    torch.save(weights, tmp_path / "changed.pt")
    assert words in refusal(tmp_path / "changed.pt", heads=2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_authors_own_model_gives_the_same_tokens(tmp_path: Path, layout: str) -> None:
    with np.load(REFERENCE / "vjepa2_rope.params.npz") as arrays:
        weights = {
            name.removeprefix("encoder/"): torch.from_numpy(arrays[name])
            for name in arrays
            if name.startswith("encoder/")
        }
    torch.save(LAYOUTS[layout](weights), tmp_path / "fixture.pt")
    encoder = load(tmp_path / "fixture.pt", heads=2, positions="rotary")
    with np.load(REFERENCE / "vjepa2_rope.io.npz") as arrays:
        inputs, wanted = torch.from_numpy(arrays["in/video_bcthw"]), torch.from_numpy(arrays["out/tokens"])
    found = encoder(inputs.transpose(1, 2)).tokens
    assert found.shape == (2, 4, 16, 48)
    assert same(found.flatten(1, 2), wanted, 1e-5)


@pytest.mark.parametrize("prefix", ["model.encoder.", "module.net.", "a.module.backbone."])
@pytest.mark.parametrize("part", ["", "encoder", "target_encoder", "model"])
def test_a_prefix_that_is_not_the_authors_is_told_and_following_that_loads(
    tmp_path: Path, prefix: str, part: str
) -> None:
    weights = by_their_names(folder(tmp_path))
    state: Any = {prefix + name: value for name, value in weights.items()}
    state = {part: state, "predictor": {"a": torch.zeros(1)}} if part else state
    torch.save(state, tmp_path / "run.pt")
    message = refusal(tmp_path / "run.pt", heads=2)
    told = re.search(r"encoder\.prefix=(\S+) the start", message)
    assert told and told[1].endswith(prefix)
    encoder = load(tmp_path / "run.pt", heads=2, positions="rotary", prefix=told[1])
    assert checkpoint.sha256(encoder) == checkpoint.sha256(load(tmp_path / "model"))
