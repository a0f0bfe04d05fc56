"""The wrapper around open_clip, with a stand-in for the package's lists where it is not installed."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from evalkit.api import Clip, Loading, has_text
from evalkit.encoders import load_encoder, read_preset
from evalkit.encoders.open_clip import pretrained_name
from evalkit.errors import UserError
from evalkit.weights import checkpoint, huggingface, presets
from tests import saved
from tests.encoders.test_processors import alike, shown
from tests.given import library
from tests.saved import same

TAGS = {"ViT-B-16": ["openai", "laion2b_s34b_b88k"], "RN50": ["openai"]}
TINY = {
    "embed_dim": 10,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}

TINY_PE = {  # Perception Encoder's trunk is timm's, and its frames' vectors come of attention to all tokens
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 384,  # the trunk takes no other
        "timm_model_name": "vit_pe_core_tiny_patch16_384",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": None,
    },
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    "custom_text": True,
}
TINY_COCA = {  # tokens are wider than the frames' vectors, which attention pools
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "layers": 2,
        "width": 64,
        "head_width": 32,
        "patch_size": 8,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 76,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 2,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {
        "context_length": 76,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
        "attn_pooler_heads": 2,
    },
    "custom_text": True,
}
PE_PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Puts lists of names where open_clip would be; what models were asked of it."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def create_model(name: str, **settings: Any) -> nn.Module:
        calls.append((name, settings))
        raise RuntimeError("Failed to\ndownload")

    package = SimpleNamespace(
        create_model=create_model,
        list_pretrained=lambda: [(name, tag) for name, tags in TAGS.items() for tag in tags],
        list_pretrained_tags_by_model=lambda name: TAGS[name],
        list_models=lambda: list(TAGS),
    )
    configs = SimpleNamespace(get_pretrained_cfg=lambda name, tag: {"quick_gelu": True} if tag == "openai" else {})
    monkeypatch.setitem(sys.modules, "open_clip", package)
    monkeypatch.setitem(sys.modules, "open_clip.pretrained", configs)
    monkeypatch.setitem(sys.modules, "open_clip.factory", SimpleNamespace())
    return calls


def refusal(name: str) -> str:
    with pytest.raises(UserError) as caught:
        pretrained_name(name, Loading())
    return str(caught.value)


def test_without_the_package_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for ckpt in ("open_clip:ViT-B-16/laion2b_s34b_b88k", "open_clip:RN50"):
        with pytest.raises(
            UserError, match=r"needs open_clip, which is missing: pip install 'video-evalkit\[open_clip\]'$"
        ):
            load_encoder(ckpt)


def test_a_model_without_its_weights_tag_is_refused_and_the_tags_are_told(asked: list[Any]) -> None:
    assert refusal("ViT-B-16") == (
        "ckpt=open_clip:ViT-B-16 names no weights, and untrained ones score nothing: give open_clip:ViT-B-16/TAG with "
        "one of openai, laion2b_s34b_b88k"
    )
    assert not asked


def test_a_name_that_open_clip_does_not_have_is_answered_with_the_nearest(asked: list[Any]) -> None:
    assert refusal("ViT-B-61/openai").endswith("open_clip has no weights of that model. Did you mean 'ViT-B-16'?")
    assert refusal("ViT-B-16/laion2b_s34b_b88") == (
        "ckpt=open_clip:ViT-B-16/laion2b_s34b_b88: no such tag. Did you mean 'laion2b_s34b_b88k'? Known: openai, "
        "laion2b_s34b_b88k"
    )
    assert not asked


def test_weights_are_required_and_get_the_activation_that_they_were_trained_with(asked: list[Any]) -> None:
    assert refusal("ViT-B-16/openai") == "ckpt=open_clip:ViT-B-16/openai: RuntimeError: Failed to download"
    refusal("ViT-B-16/laion2b_s34b_b88k")
    refusal("hf-hub:some/model")
    assert asked == [
        ("ViT-B-16", {"require_pretrained": True, "pretrained": "openai", "force_quick_gelu": True}),
        ("ViT-B-16", {"require_pretrained": True, "pretrained": "laion2b_s34b_b88k", "force_quick_gelu": False}),
        ("hf-hub:some/model", {"require_pretrained": True}),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model as open_clip saves it; only where open_clip is installed."""
    return write(tmp_path, TINY, {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "resize_mode": "squash"})


