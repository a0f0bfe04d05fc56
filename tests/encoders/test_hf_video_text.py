import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from evalkit.api import Clip, has_text
from evalkit.encoders import Spec, save_encoder
from evalkit.errors import UserError
from tests.saved import (
    IMAGENET,
    clip_of_the_family,
    load,
    preprocessor,
    preset_takes_its_models_clip,
    refuses_what_does_not_fit,
    same,
    save,
    takes_batches_of_any_size_and_gives_the_same_every_time,
    video,
)

SETTINGS: dict[str, Any] = {
    "projection_dim": 16,
    "prompt_num_attention_heads": 2,
    "text_config": {
        "vocab_size": 600,
        "hidden_size": 20,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
    },
    "vision_config": {
        "num_frames": 4,
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "mit_hidden_size": 16,
        "mit_intermediate_size": 32,
        "mit_num_attention_heads": 2,
    },
}
# As beside the published weights, but for the size.
PREPROCESSOR = preprocessor(
    {"shortest_edge": 32}, IMAGENET, image_processor_type="VideoMAEImageProcessor", processor_class="XCLIPProcessor"
)
TEXTS = ["a red ring grows", "a blue circle", "one two three four five six seven eight nine ten eleven twelve thirteen"]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP's tokenizer files: a vocabulary of letters and a few merges; the end of a text has the highest number."""
    folder = tmp_path_factory.mktemp("words")
    letters = [chr(code) for code in range(33, 127)]
    merges = ["r e", "re d</w>", "r i", "ri n", "rin g</w>", "b l"]
    names = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    return folder


def folder(path: Path, words: Path | None = None, half: bool = False, **settings: Any) -> Path:
    torch.manual_seed(0)
    model = transformers.XCLIPModel(transformers.XCLIPConfig(**{**SETTINGS, **settings}))
    save(path / "model", model, PREPROCESSOR, half)
    for file in words.iterdir() if words else ():
        (path / "model" / file.name).write_bytes(file.read_bytes())
    return path / "model"


def own(path: Path) -> Any:
    model: Any = transformers.XCLIPModel.from_pretrained(path, dtype=torch.float32)
    return model.eval()


@torch.no_grad()
def vision(path: Path, inputs: Tensor) -> Any:
    """The vision tower's forward pass in transformers."""
    return own(path).vision_model(inputs.flatten(0, 1), output_hidden_states=True)


def test_a_saved_model_gives_what_transformers_gives(tmp_path: Path) -> None:
    path = folder(tmp_path)
    encoder = load(path)
    assert has_text(encoder)
    assert (encoder.clip.frames, encoder.clip.size, encoder.dim, encoder.pooled_dim) == (4, 32, 24, 16)
    inputs = video(path, encoder)
    found = encoder(inputs)
    with torch.no_grad():
        assert same(found.pooled, own(path).get_video_features(inputs).pooler_output)
    assert same(found.tokens, vision(path, inputs).last_hidden_state[:, 1:].unflatten(0, (2, 4)))
    assert found.tokens.shape == (2, 4, 16, 24) and found.layers == ()
    assert found.frames.shape == (2, 4, 16) and same(found.frames.mean(1), found.pooled)
    assert torch.equal(found.per_frame, found.frames)


