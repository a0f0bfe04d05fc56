"""V-JEPA 2's released classifiers give what their authors' model gives, or are refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit import plugins
from evalkit.api import Example
from evalkit.encoders import load_encoder
from tests.adapters.test_attentive_classifier import FIXTURE, TASK, TOGETHER, make, refusal
from tests.given import make_adapter

pytestmark = pytest.mark.usefixtures("decoding_here")


@pytest.fixture
def fixture() -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Of the authors' model at random weights: its classifier, and the tokens and logits of two clips."""
    with np.load(FIXTURE / "vjepa2_rope.params.npz") as arrays:
        weights = {n.removeprefix("classifier/"): torch.from_numpy(arrays[n]) for n in arrays if n.startswith("class")}
    with np.load(FIXTURE / "vjepa2_rope.io.npz") as arrays:
        return weights, torch.from_numpy(arrays["out/tokens"]), torch.from_numpy(arrays["out/logits"])


def write(path: Path, *classifiers: dict[str, Tensor]) -> Path:
    """A file as the authors' training writes it."""
    wrapped = [{f"module.{name}": value for name, value in one.items()} for one in classifiers]
    torch.save({"classifiers": wrapped, "opt": [], "scaler": None, "epoch": 20, "batch_size": 4}, path)
    return path


FIVE = replace(TASK, classes=tuple("abcde"))
AS_THEIRS: dict[str, Any] = {"dim": 48, "heads": 2, "blocks": 2}


@pytest.mark.parametrize("head_index", [None, 1])
def test_a_released_file_gives_the_logits_of_the_authors_model(
    tmp_path: Path, fixture: tuple[dict[str, Tensor], Tensor, Tensor], head_index: int | None
) -> None:
    weights, tokens, logits = fixture
    others = [] if head_index is None else [{name: value + 1 for name, value in weights.items()}]
    probe = write(tmp_path / "probe.pt", *others, weights)
    classifiers = make(FIVE, probe=probe, head_index=head_index, **AS_THEIRS)
    assert classifiers.epochs == 0 and classifiers.adapter_state().keys() == weights.keys()
    with torch.no_grad():
        found = classifiers(tokens.view(2, 1, 4, 16, 48))
    assert found.shape == (1, 2, 1, 5) and (found[0, :, 0] - logits).abs().max() < 1e-5


def test_the_tokens_of_all_clips_are_joined_crop_by_crop(
    tmp_path: Path, fixture: tuple[dict[str, Tensor], Tensor, Tensor]
) -> None:
    weights, tokens, logits = fixture
    probe = write(tmp_path / "probe.pt", weights)
    classifiers = make(replace(FIVE, views=TOGETHER), probe=probe, **AS_THEIRS)
    clips = tokens.view(2, 2, 1, 2, 16, 48)  # the authors' one clip as two of half the length
    features = torch.cat([clips, clips + 1, clips.flip(0)], 2).flatten(1, 2)  # the crops of the first clip come first
    with torch.no_grad():
        found = classifiers(features)[0]
    assert (found[:, 0] - logits).abs().max() < 1e-5 and (found[:, 2] - logits.flip(0)).abs().max() < 1e-5
    mean = found.softmax(-1).mean(1)
    examples = [Example(str(i), Path(str(i))) for i in range(2)]
    for one, expected in zip(classifiers.predict(examples, features.half()), mean, strict=True):
        best = expected.sort(descending=True)
        assert one.value == best.indices.tolist()
        assert one.detail["probabilities"] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_probe_of_another_order_of_classes_is_mapped_by_their_names(
    tmp_path: Path, fixture: tuple[dict[str, Tensor], Tensor, Tensor]
) -> None:
    weights, tokens, logits = fixture
    probe, labels = write(tmp_path / "probe.pt", weights), tmp_path / "labels.txt"
    labels.write_text("C\ne\na\nb\nd\n")
    with torch.no_grad():
        found = make(FIVE, probe=probe, labels=labels, **AS_THEIRS)(tokens.view(2, 1, 4, 16, 48))[0, :, 0]
    assert (found - logits[:, [2, 3, 0, 4, 1]]).abs().max() < 1e-5
    assert "no effect without adapter.probe=" in refusal(FIVE, labels=labels)
    labels.write_text("a\nb\nc\nd\nf\n")
    assert "1 of its 5 labels are no class of the data set ('f')" in refusal(
        FIVE, probe=probe, labels=labels, **AS_THEIRS
    )


