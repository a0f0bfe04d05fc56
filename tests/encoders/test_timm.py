"""The wrapper around timm, with a stand-in for the package where it is not installed."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from evalkit.api import Clip, Loading, has_text
from evalkit.encoders import load_encoder
from evalkit.encoders.timm import _assemble as assemble
from evalkit.encoders.timm import encoder as build
from evalkit.encoders.timm import pretrained_name
from evalkit.errors import UserError
from tests.encoders.test_processors import alike, shown
from tests.given import library
from tests.saved import same


class ViT(nn.Module):
    """As much of timm's vision transformer as the wrapper asks for; two extra tokens, patches of 8 in 32 pixels."""

    num_prefix_tokens, num_features, head_hidden_size = 2, 6, 6

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 6, 8, 8), nn.LayerNorm(6)
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.head: nn.Module = nn.Linear(6, 5)

    def forward_intermediates(self, images: Tensor, indices: int, output_fmt: str) -> tuple[Tensor, list[Tensor]]:
        assert images.shape[-1] == 32, "Input height doesn't match model (32)."
        x = self.embed(images).flatten(2).mT
        x, states = torch.cat([x[:, :2] * 2, x], 1), []
        for block in self.blocks:
            x = block(x)
            states.append(x[:, 2:])
        return self.norm(x), states[-indices:]

    def forward_features(self, images: Tensor) -> Tensor:
        return self.forward_intermediates(images, 1, "NLC")[0]

    def forward_head(self, features: Tensor, pre_logits: bool) -> Tensor:
        return features[:, 0] if pre_logits else self.head(features[:, 0])

    def reset_classifier(self, classes: int) -> None:
        self.head = nn.Identity()


class ConvNet(nn.Module):
    """As much of one of timm's convolutional models: a last map (N, C, H, W), a wider vector."""

    num_features, head_hidden_size = 6, 9

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.wide = nn.Conv2d(3, 6, 8, 8), nn.Linear(6, 9)

    def forward_features(self, images: Tensor) -> Tensor:
        return self.embed(images)  # type: ignore[no-any-return]

    def forward_head(self, features: Tensor, pre_logits: bool) -> Tensor:
        return self.wide(features.mean((2, 3)))  # type: ignore[no-any-return]

    def reset_classifier(self, classes: int) -> None:
        pass


CUT = {"crop_mode": "squash", "crop_pct": 0.9, "interpolation": "bicubic"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Puts the stand-in where timm would be; what models were asked of it."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def create_model(name: str, **settings: Any) -> nn.Module:
        calls.append((name, settings))
        if "torn" in name:
            raise RuntimeError("Missing key(s)\nin state_dict")
        return (ConvNet() if "conv" in name else ViT()).eval()

    def resolve_model_data_config(model: nn.Module) -> dict[str, Any]:
        size, scaling = (3, 32, 32), {"crop_mode": "squash"} if isinstance(model, ViT) else CUT
        return {"input_size": size, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), **scaling}

    package = SimpleNamespace(
        create_model=create_model,
        is_model=lambda name: name in ("vit_tiny", "vit_torn", "conv_tiny"),
        list_models=lambda pretrained: ["vit_tiny.in1k"],
    )
    monkeypatch.setitem(sys.modules, "timm", package)
    data = SimpleNamespace(resolve_model_data_config=resolve_model_data_config)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    return calls


def test_without_the_package_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for ckpt in ("timm:vit_base_patch16_224.augreg_in21k", "timm:resnet50"):
        with pytest.raises(UserError, match=r"needs timm, which is missing: pip install 'video-evalkit\[timm\]'$"):
            load_encoder(ckpt)


def test_tokens_are_the_patches_after_the_norm_and_the_vector_is_the_classifiers(asked: list[Any]) -> None:
    encoder: Any = load_encoder("timm:vit_tiny.in1k")
    assert asked == [("vit_tiny.in1k", {"pretrained": True})]
    assert encoder.clip == Clip(8, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), resize="squash")
    video = torch.randn(2, 8, 3, 32, 32)
    encoded, model = encoder(video), encoder.image.model
    features = model.forward_features(video.flatten(0, 1))
    assert isinstance(model.head, nn.Identity) and not has_text(encoder)
    assert same(encoded.tokens.flatten(0, 1), features[:, 2:]) and encoded.tokens.shape == (2, 8, 16, 6)
    assert same(encoded.pooled, features[:, 0].unflatten(0, (2, 8)).mean(1), 1e-6)


def test_one_forward_gives_the_last_layers(asked: list[Any]) -> None:
    encoder: Any = load_encoder("timm:vit_tiny")
    video = torch.randn(1, 8, 3, 32, 32)
    encoded = encoder(video, layers=3)
    last, states = encoder.image.model.forward_intermediates(video[0], 3, "NLC")
    for found, state in zip(encoded.layers, [*states[:2], last[:, 2:]], strict=True):
        assert same(found[0], state)
    with pytest.raises(ValueError, match="layers=4: wanted 1 to 3"):
        encoder(video, layers=4)


