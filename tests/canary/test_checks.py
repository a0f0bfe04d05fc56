"""The canary: input mismatches, each planted in a healthy encoder, and healthy encoders, in which it finds none."""

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput
from evalkit.canary import reference, weights
from evalkit.canary.checks import examine
from evalkit.canary.finding import Finding
from evalkit.canary.reference import content, film, write_reference
from evalkit.demo import FOLDER as DEMO
from evalkit.encoders import load_encoder
from evalkit.errors import UserError

Change = Callable[[Tensor], Tensor]


class Wrapped(nn.Module):
    """The user's own code around an encoder: its input and its output changed."""

    def __init__(
        self,
        encoder: Any,
        clip: Clip | None = None,
        change: Change = lambda video: video,
        after: Callable[[EncoderOutput], Any] = lambda encoded: encoded,
    ) -> None:
        super().__init__()
        self.encoder, self.clip, self.dim = encoder, clip or encoder.clip, encoder.dim
        self.change, self.after = change, after
        self.eval()

    def forward(self, video: Tensor) -> Any:
        return self.after(self.encoder(self.change(video)))

    def encode_text(self, texts: list[str]) -> Tensor:
        return self.encoder.encode_text(texts)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def demo() -> Any:
    return load_encoder("demo")


@pytest.fixture(scope="module")
def clips() -> Tensor:
    """Two short films at the demo's size."""
    return torch.stack([film(8, 64, index) for index in (2, 3)])


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """No record of the demo: its weights are like anybody's."""
    monkeypatch.setattr(reference, "SHIPPED", Path("nowhere"))


def outcomes(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.outcome for finding in findings}


def details(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.detail for finding in findings}


def failed(findings: list[Finding]) -> set[str]:
    return {finding.check for finding in findings if finding.outcome == "failed"}


def damaged(encoder: Any, chosen: Callable[[int, str], bool], fresh: Any) -> Any:
    """A copy with fresh values in the chosen parameters."""
    copied, values = copy.deepcopy(encoder), dict(fresh.named_parameters())
    with torch.no_grad():
        for index, (name, parameter) in enumerate(copied.named_parameters()):
            if chosen(index, name):
                parameter.copy_(values[name])
    return copied


def test_the_demo_is_found_right(demo: Any, clips: Tensor) -> None:
    findings = examine(demo, clips, folder=DEMO)
    assert set(outcomes(findings).values()) == {"ok"}
    wanted = {"training mode", "weights", "layout", "finite", "determinism", "batch", "reference", "constant"}
    assert set(outcomes(findings)) == wanted | {"frame order", "layers"}


@pytest.mark.usefixtures("unknown")
def test_without_a_record_a_right_encoder_has_only_one_unknown(demo: Any, clips: Tensor) -> None:
    findings = examine(demo, clips)
    assert [finding.check for finding in findings if finding.outcome != "ok"] == ["normalization"]
    assert "numpy.savez_compressed" in details(findings)["normalization"]
    assert outcomes(findings)["colors"] == outcomes(findings)["range"] == "ok"


def test_every_finding_is_one_line(demo: Any, clips: Tensor) -> None:
    assert all(finding.detail and "\n" not in finding.detail for finding in examine(demo, clips))


@pytest.mark.parametrize(("seed", "size"), [(0, 32), (0, 64), (1, 64), (2, 64)])
def test_a_random_encoder_only_warns(tiny: Path, seed: int, size: int) -> None:
    encoder: Any = load_encoder(str(tiny) if size == 32 else "random:vivit_demo", seed=seed)
    findings = examine(encoder, torch.stack([film(8, size, index) for index in (2, 3)]))
    assert not failed(findings)
    assert outcomes(findings)["weights"] == "warning" and "untrained" in details(findings)["weights"]


def test_swapped_t_and_c_are_found(demo: Any, clips: Tensor) -> None:
    findings = examine(Wrapped(demo, change=lambda video: video.transpose(1, 2)), clips)
    assert "T and C are swapped" in details(findings)["layout"] and failed(findings) == {"layout"}


def test_t_and_c_swapped_without_an_error_are_found(demo: Any, clips: Tensor) -> None:
    def read_wrongly(video: Tensor) -> Tensor:  # takes the values of (B, T, C, H, W) for (B, C, T, H, W)
        b, t, c, h, w = video.shape
        return video.reshape(b, c, t, h, w).transpose(1, 2)

    assert failed(examine(Wrapped(demo, change=read_wrongly), clips)) == {"reference"}