CHANGES: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "missing pooler.blocks.0.attn.proj.bias": lambda weights: weights.pop("pooler.blocks.0.attn.proj.bias"),
    "unexpected pooler.blocks.2.norm1.bias": lambda weights: weights.update(
        {"pooler.blocks.2.norm1.bias": torch.zeros(24)}
    ),
    "tells 174 classes apart, and this task has 3: give a classifier": lambda weights: weights.update(
        {"linear.weight": torch.zeros(174, 24)}
    ),
}


@pytest.mark.parametrize("told", CHANGES)
def test_a_released_file_that_does_not_fit_is_refused(tmp_path: Path, told: str) -> None:
    weights = {name: value.clone() for name, value in make().adapter_state().items()}
    make(probe=write(tmp_path / "whole.pt", weights))
    CHANGES[told](weights)
    assert told in refusal(probe=write(tmp_path / "changed.pt", weights))


def test_which_of_several_classifiers_is_meant_must_be_said(tmp_path: Path) -> None:
    weights = make().adapter_state()
    several = write(tmp_path / "several.pt", weights, weights, weights)
    assert refusal(probe=several) == (f"adapter.probe={several} holds 3 classifiers: add adapter.head_index=0 to 2")
    assert refusal(probe=several, head_index=3) == (
        f"adapter.probe={several} holds 3 classifiers: adapter.head_index=3 is none; use adapter.head_index=0 to 2"
    )
    assert refusal(head_index=0) == "adapter.head_index=0 has no effect without adapter.probe="


def test_a_file_that_holds_no_classifiers_is_refused(tmp_path: Path) -> None:
    assert refusal(probe=tmp_path / "none.pt") == f"adapter.probe={tmp_path / 'none.pt'}: no such file"
    torch.save({"classifiers": []}, tmp_path / "empty.pt")
    torch.save({"encoder": {}}, tmp_path / "encoder.pt")
    torch.save({"classifiers": [Path("x")]}, tmp_path / "code.pt")
    for name in ("empty.pt", "encoder.pt"):
        assert "wanted `classifiers`, a list, as V-JEPA 2's evaluations write it" in refusal(probe=tmp_path / name)
    assert "it holds pathlib.PosixPath, which can run code" in refusal(probe=tmp_path / "code.pt")


def test_the_authors_classifiers_of_several_layers_want_them_named(tmp_path: Path) -> None:
    probe = write(tmp_path / "probe.pt", make().adapter_state())
    assert refusal(probe=probe, layers=4).startswith(
        "adapter.layers=4: the authors' classifiers of several layers read each after the encoder's norm"
    )
    assert make(probe=probe, layers=[1, 3], named_layers=4).feature_spec.layers == (1, 3)