def write(path: Path, model_cfg: dict[str, Any], preprocess: dict[str, Any]) -> Path:
    open_clip = library("open_clip")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{path}", load_weights=False)
    torch.save(model.state_dict(), path / "open_clip_pytorch_model.bin")
    return path


def test_a_perception_encoder_gives_what_open_clip_gives(tmp_path: Path) -> None:
    open_clip = library("open_clip")
    encoder: Any = load_encoder(str(write(tmp_path, TINY_PE, PE_PREPROCESS)))
    model = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    assert encoder.clip == Clip(8, 384, (0.5,) * 3, (0.5,) * 3, resize="squash")
    assert (encoder.dim, encoder.pooled_dim) == (192, 16) and has_text(encoder)
    video, texts = torch.randn(1, 2, 3, 384, 384), ["a red ring", "Two dogs"]
    tokenize = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    with torch.no_grad():
        encoded, frames = encoder(video, layers=2), video.flatten(0, 1)
        assert same(encoded.pooled, model.encode_image(frames).mean(0, keepdim=True), 1e-5)
        assert same(encoded.tokens.flatten(0, 1), model.visual.trunk.forward_features(frames)[:, 1:], 1e-5)
        assert same(encoder(video).pooled, encoded.pooled, 1e-6) and len(encoded.layers) == 2
        assert same(encoder.encode_text(texts), model.encode_text(tokenize(texts)), 1e-5)


def test_coca_gives_what_open_clip_gives(tmp_path: Path) -> None:
    open_clip = library("open_clip")
    encoder: Any = load_encoder(str(write(tmp_path, TINY_COCA, {})))
    model = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    assert (encoder.dim, encoder.pooled_dim) == (64, 16) and has_text(encoder)
    video, texts = torch.randn(1, 2, 3, 32, 32), ["a red ring", "Two dogs"]
    tokenize = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    with torch.no_grad():
        encoded, frames = encoder(video, layers=2), video.flatten(0, 1)
        states = model.visual.forward_intermediates(frames, output_fmt="NLC")["image_intermediates"]
        assert [same(f.flatten(0, 1), s, 1e-6) for f, s in zip(encoded.layers, states, strict=True)] == [True, True]
        wanted = model.encode_image(frames)  # which open_clip normalizes
        assert same(torch.nn.functional.normalize(encoded.frames[0], dim=-1), wanted, 1e-6)
        assert same(encoder.encode_text(texts), model.encode_text(tokenize(texts)), 1e-6)


@pytest.mark.parametrize(
    ("name", "vision", "file"),  # billions of weights as the authors' table rounds them; GB of float32 on the hub
    [("tiny", 0.01, 0), ("small", 0.02, 0.349), ("base", 0.09, 1.79), ("large", 0.32, 2.68), ("giant", 1.88, 0)],
)
def test_perception_encoders_are_as_large_as_published(name: str, vision: float, file: float) -> None:
    library("open_clip")
    with torch.device("meta"):
        module: Any = read_preset(f"pe_core_{name}").build()
    towers = module.image.model
    assert round(sum(value.numel() for value in towers.visual.parameters()) / 1e9, 2) == vision
    total = sum(value.numel() for value in module.parameters())
    assert total == presets.card(presets.presets()[f"pe_core_{name}"]).parameters
    assert not file or total * 4 / 1e9 == pytest.approx(file, rel=0.01)


def test_a_preset_of_the_package_fetches_nothing_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    monkeypatch.setattr(huggingface, "fetch", lambda name: pytest.fail(f"fetched {name}"))
    assert saved.refusal("pe_core_base").endswith("pip install 'video-evalkit[open_clip]'")


def test_the_real_package_gives_what_open_clip_gives(folder: Path) -> None:
    open_clip = library("open_clip")
    encoder: Any = load_encoder(f"open_clip:{folder}")
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    assert encoder.clip == Clip(8, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), resize="squash", interpolation="bicubic")
    assert (encoder.dim, encoder.pooled_dim) == (64, 10) and has_text(encoder)
    assert encoder.state_dict().keys() == {f"image.model.{name}" for name in model.state_dict()}
    video, texts = torch.randn(2, 8, 3, 32, 32), ["a red ring", "Two dogs"]
    with torch.no_grad():
        encoded, frames = encoder(video, layers=3), video.flatten(0, 1)
        assert same(encoded.pooled, model.encode_image(frames).unflatten(0, (2, 8)).mean(1), 1e-6)
        states = model.visual.forward_intermediates(frames, output_fmt="NLC")["image_intermediates"]
        for found, state in zip(encoded.layers, states, strict=True):
            assert same(found.flatten(0, 1), state, 1e-6)
        assert same(encoder.encode_text(texts), model.encode_text(open_clip.tokenize(texts)), 1e-6)
        assert same(encoder(video).tokens, encoded.tokens, 1e-6)
    with pytest.raises(ValueError, match="wanted 32 x 32 pixels"):
        encoder(torch.zeros(1, 1, 3, 48, 48))