def test_video_and_text_compare_as_in_transformers_but_for_its_prompts(tmp_path: Path, words: Path) -> None:
    """With the prompts' weight at zero its full forward pass gives the cosines of pooled and encode_text."""
    path = folder(tmp_path, words)
    encoder = load(path)
    whole = own(path)
    whole.prompts_generator.alpha.data.zero_()
    inputs = video(path, encoder, 3)
    ids = transformers.CLIPTokenizer.from_pretrained(path)(TEXTS[:2], padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = whole(**ids, pixel_values=inputs).logits_per_video / whole.logit_scale.exp()
    pooled, texts = encoder(inputs).pooled, encoder.encode_text(TEXTS[:2])
    found = torch.nn.functional.cosine_similarity(pooled[:, None], texts[None], dim=-1)
    assert same(found, wanted, 1e-6)


def test_texts_are_embedded_as_in_transformers(tmp_path: Path, words: Path) -> None:
    path = folder(tmp_path, words)
    encoder = load(path)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(path)
    together = encoder.encode_text(TEXTS)
    assert together.shape == (3, 16)
    for text, found in zip(TEXTS, together, strict=True):
        ids = tokenizer([text], truncation=True, max_length=12, return_tensors="pt")
        assert ids["input_ids"][0, 0] == 194 and ids["input_ids"][0, -1] == 195  # start and end, cut or not
        with torch.no_grad():
            assert same(found, own(path).get_text_features(**ids).pooler_output[0], 1e-6)
    assert not torch.allclose(together[0], together[1])


def test_a_tokenizer_in_one_file_does_too(tmp_path: Path, words: Path) -> None:
    two, one = folder(tmp_path / "two", words), folder(tmp_path / "one")
    transformers.CLIPTokenizer.from_pretrained(words).save_pretrained(one)
    assert (one / "tokenizer.json").is_file() and not (one / "vocab.json").is_file()
    assert torch.equal(load(one).encode_text(TEXTS), load(two).encode_text(TEXTS))


def test_without_a_tokenizer_texts_are_refused_and_videos_are_not(tmp_path: Path, words: Path) -> None:
    path = folder(tmp_path)
    encoder = load(path)
    encoder(video(path, encoder))
    with pytest.raises(UserError, match=r"has no tokenizer.*put tokenizer.json, or vocab.json and merges.txt there"):
        encoder.encode_text(TEXTS)
    assert load(path, tokenizer=words).encode_text(TEXTS).shape == (3, 16)
    (path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="cannot read the tokenizer in"):
        load(path).encode_text(TEXTS)
    module: Any = Spec("hf_video_text", Clip(4, 32), SETTINGS).build()
    with pytest.raises(UserError, match="encoder.tokenizer= a folder"):
        module.encode_text(TEXTS)


def test_the_last_layers_come_along_in_the_same_forward(tmp_path: Path) -> None:
    path = folder(tmp_path)
    encoder = load(path)
    inputs = video(path, encoder)
    raw = vision(path, inputs).hidden_states  # the input, then what each block gives
    one, three = encoder(inputs), encoder(inputs, layers=3)
    for found, wanted in zip(three.layers, raw[1:], strict=True):
        assert same(found, wanted[:, 1:].unflatten(0, (2, 4)))
    assert torch.equal(three.layers[2], one.tokens) and torch.equal(three.pooled, one.pooled)
    with pytest.raises(ValueError, match="layers=4: this encoder has 3"):
        encoder(inputs, layers=4)


def test_positions_are_interpolated_to_another_size_and_frames_are_not(tmp_path: Path) -> None:
    path = folder(tmp_path)
    encoder = load(path)
    inputs = torch.randn(2, 4, 3, 48, 64)
    with torch.no_grad():
        wanted = own(path).vision_model(inputs.flatten(0, 1), interpolate_pos_encoding=True).last_hidden_state
    assert same(encoder(inputs).tokens, wanted[:, 1:].unflatten(0, (2, 4)))
    for frames in (2, 8):  # of 8 its blocks would silently make two clips of 4
        with pytest.raises(ValueError, match="X-CLIP takes 4; set clip.frames=4"):
            encoder(torch.zeros(1, frames, 3, 32, 32))
    with pytest.raises(ValueError, match=r"wanted \(B, T, 3, H, W\) with H a multiple of 8"):
        encoder(torch.zeros(1, 4, 3, 30, 32))


def test_half_precision_on_disk_is_float32_in_memory(tmp_path: Path) -> None:
    path = folder(tmp_path, half=True)
    encoder = load(path)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    inputs = video(path, encoder)
    assert same(encoder(inputs).tokens, vision(path, inputs).last_hidden_state[:, 1:].unflatten(0, (2, 4)))


def test_no_clip_depends_on_another_or_on_chance(tmp_path: Path) -> None:
    changes = {"attention_dropout": 0.5, "drop_path_rate": 0.5}
    path = folder(tmp_path, vision_config=SETTINGS["vision_config"] | changes)
    encoder = load(path)
    takes_batches_of_any_size_and_gives_the_same_every_time(encoder, video(path, encoder, 3))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path)
    for name in (
        "vision_model.encoder.layers.1.message_fc.bias",
        "text_model.final_layer_norm.weight",
        "mit.encoder.layers.0.layer_norm1.weight",
    ):
        refuses_what_does_not_fit(path, name)


def test_where_no_file_states_the_clip_it_is_the_familys(tmp_path: Path) -> None:
    path = folder(tmp_path)
    assert clip_of_the_family(path) == load(path).clip


def test_a_trained_copy_is_saved_and_read_back_strictly(tmp_path: Path, words: Path) -> None:
    spec = Spec("hf_video_text", Clip(4, 32), SETTINGS)
    module: Any = spec.build()
    save_encoder(module, spec, tmp_path)
    inputs = torch.randn(1, 4, 3, 32, 32)
    again = load(tmp_path, tokenizer=words)
    module = module.half().float()
    assert same(again(inputs).pooled, module(inputs).pooled)
    module.tokenizer = words
    assert same(again.encode_text(TEXTS), module.encode_text(TEXTS))


def test_settings_that_transformers_does_not_know_are_refused() -> None:
    with pytest.raises(UserError, match=r"unknown setting vision_config\.hidden_sise. Did you mean 'hidden_size'"):
        Spec("hf_video_text", Clip(4, 32), {"vision_config": {"hidden_sise": 3}}).build()
    with pytest.raises(UserError, match="model_type='clip': wanted xclip"):
        Spec("hf_video_text", Clip(4, 32), {"model_type": "clip"}).build()


@pytest.mark.parametrize("name", ["xclip_base", "xclip_large"])
def test_a_preset_states_its_models_clip(name: str) -> None:
    preset_takes_its_models_clip(name, "num_frames", "image_size")