DEPTH, HEADS = 3, 2  # of the fixture's encoder


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def turned(x: Tensor, places: Tensor) -> Tensor:
    """Pairs of neighbors (x, y) -> (x cos a - y sin b, y cos b + x sin a): angles repeat by halves, not by pairs."""
    width = x.shape[-1]
    speed = 10_000.0 ** -(torch.arange(width // 2) / (width / 2))
    angle = (places[:, None] * speed).repeat(1, 2)
    crossed = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return x * angle.cos() + crossed * angle.sin()


def plain_block(x: Tensor, weights: dict[str, Tensor], block: str, heads: int, places: Sequence[Tensor]) -> Tensor:
    """A released block of V-JEPA 2, in which queries and keys are turned by each token's time, row and column."""
    qkv = linear(norm(x, weights, f"{block}.norm1"), weights, f"{block}.attn.qkv")
    q, k, v = qkv.view(*qkv.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    each = 2 * (q.shape[-1] // 3 // 2)
    for axis, place in enumerate(places):
        part = slice(axis * each, (axis + 1) * each)
        q[..., part], k[..., part] = turned(q[..., part], place), turned(k[..., part], place)
    attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
    x = x + linear(attention.transpose(1, 2).flatten(2), weights, f"{block}.attn.proj")
    hidden = F.gelu(linear(norm(x, weights, f"{block}.norm2"), weights, f"{block}.mlp.fc1"))
    return x + linear(hidden, weights, f"{block}.mlp.fc2")


def plain_encoder(weights: dict[str, Tensor], video: Tensor, out_layers: list[int]) -> Tensor:
    """The released vision_transformer.py with out_layers, from video (B, 3, T, H, W): all their tokens, end to end."""
    x = F.conv3d(video, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], (2, 8, 8))
    grid = x.shape[2:]
    x = x.flatten(2).mT
    places = torch.cartesian_prod(*(torch.arange(n) for n in grid)).float().unbind(1)  # time, row, column
    outs = []
    for i in range(DEPTH):
        x = plain_block(x, weights, f"blocks.{i}", HEADS, places)
        if i in out_layers:
            outs.append(norm(x, weights, "norm"))
    return torch.cat(outs, 1)


def test_the_plain_encoder_is_the_authors() -> None:
    """Else the test below says nothing."""
    weights, video, tokens = authors_encoder()
    assert (plain_encoder(weights, video, [2]) - tokens).abs().max() < 1e-5


def authors_encoder() -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Of the authors' encoder at random weights: these, a video (B, 3, T, H, W), and its tokens (B, N, D)."""
    with np.load(FIXTURE / "vjepa2_rope.params.npz") as arrays:
        weights = {n.removeprefix("encoder/"): torch.from_numpy(arrays[n]) for n in arrays if n.startswith("encoder/")}
    with np.load(FIXTURE / "vjepa2_rope.io.npz") as arrays:
        return weights, torch.from_numpy(arrays["in/video_bcthw"]), torch.from_numpy(arrays["out/tokens"])


@pytest.mark.parametrize("named", [(0, 2), (0, 1), (1,)])
def test_a_released_file_of_named_layers_gives_what_the_released_code_gives(
    tmp_path: Path, fixture: tuple[dict[str, Tensor], Tensor, Tensor], named: tuple[int, ...]
) -> None:
    head, _, _ = fixture
    weights, video, _ = authors_encoder()
    torch.save({"target_encoder": weights}, tmp_path / "vitl.pt")
    encoder: Any = load_encoder(str(tmp_path / "vitl.pt"), heads=2, positions="rotary")
    probe = write(tmp_path / "probe.pt", head)
    task = replace(FIVE, views=TOGETHER)
    classifiers = make_adapter("attentive_classifier", encoder, task, heads=2, blocks=2, layers=named, probe=probe)
    clips = torch.stack([video, video.flip(2)], 1)  # (B, 2, 3, T, H, W), as two clips of each
    with torch.no_grad():
        joined = torch.cat([plain_encoder(weights, clip, list(named)) for clip in clips.unbind(1)], 1)
        module = plugins.module_and_factory("adapter", "attentive_classifier")[0]
        whole = module.AttentiveClassifier(48, 5, 2, 2)
        whole.load_state_dict(head)
        wanted = whole(joined)
        kept = replace(classifiers.feature_spec, dtype="float32")
        encoded = encoder(clips.flatten(0, 1).transpose(1, 2), layers=named)
        features = kept.take(encoded)
        found = classifiers(features.view(2, 2, *features.shape[1:]))
    assert found.shape == (1, 2, 1, 5) and (found[0, :, 0] - wanted).abs().max() < 1e-5
    assert len(encoded.layers) == len(named) and torch.equal(
        encoded.tokens, encoder(clips.flatten(0, 1).transpose(1, 2)).tokens
    )


@pytest.mark.parametrize(
    ("asked", "named_layers", "told"),
    [
        ([1, 3], 0, "adapter.layers=[1, 3] names layers, and this encoder gives its last ones alone: use adapter.lay"),
        ([1, 4], 4, "adapter.layers=[1, 4]: wanted rising numbers from 0 to 3, which is this encoder's last layer"),
        ([-1, 3], 4, "adapter.layers=[-1, 3]: wanted rising numbers from 0 to 3"),
        ([3, 1], 4, "adapter.layers=[3, 1]: wanted rising numbers from 0 to 3"),
        ([1, 1], 4, "adapter.layers=[1, 1]: wanted rising numbers from 0 to 3"),
        ([], 4, "adapter.layers=[]: wanted rising numbers from 0 to 3"),
    ],
)
def test_layers_that_are_none_are_told(asked: list[int], named_layers: int, told: str) -> None:
    assert refusal(layers=asked, named_layers=named_layers).startswith(told)