MEAN, STD = torch.tensor((0.5, 0.5, 0.5)).view(3, 1, 1), torch.tensor((0.25, 0.25, 0.25)).view(3, 1, 1)
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("clip", "change", "cure"),
    [
        ({}, lambda video: video.flip(2), "BGR"),
        ({}, lambda video: video.transpose(3, 4), "H and W"),
        ({}, lambda video: video * 255, ""),
        ({}, lambda video: video / 255, "255 times larger"),
        ({}, lambda video: ((video * STD + MEAN) / 255 - MEAN) / STD, ""),
        ({"value_range": (0.0, 255.0)}, lambda video: video, "0.5 and 0.25"),
        ({"value_range": (0.0, 255.0), "mean": ZERO, "std": ONE}, lambda video: video, "0.5 and 0.25"),
        ({"mean": ZERO, "std": ONE}, lambda video: video, "0.5 and 0.25"),
        ({"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}, lambda video: video, "0.5 and 0.25"),
    ],
    ids=["bgr", "h_w", "255_times", "255th", "0_1_for_0_255", "0_255", "0_255_raw", "0_1_raw", "imagenet"],
)
def test_the_demo_fed_wrongly_is_found_and_the_cure_is_named(
    demo: Any, clips: Tensor, clip: dict[str, Any], change: Change, cure: str
) -> None:
    findings = examine(Wrapped(demo, replace(demo.clip, **clip), change), clips, budget_s=120)
    assert "reference" in failed(findings)
    assert cure in details(findings)["reference"]


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize(
    ("clip", "change", "check"),
    [
        ({"value_range": (0.0, 255.0), "mean": ZERO, "std": ONE}, lambda video: video, "range"),
        ({"value_range": (0.0, 255.0)}, lambda video: video, "range"),
        ({}, lambda video: video * 255, "range"),
        ({}, lambda video: ((video * STD + MEAN) / 255 - MEAN) / STD, "constant"),
        ({}, lambda video: video.flip(2), "colors"),
    ],
    ids=["0_255_raw", "0_255", "255_times", "0_1_for_0_255", "bgr"],
)
def test_range_and_channels_are_found_without_a_record(
    demo: Any, clips: Tensor, clip: dict[str, Any], change: Change, check: str
) -> None:
    assert failed(examine(Wrapped(demo, replace(demo.clip, **clip), change), clips)) == {check}


def test_a_constant_embedding_is_found(demo: Any, clips: Tensor, tiny: Path) -> None:
    for encoder, batch in ((demo, clips), (load_encoder(str(tiny)), torch.stack([film(4, 32, 2), film(4, 32, 3)]))):
        same = Wrapped(encoder, after=lambda out: EncoderOutput(out.tokens, torch.ones_like(out.pooled)))
        assert "constant" in failed(examine(same, batch))


def test_training_mode_is_found(demo: Any, clips: Tensor) -> None:
    encoder = copy.deepcopy(demo)
    encoder.blocks[1].train()
    findings = examine(encoder, clips)
    assert failed(findings) == {"training mode"} and "blocks.1" in details(findings)["training mode"]
    assert encoder.blocks[1].training and not encoder.blocks[0].training


@pytest.mark.usefixtures("unknown")
def test_active_dropout_is_found_though_no_module_is_in_training_mode(demo: Any, clips: Tensor) -> None:
    loose = Wrapped(demo, after=lambda out: EncoderOutput(out.tokens, F.dropout(out.pooled, 0.1)))
    findings = examine(loose, clips)
    assert failed(findings) == {"determinism"} and outcomes(findings)["batch"] == "unknown"


@pytest.mark.usefixtures("unknown")
def test_clips_that_change_each_other_are_found(demo: Any, clips: Tensor) -> None:
    mixed = Wrapped(demo, after=lambda out: EncoderOutput(out.tokens, out.pooled - out.pooled.mean(0) / 2))
    assert failed(examine(mixed, clips)) == {"batch"}


@pytest.mark.parametrize(
    "chosen",
    [
        lambda index, name: index % 2 == 0,
        lambda index, name: index % 2 == 1 or "norm" in name,
        lambda index, name: any(f"blocks.{block}." in name for block in (1, 3, 5)),
        lambda index, name: not any(f"blocks.{block}." in name for block in (3, 4, 5)),
        lambda index, name: random.Random(name).random() < 0.5,
    ],
    ids=["even", "odd", "odd_blocks", "lower_half", "by_chance"],
)
@pytest.mark.usefixtures("unknown")
def test_half_of_the_weights_random_is_found_without_a_record(
    demo: Any, clips: Tensor, chosen: Callable[[int, str], bool]
) -> None:
    findings = examine(damaged(demo, chosen, load_encoder("random:vivit_demo")), clips, budget_s=0)
    assert failed(findings) == {"weights"}


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("whole", [True, False], ids=["own_spread", "unit"])
def test_every_other_tensor_drawn_anew_is_found(demo: Any, parity: int, whole: bool) -> None:
    encoder = copy.deepcopy(demo)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for index, parameter in enumerate(encoder.parameters()):
            if index % 2 == parity:
                parameter.copy_(torch.randn_like(parameter) * (parameter.std() if whole else 1))
    assert weights.weight_statistics(encoder).finding().outcome == "failed"


def test_half_of_the_values_of_each_tensor_fresh_is_found(demo: Any) -> None:
    encoder, fresh = copy.deepcopy(demo), load_encoder("random:vivit_demo")
    assert isinstance(fresh, nn.Module)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter, values in zip(encoder.parameters(), fresh.parameters(), strict=True):
            chosen = torch.rand_like(parameter) < 0.5
            parameter[chosen] = values[chosen]
    assert weights.weight_statistics(encoder).finding().outcome == "failed"


def test_altered_weights_beside_a_record_are_found(demo: Any, clips: Tensor) -> None:
    encoder = damaged(demo, lambda index, name: name == "blocks.3.mlp.0.weight", load_encoder("random:vivit_demo"))
    findings = examine(encoder, clips, folder=DEMO)
    assert (
        "reference" in failed(findings)
        and "not those that the reference was made with" in details(findings)["reference"]
    )


@pytest.mark.parametrize("strong", ["query", "none"])
def test_hardly_trained_weights_are_no_failure(strong: str) -> None:
    """Early in training some kinds of matrices have learned in every layer, and others in none."""
    kinds = ("query", "value", "up", "down")
    layers = nn.ModuleList(nn.ModuleDict({kind: nn.Linear(64, 64) for kind in kinds}) for _ in range(5))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for name, parameter in layers.named_parameters():
            if name.endswith("weight"):
                parameter.copy_(torch.randn(64, 64))
                if strong in name:
                    parameter.add_(torch.randn(64, 1) @ torch.randn(1, 64))
    assert weights.weight_statistics(layers).finding().outcome == "warning"


def test_frames_encoded_by_themselves_are_told_from_order(demo: Any, clips: Tensor) -> None:
    assert "matters" in details(examine(demo, clips))["frame order"]

    class FrameLevel(Wrapped):
        def forward(self, video: Tensor) -> EncoderOutput:
            each = self.encoder(video.flatten(0, 1)[:, None])
            tokens = each.tokens.reshape(*video.shape[:2], -1, self.dim)
            return EncoderOutput(tokens, tokens.mean((1, 2)))

    findings = examine(FrameLevel(load_encoder("random:vivit_demo")), clips)
    assert "does not matter" in details(findings)["frame order"] and not failed(findings)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (lambda out: out.pooled, "returns a Tensor"),
        (lambda out: EncoderOutput(out.tokens.flatten(1, 2), out.pooled), "wanted (B, T', S, D)"),
        (lambda out: EncoderOutput(out.tokens, out.pooled[:, :8]), "pooled is (2, 8)"),
        (lambda out: EncoderOutput(out.tokens, out.pooled.long()), "wanted floats"),
        (lambda out: EncoderOutput(out.tokens.transpose(1, 2), out.pooled), "no more steps"),
    ],
)
def test_an_output_of_another_layout_is_found(demo: Any, clips: Tensor, after: Any, message: str) -> None:
    findings = examine(Wrapped(demo, after=after), clips)
    assert failed(findings) == {"layout"} and message in details(findings)["layout"]


