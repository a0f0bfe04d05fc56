from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from evalkit.api import Clip, has_text
from evalkit.encoders import Spec, load_encoder
from evalkit.encoders.hf_image import encoder as build
from evalkit.errors import UserError
from tests.saved import (
    HALF,
    IMAGENET,
    SQUARE,
    change,
    clip_of_the_family,
    is_float32_in_memory,
    preprocessor,
    refusal,
    refuses_what_does_not_fit,
    same,
    save,
    saved_and_loaded,
    sees_frames_one_by_one,
    video,
)

SHAPE: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "patch_size": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    "dinov2": {**SHAPE, "mlp_ratio": 2, "image_size": 48},
    "dinov2_with_registers": {**SHAPE, "mlp_ratio": 2, "image_size": 48, "num_register_tokens": 2},
    "dinov3_vit": {**SHAPE, "intermediate_size": 48, "image_size": 32, "num_register_tokens": 4},
    "vit": {**SHAPE, "intermediate_size": 48, "image_size": 32},
}
NAMES = {
    "dinov2": "Dinov2",
    "dinov2_with_registers": "Dinov2WithRegisters",
    "dinov3_vit": "DINOv3ViT",
    "vit": "ViT",
}
EXTRA = {"dinov2": 1, "dinov2_with_registers": 3, "dinov3_vit": 5, "vit": 1}  # class and register tokens
CROPPED = preprocessor({"shortest_edge": 37}, IMAGENET, image_processor_type="BitImageProcessor")
# As beside the published weights, but for the size.
PREPROCESSORS: dict[str, dict[str, Any]] = {
    "dinov2": CROPPED,
    "dinov2_with_registers": CROPPED,
    "dinov3_vit": preprocessor(
        SQUARE, IMAGENET, crop_size=None, do_center_crop=None, image_processor_type="DINOv3ViTImageProcessorFast"
    ),
    "vit": preprocessor(SQUARE, HALF, image_processor_type="ViTImageProcessor"),
}
KINDS = sorted(SETTINGS)


