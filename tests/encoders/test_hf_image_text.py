from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from evalkit.api import Clip, has_text
from evalkit.encoders import Spec, load_encoder, read_preset
from evalkit.errors import UserError
from tests.encoders.tokenizers import bert_tokenizer, clip_tokenizer, gemma_tokenizer
from tests.saved import (
    HALF,
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

TOWER: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 48,
}
IMAGE = {**TOWER, "image_size": 32, "patch_size": 8}
WORDS = {**TOWER, "max_position_embeddings": 12}
SETTINGS: dict[str, dict[str, Any]] = {
    "clip": {
        "projection_dim": 10,
        "vision_config": IMAGE,
        "text_config": {**WORDS, "hidden_size": 18, "vocab_size": 56, "bos_token_id": 54, "eos_token_id": 55},
    },
    "siglip": {  # 35 pixels hold four patches of 8: as 384 pixels hold 27 of 14
        "vision_config": {**IMAGE, "image_size": 35},
        "text_config": {**WORDS, "vocab_size": 200, "pad_token_id": 3, "bos_token_id": None, "eos_token_id": 3},
    },
    "siglip2": {
        "vision_config": {**TOWER, "num_patches": 16, "patch_size": 8},
        "text_config": {**WORDS, "vocab_size": 60, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1},
    },
    "flava": {
        "projection_dim": 10,
        "image_config": {**IMAGE, "layer_norm_eps": 1e-5},
        "text_config": {**WORDS, "hidden_size": 18, "vocab_size": 40},
        "multimodal_config": TOWER,
    },
}
NAMES = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2", "flava": "Flava"}
EXTRA = {"clip": 1, "siglip": 0, "siglip2": 0, "flava": 1}
# As beside the published weights, but for the size.
PREPROCESSORS: dict[str, dict[str, Any]] = {
    "clip": {
        "crop_size": 32,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "rescale_factor": 1 / 255,
        "resample": 3,
        "size": 32,
    },
    "siglip": preprocessor({"height": 35, "width": 35}, HALF, image_processor_type="SiglipImageProcessor", resample=3),
    "siglip2": {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        **HALF,
        "image_processor_type": "Siglip2ImageProcessor",
        "max_num_patches": 16,
        "patch_size": 8,
        "rescale_factor": 1 / 255,
    },
    "flava": {
        "crop_size": 32,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "FlavaFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "rescale_factor": 1 / 255,
        "resample": 3,
        "size": 32,
    },
}
KINDS = sorted(SETTINGS)
CLIPS = {"clip": (32, "crop"), "siglip": (35, "squash"), "siglip2": (32, "crop"), "flava": (32, "squash")}
TEXTS = ["a ring", "A red ring grows, then a Blue circle moves left", "b"]
PRESETS = [
    *("clip_base", "clip_base_32", "clip_large", "clip_large_336", "siglip_base", "siglip_so400m"),
    *("siglip2_base", "siglip2_large", "siglip2_so400m", "flava"),
]