def test_nan_is_found(demo: Any, clips: Tensor) -> None:
    assert failed(examine(Wrapped(demo, after=lambda out: EncoderOutput(out.tokens / 0, out.pooled)), clips)) == {
        "finite"
    }


def test_what_the_encoder_raises_is_a_finding(demo: Any, clips: Tensor) -> None:
    def refuse(video: Tensor) -> Tensor:
        raise KeyError("rope")

    findings = examine(Wrapped(demo, change=refuse), clips)
    assert failed(findings) == {"layout"} and "KeyError" in details(findings)["layout"]


def test_layers_that_do_not_end_with_tokens_are_found(demo: Any, clips: Tensor) -> None:
    class Layered(Wrapped):
        def forward(self, video: Tensor, layers: int = 1) -> EncoderOutput:
            out: EncoderOutput = self.encoder(video)
            return out if layers == 1 else out._replace(layers=(out.tokens, out.tokens + 1))

    assert failed(examine(Layered(demo), clips)) == {"layers"}


def test_the_encoder_and_the_random_state_are_left_as_they_were(clips: Tensor) -> None:
    norm = nn.BatchNorm1d(160)
    encoder = Wrapped(load_encoder("random:vivit_demo"), after=lambda out: EncoderOutput(out.tokens, norm(out.pooled)))
    encoder.norm = norm
    encoder.train()
    torch.manual_seed(7)
    before, buffers = torch.get_rng_state(), copy.deepcopy(dict(encoder.named_buffers()))
    examine(encoder, clips)
    assert torch.equal(before, torch.get_rng_state()) and encoder.training and norm.training
    assert all(torch.equal(buffers[name], value) for name, value in encoder.named_buffers())