def test_the_real_package_loads_a_folder_strictly_and_not_without_weights(folder: Path) -> None:
    weights = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    weights.pop("visual.proj")
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    assert "visual.proj" in refusal(str(folder))
    (folder / "open_clip_pytorch_model.bin").unlink()
    assert "could not be loaded" in refusal(str(folder))


@pytest.mark.parametrize("ending", [".pt", ".bin", ".pth", ".safetensors"])
@pytest.mark.parametrize("start", ["", "module."])
def test_a_file_of_weights_is_read_with_its_configuration_beside(folder: Path, ending: str, start: str) -> None:
    known = load_encoder(f"open_clip:{folder}")
    file = folder / "open_clip_pytorch_model.bin"
    weights = {start + name: value for name, value in torch.load(file, weights_only=True).items()}
    file.unlink()
    file = folder / f"epoch_32{ending}"
    if ending == ".safetensors":
        save_file(weights, file)
    else:
        torch.save({"epoch": 32, "state_dict": weights, "optimizer": {"state": {0: torch.zeros(1)}}}, file)
    for ckpt in (str(file), f"open_clip:{file}"):
        assert checkpoint.sha256(load_encoder(ckpt)) == checkpoint.sha256(known)  # type: ignore[arg-type]
        assert load_encoder(ckpt).clip == known.clip
    weights.pop(f"{start}visual.proj")
    torch.save(weights, folder / "less.pt")
    assert "do not fit the model (1): missing visual.proj" in saved.refusal(folder / "less.pt")


def test_a_folder_that_open_clip_saved_needs_no_prefix(folder: Path) -> None:
    assert load_encoder(str(folder)).clip == load_encoder(f"open_clip:{folder}").clip


def test_a_file_of_a_named_model_is_read(tmp_path: Path) -> None:
    model = library("open_clip").create_model("ViT-S-32-alt", pretrained_text=False)
    torch.save({"net": {"inner." + name: value for name, value in model.state_dict().items()}}, tmp_path / "run.pt")
    words: dict[str, Any] = {"model": "open_clip:ViT-S-32-alt", "prefix": "inner."}
    encoder: Any = load_encoder(str(tmp_path / "run.pt"), **words)
    assert same(encoder.state_dict()["image.model.visual.proj"], model.visual.proj) and encoder.pooled_dim == 256
    message = saved.refusal(tmp_path / "run.pt", model=words["model"])
    assert "give encoder.prefix=inner. (all names that the model wants start with inner. there)" in message
    assert "Did you mean 'ViT-S-32-alt'" in saved.refusal(tmp_path / "run.pt", model="open_clip:ViT-S-32-al")


@pytest.mark.parametrize("words", [{}, {"resize_mode": "squash"}, {"interpolation": "bilinear"}, {"size": 48}])
def test_frames_are_shown_as_open_clips_own_transform_shows_them(folder: Path, words: dict[str, Any]) -> None:
    open_clip = library("open_clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": words}))
    clip = load_encoder(f"open_clip:{folder}").clip
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    for height, width in ((240, 427), (97, 131), (300, 311)):
        frames = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        assert alike(clip, shown(clip, frames), transform(Image.fromarray(frames[0]))[None])


def test_a_file_without_its_model_says_what_is_missing(tmp_path: Path, asked: list[Any]) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "run.pt")
    assert refusal(str(tmp_path / "run.pt")) == (
        f"{tmp_path / 'run.pt'} does not say its model: put open_clip_config.json beside it, or give "
        "encoder.model=open_clip:NAME"
    )
    message = saved.refusal(tmp_path / "run.pt", model="open_clip:../evil")
    assert message.startswith("settings.name='../evil': wanted the name of a model")
    assert "open_clip has no such model. Did you mean 'RN50'?" in saved.refusal(
        tmp_path / "run.pt", model="open_clip:RN5"
    )
    (tmp_path / "open_clip_config.json").write_text("[1]")
    assert "wanted a JSON object, found a list" in saved.refusal(tmp_path / "run.pt")
    assert not asked