def model(kind: str, name: str = "Model", **changes: Any) -> Any:
    config = transformers.AutoConfig.for_model(kind, **{**SETTINGS.get(kind, {}), **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(transformers, NAMES[kind.split("_")[0]] + name)(config).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> dict[str, Path]:
    """A tiny model of each kind as transformers saves it, with a tokenizer of its kind."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {kind: save(tmp_path_factory.mktemp(kind), model(kind), PREPROCESSORS[kind]) for kind in KINDS}
    clip_tokenizer(made["clip"])
    transformers.SiglipTokenizer(str(vocabulary)).save_pretrained(made["siglip"])
    gemma_tokenizer(made["siglip2"])
    bert_tokenizer(made["flava"])
    return made


def reference(folder: Path, kind: str) -> Any:
    return getattr(transformers, NAMES[kind] + "Model").from_pretrained(folder).eval()


def patches(images: Tensor) -> dict[str, Tensor]:
    """What NaFlex's processor makes of images whose sides are multiples of 8, patch by patch."""
    rows, columns = images.shape[2] // 8, images.shape[3] // 8
    cut = [
        images[:, :, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].permute(0, 2, 3, 1).flatten(1)
        for i in range(rows)
        for j in range(columns)
    ]
    count = len(images)
    return {
        "pixel_values": torch.stack(cut, 1),
        "pixel_attention_mask": torch.ones(count, rows * columns, dtype=torch.int32),
        "spatial_shapes": torch.tensor([[rows, columns]] * count),
    }


def seen(folder: Path, kind: str, images: Tensor) -> Any:
    """What transformers' own image features are of images (N, 3, H, W), with the hidden states beside."""
    inputs = patches(images) if kind == "siglip2" else {"pixel_values": images, "interpolate_pos_encoding": True}
    if kind == "flava":  # whose image features are those of every token, projected
        whole = reference(folder, kind)
        with torch.no_grad():
            out = whole.image_model(**inputs, output_hidden_states=True)
            out.pooler_output = whole.get_image_features(**inputs).pooler_output[:, 0]
        return out
    with torch.no_grad():
        return reference(folder, kind).get_image_features(**inputs, output_hidden_states=True)


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_what_transformers_gives_of_pixels_scaled_as_the_folder_says(
    folders: dict[str, Path], kind: str
) -> None:
    encoder: Any = load_encoder(str(folders[kind]))
    inputs = video(folders[kind], encoder)
    out = seen(folders[kind], kind, inputs.flatten(0, 1))
    encoded = encoder(inputs)
    assert (encoder.clip.frames, encoder.clip.size, encoder.clip.resize) == (8, *CLIPS[kind])
    assert (encoder.dim, encoder.pooled_dim) == (24, 10 if kind in ("clip", "flava") else 24)
    assert encoded.tokens.shape == (2, 8, 16, 24) and encoded.layers == ()
    assert same(encoded.tokens.flatten(0, 1), out.last_hidden_state[:, EXTRA[kind] :], 1e-6)
    assert same(encoded.frames.flatten(0, 1), out.pooler_output, 1e-6)
    assert same(encoded.pooled, out.pooler_output.unflatten(0, (2, 8)).mean(1), 1e-6)


def test_the_last_tokens_of_clip_are_not_normalized_and_those_of_siglip_are(folders: dict[str, Path]) -> None:
    for kind in KINDS:
        encoder: Any = load_encoder(str(folders[kind]))
        inputs = video(folders[kind], encoder, 1)
        out = seen(folders[kind], kind, inputs[0])
        encoded = encoder(inputs, layers=3)
        assert len(encoded.layers) == 3 and encoded.layers[-1] is encoded.tokens
        for found, state in zip(encoded.layers[:-1], out.hidden_states[1:3], strict=True):
            assert same(found[0], state[:, EXTRA[kind] :], 1e-6)
        raw = out.hidden_states[3][:, EXTRA[kind] :]
        assert same(encoded.tokens[0], raw, 1e-6) is (kind == "clip")
        assert same(encoded.pooled, encoder(inputs).pooled)


@pytest.mark.parametrize("kind", KINDS)
def test_other_sizes_are_taken_as_the_family_takes_them(folders: dict[str, Path], kind: str) -> None:
    encoder: Any = load_encoder(str(folders[kind]))
    for height, width in [(48, 48), (64, 24)]:
        images = torch.randn(2, 3, height, width)
        out = seen(folders[kind], kind, images)
        assert same(encoder(images[None]).tokens[0], out.last_hidden_state[:, EXTRA[kind] :], 1e-6)
        assert same(encoder(images[None]).frames[0], out.pooler_output, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_video_of_a_wrong_size_is_refused_with_what_is_wanted(folders: dict[str, Path], kind: str) -> None:
    with pytest.raises(ValueError, match=r"wanted \(B, T, 3, H, W\) with H and W multiples of 8"):
        load_encoder(str(folders[kind]))(torch.zeros(1, 2, 3, 30, 32))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_seen_one_by_one_and_clips_too(folders: dict[str, Path], kind: str) -> None:
    sees_frames_one_by_one(folders[kind], 2e-6)


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_tokenized_and_embedded_as_the_family_was_trained(folders: dict[str, Path], kind: str) -> None:
    encoder: Any = load_encoder(str(folders[kind]))
    assert has_text(encoder)
    # Token by token, so that nothing here stands on how a tokenizer pads: CLIP's letters, Gemma's letters.
    rows = {
        "clip": [[54, 27, 17, 8, 13, 33, 55], [54, 27, 17, 4, 30, 17, 8, 13, 33, 6, 17, 55], [54, 28, 55]],
        "siglip2": [
            [7, 5, 24, 15, 20, 13, 1, *[0] * 5],
            [7, 5, 24, 11, 10, 5, 24, 15, 20, 13, 5, 1],
            [8, 1, *[0] * 10],
        ],
        "siglip": [],
        # a word that is not there in letters is unknown: r, a
        "flava": [[2, 5, 22, 32, 33, 34, 3], [2, 5, 22, 35, 36, 22, 32, 33, 34, 1, 31, 3], [2, 6, 3]],
    }[kind]
    if kind == "siglip":
        tokenizer = transformers.SiglipTokenizer(str(folders[kind] / "spiece.model"))
        rows = [[*tokenizer(text)["input_ids"][:-1][:11], 3] for text in TEXTS]
        rows = [row + [3] * (12 - len(row)) for row in rows]
    for text, row, found in zip(TEXTS, rows, encoder.encode_text(TEXTS), strict=True):
        with torch.no_grad():
            wanted = reference(folders[kind], kind).get_text_features(torch.tensor([row])).pooler_output[0]
        wanted = wanted[0] if kind == "flava" else wanted  # of every token
        assert same(found, wanted, 1e-6), text


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_embedded_alike_in_any_company_and_case(folders: dict[str, Path], kind: str) -> None:
    encoder: Any = load_encoder(str(folders[kind]))
    together = encoder.encode_text(TEXTS)
    assert together.shape == (3, encoder.pooled_dim)
    for i, text in enumerate(TEXTS):
        assert same(encoder.encode_text([text.upper()])[0], together[i], 1e-6)


def test_siglip_2_of_one_resolution_which_calls_itself_siglip_is_lower_cased_too(
    tmp_path: Path, vocabulary: Path
) -> None:
    text = {**WORDS, "vocab_size": 60, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
    folder = save(tmp_path, model("siglip", text_config=text), PREPROCESSORS["siglip"])
    gemma_tokenizer(folder)
    encoder: Any = load_encoder(str(folder))
    with torch.no_grad():
        row = torch.tensor([[7, 5, 24, 11, 10, 1, *[0] * 6]])
        wanted = reference(folder, "siglip").get_text_features(row).pooler_output
    assert same(encoder.encode_text(["A Red"]), wanted, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_is_taken_from_where_the_user_says(
    folders: dict[str, Path], kind: str, tmp_path: Path, vocabulary: Path
) -> None:
    known = load_encoder(str(folders[kind])).encode_text(TEXTS)  # type: ignore[attr-defined]
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (bare / name).write_bytes((folders[kind] / name).read_bytes())
    told = refusal_of_text(bare)
    assert told.startswith(f"{bare} has no tokenizer, so it cannot embed text: wanted tokenizer.json")
    file = folders[kind] / ("spiece.model" if kind == "siglip" else "tokenizer.json")
    for place in (folders[kind], file):
        encoder: Any = load_encoder(str(bare), tokenizer=place)
        assert same(encoder.encode_text(TEXTS), known, 1e-6), place
    (tmp_path / "torn").write_bytes(b"{torn")
    assert refusal_of_text(bare, tokenizer=tmp_path / "torn").startswith("cannot read the tokenizer ")


def refusal_of_text(folder: Path, **settings: Any) -> str:
    encoder: Any = load_encoder(str(folder), **settings)
    with pytest.raises(UserError) as caught:
        encoder.encode_text(["a ring"])
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("clip", "visual_projection.weight"),
        ("clip", "text_model.encoder.layers.0.mlp.fc1.weight"),
        ("siglip", "vision_model.head.probe"),
        ("siglip2", "text_model.head.weight"),
        ("flava", "text_projection.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folders: dict[str, Path], kind: str, name: str) -> None:
    refuses_what_does_not_fit(folders[kind], name)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_counters_of_old_files_are_left_out_and_nothing_else_is(kind: str, tmp_path: Path) -> None:
    folder = save(tmp_path, model(kind), PREPROCESSORS[kind])
    old = {
        "text_model.embeddings.position_ids": torch.arange(12)[None],
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    change(folder, lambda weights: weights.update(old))
    load_encoder(str(folder))
    change(folder, lambda weights: weights.update({"vision_model.embeddings.more": torch.zeros(2)}))
    assert refusal(folder).endswith("do not fit the model (1): unexpected vision_model.embeddings.more")


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_on_disk_is_float32_in_memory(kind: str, tmp_path: Path) -> None:
    is_float32_in_memory(save(tmp_path, model(kind), PREPROCESSORS[kind], half=True))


@pytest.mark.parametrize(
    ("kind", "name", "width"),
    [
        ("clip_vision_model", "VisionModelWithProjection", 10),
        ("clip_vision_model", "VisionModel", 24),
        ("siglip_vision_model", "VisionModel", 24),
    ],
)
def test_an_image_tower_alone_is_an_encoder_without_text(kind: str, name: str, width: int, tmp_path: Path) -> None:
    family = kind.split("_")[0]
    values = {**IMAGE, "projection_dim": 10} if family == "clip" else IMAGE
    whole = model(kind, name, **values)
    size = {"size": {"height": 32, "width": 32}} if family == "siglip" else {}
    folder = save(tmp_path, whole, {**PREPROCESSORS[family], **size})
    encoder: Any = load_encoder(str(folder))
    inputs = video(folder, encoder, 1)
    with torch.no_grad():
        out = whole(inputs[0])
    vectors = out.image_embeds if name.endswith("Projection") else out.pooler_output
    assert same(encoder(inputs).frames[0], vectors, 1e-6) and encoder.pooled_dim == width
    assert not has_text(encoder)


def test_a_siglip_tower_without_its_pooling_gives_the_mean_of_its_tokens(tmp_path: Path) -> None:
    whole = model("siglip_vision_model", "VisionModel", **IMAGE, vision_use_head=False)
    folder = save(tmp_path, whole, {**PREPROCESSORS["siglip"], "size": {"height": 32, "width": 32}})
    encoded = load_encoder(str(folder))(torch.randn(1, 2, 3, 32, 32))
    assert encoded.frames is not None and same(encoded.frames, encoded.tokens.mean(2), 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_preprocessor_file_it_is_fed_as_its_family(folders: dict[str, Path], kind: str) -> None:
    clip = clip_of_the_family(folders[kind])
    assert (clip.frames, clip.size, clip.resize) == (8, *CLIPS[kind])
    assert clip.mean == tuple(PREPROCESSORS[kind]["image_mean"])
    assert clip.std == tuple(PREPROCESSORS[kind]["image_std"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_evalkit_saves_it_loads_again_with_its_tokenizer(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    file = folders[kind] / ("spiece.model" if kind == "siglip" else "tokenizer.json")
    clip = Clip(frames=2, size=CLIPS[kind][0])
    spec = Spec("hf_image_text", clip, {"model_type": kind, **SETTINGS[kind]}, file)
    module, loaded = saved_and_loaded(spec, tmp_path)
    assert torch.allclose(loaded.encode_text(TEXTS), module.encode_text(TEXTS), atol=1e-2)


def test_random_weights_without_a_tokenizer_say_so_when_asked_for_text() -> None:
    module: Any = Spec("hf_image_text", Clip(frames=2, size=32), {"model_type": "clip", **SETTINGS["clip"]}).build()
    with pytest.raises(UserError, match="has no tokenizer, so it cannot embed text: give encoder.tokenizer="):
        module.encode_text(["a ring"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"projection_dims": 10}, "projection_dims"),
        ({"vision_config": {"hidden_sise": 24}}, "hidden_sise"),
        ({"text_config": {"hidden_size": "x"}}, "hidden_size"),
        ({"model_type": "siglip3"}, "siglip3"),
        ({"model_type": "dinov2"}, "model_type=dinov2: wanted one of clip, "),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Spec("hf_image_text", Clip(frames=2, size=32), {"model_type": "clip", **settings}).build()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_states_its_models_clip(name: str) -> None:
    spec = read_preset(name)
    vision = spec.settings.get("vision_config") or spec.settings["image_config"]
    assert spec.clip.size == vision["image_size"]