def model(kind: str, head: str = "Model", **changes: Any) -> Any:
    config = transformers.AutoConfig.for_model(kind, **SETTINGS[kind], **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(transformers, NAMES[kind] + head)(config).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each kind as transformers saves it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {kind: save(tmp_path_factory.mktemp(kind), model(kind), PREPROCESSORS[kind]) for kind in KINDS}


def reference(folder: Path, kind: str, images: Tensor) -> Any:
    """What transformers makes of images (N, 3, H, W)."""
    told = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    read = getattr(transformers, NAMES[kind] + "Model").from_pretrained(folder).eval()
    with torch.no_grad():
        return read(images, output_hidden_states=True, **told)


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_what_transformers_gives_of_pixels_scaled_as_the_folder_says(
    folders: dict[str, Path], kind: str
) -> None:
    encoder: Any = load_encoder(str(folders[kind]))
    inputs = video(folders[kind], encoder)
    out = reference(folders[kind], kind, inputs.flatten(0, 1))
    encoded = encoder(inputs)
    assert (encoder.clip.frames, encoder.clip.size) == (8, 32) and encoder.dim == encoder.pooled_dim == 24
    assert same(encoded.tokens.flatten(0, 1), out.last_hidden_state[:, EXTRA[kind] :], 1e-6)
    assert encoded.tokens.shape == (2, 8, 16, 24)
    assert same(encoded.frames.flatten(0, 1), out.last_hidden_state[:, 0], 1e-6)
    assert same(encoded.pooled, out.last_hidden_state[:, 0].unflatten(0, (2, 8)).mean(1), 1e-6)
    assert encoded.layers == ()


@pytest.mark.parametrize("kind", KINDS)
def test_one_forward_gives_the_last_layers_as_their_blocks_do_and_the_very_last_after_the_norm(
    folders: dict[str, Path], kind: str
) -> None:
    encoder: Any = load_encoder(str(folders[kind]))
    inputs = video(folders[kind], encoder, 1)
    out = reference(folders[kind], kind, inputs[0])
    encoded = encoder(inputs, layers=3)
    states = [out.hidden_states[1], out.hidden_states[2], out.last_hidden_state]
    assert len(encoded.layers) == 3 and encoded.layers[-1] is encoded.tokens
    for found, state in zip(encoded.layers, states, strict=True):
        assert same(found[0], state[:, EXTRA[kind] :], 1e-6)
    assert not same(encoded.tokens[0], out.hidden_states[3][:, EXTRA[kind] :], 1e-2)
    assert same(encoded.pooled, encoder(inputs).pooled)
    for layers in (0, 4):
        with pytest.raises(ValueError, match=f"layers={layers}: wanted 1 to 3"):
            encoder(inputs, layers=layers)


@pytest.mark.parametrize("kind", KINDS)
def test_other_sizes_are_taken_as_the_family_takes_them(folders: dict[str, Path], kind: str) -> None:
    encoder: Any = load_encoder(str(folders[kind]))
    for height, width in [(48, 48), (64, 24)]:
        images = torch.randn(2, 3, height, width)
        out = reference(folders[kind], kind, images)
        assert same(encoder(images[None]).tokens[0], out.last_hidden_state[:, EXTRA[kind] :], 1e-6)


@pytest.mark.parametrize("shape", [(1, 2, 3, 30, 32), (1, 2, 3, 32, 0), (1, 3, 2, 32, 32), (2, 3, 32, 32)])
def test_a_video_of_a_wrong_shape_is_refused_with_what_is_wanted(
    folders: dict[str, Path], shape: tuple[int, ...]
) -> None:
    wanted = r"wanted \(B, T, 3, H, W\) with H and W multiples of 8"
    with pytest.raises(ValueError, match=wanted):
        load_encoder(str(folders["dinov3_vit"]))(torch.zeros(shape))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_seen_one_by_one_and_clips_too(folders: dict[str, Path], kind: str) -> None:
    sees_frames_one_by_one(folders[kind], 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_do_not_fit_are_refused(folders: dict[str, Path], kind: str) -> None:
    refuses_what_does_not_fit(folders[kind], "embeddings.cls_token")


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_on_disk_is_float32_in_memory(kind: str, tmp_path: Path) -> None:
    is_float32_in_memory(save(tmp_path, model(kind), PREPROCESSORS[kind], half=True))


@pytest.mark.parametrize("kind", ["dinov2", "dinov2_with_registers", "vit"])
def test_a_classifier_is_left_out_and_nothing_else_is(kind: str, tmp_path: Path) -> None:
    whole = model(kind, "ForImageClassification")
    folder = save(tmp_path, whole, PREPROCESSORS[kind])
    encoder: Any = load_encoder(str(folder))
    inputs = video(folder, encoder, 1)
    with torch.no_grad():
        out = whole.base_model(inputs[0])
    assert same(encoder(inputs).frames[0], out.last_hidden_state[:, 0], 1e-6)
    change(folder, lambda weights: weights.update({"stranger.weight": torch.zeros(2)}))
    assert refusal(folder).endswith("do not fit the model (1): unexpected stranger.weight")


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_preprocessor_file_it_is_fed_as_its_family(folders: dict[str, Path], kind: str) -> None:
    clip = clip_of_the_family(folders[kind])
    mean = tuple(PREPROCESSORS[kind]["image_mean"])
    assert (clip.frames, clip.size, clip.mean) == (8, SETTINGS[kind]["image_size"], mean)
    assert clip.resize == ("squash" if kind in ("dinov3_vit", "vit") else "crop")


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_made_square_as_the_processor_does(folders: dict[str, Path], kind: str) -> None:
    clip = load_encoder(str(folders[kind])).clip
    assert clip.resize == ("squash" if kind in ("dinov3_vit", "vit") else "crop")


def test_none_of_them_embeds_text(folders: dict[str, Path]) -> None:
    encoder: Any = load_encoder(str(folders["dinov2"]))
    assert not has_text(encoder)
    with pytest.raises(UserError, match="no text tower"):
        encoder.encode_text(["a red ring"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_evalkit_saves_it_loads_again(kind: str, tmp_path: Path) -> None:
    saved_and_loaded(Spec("hf_image", Clip(frames=2, size=32), {"model_type": kind, **SETTINGS[kind]}), tmp_path)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"hidden_sise": 24}, "hidden_sise"),
        ({"hidden_size": "x"}, "hidden_size"),
        ({"model_type": "dinov4"}, "dinov4"),
        ({"model_type": "clip"}, "model_type=clip: wanted one of dinov2, "),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Spec("hf_image", Clip(frames=2, size=32), {"model_type": "dinov2", **SHAPE, **settings}).build()


def test_a_clip_that_no_patches_fill_is_refused() -> None:
    with pytest.raises(UserError, match=r"clip.size=36: wanted a multiple of the patch's 8 pixels, or 48"):
        build(Clip(frames=2, size=36), model_type="dinov2", **SETTINGS["dinov2"])