def test_the_places_of_a_convolutional_models_map_are_its_tokens(asked: list[Any]) -> None:
    encoder: Any = load_encoder("timm:conv_tiny")
    assert (encoder.dim, encoder.pooled_dim) == (6, 9)
    video = torch.randn(1, 2, 3, 32, 48)
    found = encoder(video)
    assert found.pooled.shape == (1, 9)
    assert same(found.tokens[0], encoder.image.model.embed(video[0]).flatten(2).mT)
    with pytest.raises(ValueError, match="layers=2: wanted 1 to 1"):
        encoder(video, layers=2)


def test_what_is_cut_and_interpolated_is_as_timm_says(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for mode, resize in (("squash", "squash_crop"), ("center", "crop")):
        monkeypatch.setitem(CUT, "crop_mode", mode)
        clip = load_encoder("timm:conv_tiny").clip
        assert (clip.resize, clip.share, clip.interpolation, clip.center) == (resize, 0.9, "bicubic", "nearest")


def test_frames_are_shown_as_timms_own_transform_shows_them() -> None:
    timm = library("timm")
    for name in ("vit_tiny_patch16_224", "eca_nfnet_l0", "convnext_atto", "tf_efficientnet_b0"):
        model = timm.create_model(name)
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        clip = assemble(model).clip
        for height, width in ((240, 427), (97, 131), (300, 311)):
            frames = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
            assert alike(clip, shown(clip, frames), transform(Image.fromarray(frames[0]))[None]), name


def test_a_size_that_the_model_was_not_made_for_is_refused(asked: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"Input height doesn't match model \(32\)"):
        load_encoder("timm:vit_tiny")(torch.zeros(1, 1, 3, 48, 48))


def test_a_folder_is_taken_as_timm_takes_it(asked: list[Any], tmp_path: Path) -> None:
    load_encoder(f"timm:{tmp_path}")
    assert asked == [(f"local-dir:{tmp_path}", {"pretrained": True})]


def test_what_timm_does_not_know_or_cannot_load_is_told_in_one_line(asked: list[Any]) -> None:
    with pytest.raises(UserError, match=r"timm has no such model. Did you mean 'vit_tiny.in1k'\?"):
        pretrained_name("vit_tinny.in1k", Loading())
    with pytest.raises(UserError) as caught:
        pretrained_name("vit_torn", Loading())
    assert str(caught.value) == "ckpt=timm:vit_torn: RuntimeError: Missing key(s) in state_dict"


def test_the_real_package_gives_what_timm_gives() -> None:
    timm = library("timm")
    clip = Clip(frames=2, size=64)
    torch.manual_seed(0)
    settings: dict[str, Any] = {"img_size": 64, "embed_dim": 24, "depth": 3, "num_heads": 3}
    encoder = build(clip, name="vit_tiny_patch16_224", **settings).eval()
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **settings).eval()
    model.load_state_dict(encoder.image.model.state_dict())
    video = torch.randn(2, 2, 3, 64, 64)
    with torch.no_grad():
        encoded, frames = encoder(video, layers=2), video.flatten(0, 1)
        assert same(encoded.pooled, model(frames).unflatten(0, (2, 2)).mean(1), 1e-6)
        assert same(encoded.tokens.flatten(0, 1), model.forward_features(frames)[:, 1:], 1e-6)
        assert same(encoded.layers[0].flatten(0, 1), model.get_intermediate_layers(frames, 2)[0], 1e-6)


def test_the_real_package_loads_a_folder_strictly(tmp_path: Path) -> None:
    timm = library("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_vit", pretrained=False).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=False)
    encoder: Any = pretrained_name(str(tmp_path), Loading()).eval()
    size = encoder.clip.size
    assert (encoder.clip.frames, size) == (8, model.default_cfg["input_size"][-1])
    video = torch.randn(1, 2, 3, size, size)
    with torch.no_grad():
        wanted = model.forward_head(model.forward_features(video[0]), pre_logits=True)
        assert same(encoder(video).frames[0], wanted, 1e-6)
    file = tmp_path / "pytorch_model.bin"
    weights = torch.load(file, weights_only=True)
    weights.pop("norm.bias")
    torch.save(weights, file)
    with pytest.raises(UserError, match=r"norm\.bias"):
        pretrained_name(str(tmp_path), Loading())


def test_a_library_that_is_installed_and_broken_fails_its_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in ("ImportError", "ModuleNotFoundError", "RuntimeError"):
        (tmp_path / f"broken_by_{error}.py").write_text(f"raise {error}('no operator')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for kind in (ImportError, ModuleNotFoundError, RuntimeError):
        with pytest.raises(kind, match="no operator"):
            library(f"broken_by_{kind.__name__}")
    with pytest.raises(pytest.skip.Exception, match="build/libraries"):
        library("installed_nowhere")
