"""The range of the input, without a record: what is proof that it is too large, and what is none."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput
from evalkit.canary.checks import examine
from evalkit.canary.reference import film
from tests.canary.test_checks import details, failed, outcomes


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return torch.stack([film(8, 64, index) for index in (2, 3)])


class MeanPooled(nn.Module):
    """A mean of patches, each with its position, and of their nonlinear function: small positions matter little."""

    def __init__(self, positions: float, times: float = 1) -> None:
        super().__init__()
        self.times = times
        self.clip, self.dim = Clip(frames=8, size=64, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)), 96
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.patch = nn.Conv2d(3, self.dim, 16, 16)
            self.position = nn.Parameter(torch.randn(16, self.dim) * positions)
            self.norm = nn.LayerNorm(self.dim)
            linear = nn.Linear(self.dim, self.dim)
            self.mlp = nn.Sequential(nn.LayerNorm(self.dim), linear, nn.GELU())
            with torch.no_grad():  # as training does: one strong direction
                for weight in (self.patch.weight, linear.weight):
                    rows = weight.flatten(1)
                    rows += torch.randn(len(rows), 1) @ torch.randn(1, rows.shape[1]) * rows.std()
        self.eval()

    def forward(self, video: Tensor) -> EncoderOutput:
        tokens = self.patch(self.times * video.flatten(0, 1)).flatten(2).transpose(1, 2) + self.position
        tokens = self.norm(tokens + self.mlp(tokens)).unflatten(0, video.shape[:2])
        return EncoderOutput(tokens, tokens.mean((1, 2)))


@pytest.mark.parametrize(
    ("positions", "outcome"), [(0.0, "ok"), (0.0001, "warning"), (0.0005, "warning"), (0.001, "warning"), (0.02, "ok")]
)
def test_a_right_encoder_that_hardly_depends_on_positions_does_not_fail(
    clips: Tensor, positions: float, outcome: str
) -> None:
    findings = examine(MeanPooled(positions), clips)
    assert not failed(findings) and outcomes(findings)["range"] == outcome
    assert ("value_range of Clip(...)" in details(findings)["range"]) == (outcome == "warning")


def test_the_same_encoder_fed_255_times_too_large_fails_and_the_place_to_mend_is_named(
    clips: Tensor, tmp_path: Path
) -> None:
    fed_wrongly = MeanPooled(0.001, times=255)
    findings = examine(fed_wrongly, clips)
    assert failed(findings) == {"range"} and "value_range of Clip(...) in the encoder" in details(findings)["range"]
    for name, key in (("config.json", "value_range"), ("preprocessor_config.json", "rescale_factor")):
        (tmp_path / name).write_text(f'{{"{key}": 1}}')
        assert f"{key} in {tmp_path / name}" in details(examine(fed_wrongly, clips, folder=tmp_path))["range"]
