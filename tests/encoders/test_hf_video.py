import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from evalkit.api import Clip
from evalkit.encoders import Spec, save_encoder
from evalkit.encoders.hf_video import encoder as build
from evalkit.errors import UserError
from tests.saved import (
    HALF,
    IMAGENET,
    change,
    load,
    normalized,
    preprocessor,
    preset_takes_its_models_clip,
    refuses_what_does_not_fit,
    same,
    save,
    takes_batches_of_any_size_and_gives_the_same_every_time,
    video,
)

SHAPE: dict[str, Any] = {
    "image_size": 32,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 48,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "videomae": {
        **SHAPE,
        "num_frames": 6,
        "patch_size": 16,
        "use_mean_pooling": False,
        "decoder_num_attention_heads": 2,
        "decoder_hidden_size": 12,
        "decoder_num_hidden_layers": 1,
        "decoder_intermediate_size": 12,
    },
    "vivit": {**SHAPE, "num_frames": 6, "tubelet_size": [2, 16, 8]},
    "timesformer": {**SHAPE, "num_frames": 3, "patch_size": 8},
}
HEADS = {
    "videomae": ["VideoMAEModel", "VideoMAEForVideoClassification", "VideoMAEForPreTraining"],
    "vivit": ["VivitModel", "VivitForVideoClassification"],
    "timesformer": ["TimesformerModel", "TimesformerForVideoClassification"],
}
# As beside the published weights, but for the size.
PREPROCESSORS: dict[str, dict[str, Any]] = {
    "videomae": preprocessor({"shortest_edge": 32}, IMAGENET, image_processor_type="VideoMAEImageProcessor"),
    "vivit": preprocessor(
        {"shortest_edge": 36}, HALF, rescale_factor=2 / 255, offset=True, image_processor_type="VivitImageProcessor"
    ),
    "timesformer": preprocessor(
        {"shortest_edge": 32},
        {"image_mean": [0.45, 0.45, 0.45], "image_std": [0.225, 0.225, 0.225]},
        image_processor_type="VideoMAEImageProcessor",
    ),
}
KINDS = list(SETTINGS)
SAVED = [(kind, head) for kind in KINDS for head in HEADS[kind]]


def model(kind: str, head: str = "", **settings: Any) -> Any:
    config = transformers.AutoConfig.for_model(kind, **{**SETTINGS[kind], **settings})
    torch.manual_seed(0)
    return getattr(transformers, head or HEADS[kind][0])(config)


def folder(path: Path, kind: str, head: str = "", half: bool = False, **settings: Any) -> Path:
    return save(path / "model", model(kind, head, **settings), PREPROCESSORS[kind], half)


def expected(path: Path, kind: str, inputs: Tensor, **settings: Any) -> Any:
    """The forward pass of transformers' own encoder from the same folder."""
    whole = getattr(transformers, HEADS[kind][0]).from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        return whole(inputs, output_hidden_states=True, **settings)


def in_order(kind: str, states: Tensor, steps: int) -> Tensor:
    """Tokens (B, T', S, D), picked one by one from what transformers gives."""
    extra = 0 if kind == "videomae" else 1
    places = (states.shape[1] - extra) // steps
    rows = []
    for step in range(steps):
        at = [
            extra + (place * steps + step if kind == "timesformer" else step * places + place)
            for place in range(places)
        ]
        rows.append(states[:, at])
    return torch.stack(rows, 1)


@pytest.mark.parametrize(("kind", "head"), SAVED)
def test_a_saved_model_gives_what_transformers_gives(tmp_path: Path, kind: str, head: str) -> None:
    path = folder(tmp_path, kind, head)
    encoder = load(path)
    assert not encoder.training
    assert (encoder.clip.frames, encoder.clip.size) == (SETTINGS[kind]["num_frames"], 32)
    inputs = video(path, encoder)
    found, wanted = encoder(inputs), expected(path, kind, inputs)
    tokens = in_order(kind, wanted.last_hidden_state, 3)
    assert same(found.tokens, tokens)
    pooled = tokens.mean((1, 2)) if kind == "videomae" else wanted.last_hidden_state[:, 0]
    assert same(found.pooled, pooled)
    assert found.layers == () and found.frames is None and encoder.dim == 24


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layers_come_along_in_the_same_forward(tmp_path: Path, kind: str) -> None:
    path = folder(tmp_path, kind)
    encoder = load(path)
    inputs = video(path, encoder)
    one, two, three = encoder(inputs), encoder(inputs, layers=2), encoder(inputs, layers=3)
    raw = expected(path, kind, inputs).hidden_states  # the input, then what each block gives
    assert same(three.layers[0], in_order(kind, raw[1], 3))
    assert same(three.layers[1], in_order(kind, raw[2], 3))
    assert torch.equal(three.layers[2], three.tokens) and not torch.allclose(in_order(kind, raw[3], 3), three.tokens)
    assert len(two.layers) == 2 and torch.equal(two.layers[0], three.layers[1])
    assert torch.equal(one.tokens, three.tokens) and torch.equal(one.pooled, three.pooled)
    for layers in (0, 4):
        with pytest.raises(ValueError, match="this encoder has 3"):
            encoder(inputs, layers=layers)