def test_when_the_time_is_over_the_rest_is_unknown(demo: Any, clips: Tensor) -> None:
    findings = outcomes(examine(demo, clips, budget_s=0))
    assert findings["frame order"] == findings["layers"] == "unknown"
    assert findings["reference"] == findings["layout"] == findings["constant"] == "ok"


def test_a_record_of_ones_own_is_two_lines_of_numpy(tiny: Path, tmp_path: Path) -> None:
    encoder: Any = load_encoder(str(tiny))
    clips = torch.stack([film(4, 32, index) for index in (2, 3)])
    video = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    pooled = encoder((torch.from_numpy(video).permute(0, 3, 1, 2) / 255)[None]).pooled[0].numpy()
    np.savez_compressed(tmp_path / "canary.npz", video=video, pooled=pooled)
    assert outcomes(examine(encoder, clips, folder=tmp_path))["reference"] == "ok"
    other = Wrapped(encoder, replace(encoder.clip, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    findings = examine(other, clips, folder=tmp_path)
    assert "reference" in failed(findings) and "mean and std 0 and 1" in details(findings)["reference"]


def test_a_record_that_is_none_is_found(demo: Any, clips: Tensor, tmp_path: Path) -> None:
    (tmp_path / "canary.npz").write_text("not one")
    assert "reference" in failed(examine(demo, clips, folder=tmp_path))
    np.savez(tmp_path / "canary.npz", video=np.zeros((4, 3, 32, 32)), pooled=np.zeros(4))
    with pytest.raises(UserError, match="wanted uint8"):
        reference.read_reference(tmp_path / "canary.npz")


def test_the_shipped_record_is_what_the_demo_gives_now(demo: Any, tmp_path: Path) -> None:
    write_reference(demo, tmp_path / "canary.npz")
    now, shipped = reference.read_reference(tmp_path / "canary.npz"), reference.read_reference(reference.SHIPPED)
    assert torch.equal(now.video, shipped.video) and now.weights == shipped.weights
    torch.testing.assert_close(now.pooled, shipped.pooled, rtol=1e-3, atol=1e-4)
    assert reference.SHIPPED.stat().st_size < 60_000


def test_content_does_not_depend_on_names_and_order() -> None:
    first, second = nn.Linear(3, 4), nn.Linear(4, 5)
    here, there = nn.ModuleDict({"a": first, "b": second}), nn.ModuleDict({"x": second, "y": first})
    assert content(here) == content(there) != content(nn.ModuleDict({"a": first}))


def test_films_differ_from_each_other_and_from_their_mirror_images() -> None:
    one = film(8, 32).float()
    for other in (film(8, 32, 1).float(), one.flip(0), one.flip(1), one.flip(2), one.flip(3), one.transpose(2, 3)):
        assert (one - other).abs().mean() > 2


def test_weights_that_are_nan_are_a_finding_and_no_crash() -> None:
    encoder = load_encoder("demo")
    assert isinstance(encoder, nn.Module)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(torch.nan)
    clips = torch.stack([reference.film(8, 64, index) for index in (2, 3)])
    assert outcomes(examine(encoder, clips))["finite"] == "failed"