def test_a_videomae_that_was_tuned_on_classes_has_no_norm_of_its_own(tmp_path: Path) -> None:
    path = folder(tmp_path, "videomae", "VideoMAEForVideoClassification", use_mean_pooling=True)
    encoder = load(path)
    inputs = video(path, encoder)
    wanted = expected(path, "videomae", inputs)
    assert same(encoder(inputs).tokens.flatten(1, 2), wanted.last_hidden_state)
    assert same(encoder(inputs).tokens.flatten(1, 2), wanted.hidden_states[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_lie_where_and_when_the_pixels_do(kind: str) -> None:
    """Without attention, MLP and positions a token depends on its own pixels alone."""
    module: Any = build(Clip(SETTINGS[kind]["num_frames"], 32), model_type=kind, **SETTINGS[kind]).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "projection" in name:
                torch.nn.init.normal_(parameter)
            elif "norm" not in name:
                parameter.zero_()
    module.model.embeddings.position_embeddings.data.zero_()
    t, h, w = module.tubelet
    before = torch.zeros(1, 3 * t, 3, 32, 32)
    after = before.clone()
    after[:, 2 * t :, :, h : 2 * h, :w] = 1  # the third step, the second row, the first column
    changed = (module(before).tokens != module(after).tokens).any(-1)
    assert changed.nonzero().tolist() == [[0, 2, 32 // w]]


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_on_disk_is_float32_in_memory(tmp_path: Path, kind: str) -> None:
    path = folder(tmp_path, kind, half=True)
    encoder = load(path)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    inputs = video(path, encoder)
    assert same(encoder(inputs).tokens, in_order(kind, expected(path, kind, inputs).last_hidden_state, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_no_clip_depends_on_another_or_on_chance(tmp_path: Path, kind: str) -> None:
    path = folder(tmp_path, kind, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    encoder = load(path)
    takes_batches_of_any_size_and_gives_the_same_every_time(encoder, video(path, encoder, 3))


@pytest.mark.parametrize(("kind", "head"), SAVED)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, kind: str, head: str) -> None:
    path = folder(tmp_path, kind, head)
    prefix = "" if head == HEADS[kind][0] else f"{kind}."
    refuses_what_does_not_fit(path, f"{prefix}encoder.layer.1.layernorm_before.weight")
    refuses_what_does_not_fit(path, f"{prefix}embeddings.patch_embeddings.projection.weight")


@pytest.mark.parametrize("kind", KINDS)
def test_positions_are_interpolated_to_another_shape(tmp_path: Path, kind: str) -> None:
    path = folder(tmp_path, kind)
    encoder = load(path)
    t, h, w = encoder.tubelet
    for frames, height, width in [(5 * t, 32, 32), (2 * t, 64, 32), (3 * t, 32, 48), (t, 64, 64)]:
        tokens = encoder(torch.randn(1, frames, 3, height, width)).tokens
        assert tokens.shape == (1, frames // t, (height // h) * (width // w), 24) and tokens.isfinite().all()
    inputs = video(path, encoder)  # what it was made for is as before
    assert same(encoder(inputs).tokens, in_order(kind, expected(path, kind, inputs).last_hidden_state, 3))


def test_a_timesformer_of_another_shape_is_the_model_with_those_settings_and_the_nearest_positions(
    tmp_path: Path,
) -> None:
    path = folder(tmp_path, "timesformer")
    larger = tmp_path / "larger"
    whole = model("timesformer", num_frames=6, image_size=64)
    source = transformers.TimesformerModel.from_pretrained(path)
    weights = source.state_dict()
    time, place = (weights[f"embeddings.{name}_embeddings"] for name in ("time", "position"))
    weights["embeddings.time_embeddings"] = time.repeat_interleave(2, 1)
    square = place[:, 1:].reshape(1, 4, 4, 24).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)
    weights["embeddings.position_embeddings"] = torch.cat([place[:, :1], square], 1)
    whole.load_state_dict(weights)
    whole.save_pretrained(larger)
    inputs = torch.randn(2, 6, 3, 64, 64)
    wanted = in_order("timesformer", expected(larger, "timesformer", inputs).last_hidden_state, 6)
    assert same(load(path)(inputs).tokens, wanted)


@pytest.mark.parametrize("kind", ["videomae", "vivit"])
def test_a_still_grid_of_positions_stays_so_when_interpolated(tmp_path: Path, kind: str) -> None:
    """Positions that rise evenly with time and not in space do so on a larger grid, too."""
    encoder = load(folder(tmp_path, kind))
    places = encoder.grid[1] * encoder.grid[2]
    embeddings = encoder.model.embeddings
    rising = torch.arange(3.0).repeat_interleave(places)[None, :, None].expand(1, -1, 24)
    extra = 1 if kind == "vivit" else 0
    embeddings.position_embeddings.data = torch.cat([torch.zeros(1, extra, 24), rising], 1)
    for name, parameter in encoder.named_parameters():
        if "projection" in name or "cls_token" in name:
            parameter.zero_()
    found = encoder._embed(torch.zeros(1, 12, 3, 64, 64), (6, 64 // encoder.tubelet[1], 64 // encoder.tubelet[2]))
    steps = found[0, extra:, 0].reshape(6, -1)
    assert torch.allclose(steps[:, :1].expand_as(steps), steps, atol=1e-6)
    assert torch.allclose(steps[:, 0], torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.0]), atol=1e-6)


@pytest.mark.parametrize("kind", ["videomae", "vivit"])
def test_an_odd_number_of_frames_holds_the_last_one(tmp_path: Path, kind: str) -> None:
    path = folder(tmp_path, kind)
    encoder = load(path)
    inputs = video(path, encoder)[:, :5]
    assert torch.equal(encoder(inputs).tokens, encoder(torch.cat([inputs, inputs[:, -1:]], 1)).tokens)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape", [(1, 6, 3, 30, 32), (1, 3, 6, 32, 32), (1, 0, 3, 32, 32), (6, 3, 32, 32), (1, 6, 3, 0, 32)]
)
def test_a_video_of_a_wrong_shape_is_refused(kind: str, shape: tuple[int, ...]) -> None:
    module = build(Clip(SETTINGS[kind]["num_frames"], 32), model_type=kind, **SETTINGS[kind])
    with pytest.raises(ValueError, match="clip.size="):
        module(torch.zeros(shape))


def test_where_no_file_states_the_clip_it_is_the_familys(tmp_path: Path) -> None:
    for kind in KINDS:
        path = folder(tmp_path / kind, kind)
        stated = load(path).clip
        (path / "preprocessor_config.json").unlink()
        assert load(path).clip == stated


def test_vivits_offset_is_taken_from_the_file_or_from_the_family(tmp_path: Path) -> None:
    path = folder(tmp_path, "vivit")
    encoder = load(path)
    assert encoder.clip.value_range == (-1.0, 1.0)
    ends = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 1, 1)
    wanted = torch.tensor([-3.0, 1.0])[:, None, None, None].expand(2, 3, 1, 1)
    assert same(normalized(path, ends), wanted, 1e-6) and same(encoder.clip.normalize(ends), wanted, 1e-6)
    stated = PREPROCESSORS["vivit"] | {"video_processor_type": "VivitVideoProcessor"}
    del stated["offset"]  # as the newer processor, which always subtracts 1, writes it
    (path / "preprocessor_config.json").unlink()
    (path / "video_preprocessor_config.json").write_text(json.dumps(stated))
    assert load(path).clip == encoder.clip


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_copy_is_saved_and_read_back_strictly(tmp_path: Path, kind: str) -> None:
    clip = Clip(SETTINGS[kind]["num_frames"], 32)
    spec = Spec("hf_video", clip, {"model_type": kind, **SETTINGS[kind]})
    module: Any = spec.build()
    save_encoder(module, spec, tmp_path)
    again = load(tmp_path)
    inputs = torch.randn(1, clip.frames, 3, 32, 32)
    assert again.clip == clip and same(again(inputs).tokens, module.half().float()(inputs).tokens)
    change(tmp_path, lambda weights: weights.pop("model.layernorm.bias"))
    with pytest.raises(UserError, match=r"missing model\.layernorm\.bias"):
        load(tmp_path)


def test_settings_that_transformers_does_not_know_are_refused() -> None:
    clip = Clip(6, 32)
    with pytest.raises(UserError, match="unknown setting hidden_sise. Did you mean 'hidden_size'"):
        Spec("hf_video", clip, {"model_type": "vivit", "hidden_sise": 3}).build()
    with pytest.raises(UserError, match="'hidden_size' expected int"):
        Spec("hf_video", clip, {"model_type": "vivit", "hidden_size": "wide"}).build()
    with pytest.raises(UserError, match="model_type='bert': wanted one of videomae, vivit, timesformer"):
        Spec("hf_video", clip, {"model_type": "bert"}).build()
    with pytest.raises(UserError, match="attention_type=space_only"):
        build(Clip(3, 32), model_type="timesformer", **SETTINGS["timesformer"], attention_type="space_only")


@pytest.mark.parametrize(
    "name", ["videomae_base", "videomae_large", "videomae_huge", "vivit_b_kinetics", "timesformer_base"]
)
def test_a_preset_states_its_models_clip(name: str) -> None:
    preset_takes_its_models_clip(name, "num_frames", "image_size")
