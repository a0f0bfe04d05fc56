"""What training costs comes out as VideoPrism's tables print it, and of small layers as counted by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evalkit.api import Adapter, Prediction, Task
from evalkit.encoders import read_preset
from evalkit.heads.flops import trainable_flops, trained_flops
from evalkit.heads.head import Head, HeadShape
from evalkit.metrics.classification import accuracy
from tests.given import make_adapter

KINETICS = Task(test=(), score=accuracy, classes=tuple(map(str, range(400))))


def shape(*sizes: int) -> Tensor:
    return torch.empty(sizes, device="meta")


@pytest.mark.parametrize(("steps", "printed", "of_four"), [(8, 3.72, 14.9), (16, 9.71, 38.8)])
def test_a_probe_costs_what_is_printed(steps: int, printed: float, of_four: float) -> None:
    side = 14 if steps == 8 else 16
    with torch.device("meta"):
        one, four = Head(HeadShape(768, 400, 12)), Head(HeadShape(768, 400, 12, layers=4))
    assert trained_flops(one, shape(1, steps, side**2, 768)) / 1e9 == pytest.approx(printed, rel=0.004)
    assert trained_flops(four, shape(1, 4, steps, side**2, 768)) / 1e9 == pytest.approx(of_four, rel=0.004)


@pytest.mark.parametrize(("frames", "size", "adapters", "whole"), [(8, 252, 8.71, 374), (16, 288, 22.8, 977)])
def test_adapters_and_the_whole_of_videoprism_cost_what_is_printed(
    frames: int, size: int, adapters: float, whole: float
) -> None:
    for tune, printed in (("adapters", adapters), ("all", whole)):
        with torch.device("meta"):
            encoder: Any = read_preset("videoprism_base").build().requires_grad_(False)
        tuned = make_adapter("finetune", encoder, KINETICS, tune=tune)
        found = trainable_flops(tuned, encoder, frames, size)
        assert found is not None and found / 1e9 == pytest.approx(printed, rel=0.012)


@pytest.mark.parametrize(
    ("settings", "printed"),
    [({"heads": 12}, 9.71), ({"head": "mlap", "heads": 12}, 38.8), ({"head": "linear"}, 6.144e-4)],
)
def test_a_probe_that_is_folded_counts_as_published(settings: dict[str, Any], printed: float) -> None:
    with torch.device("meta"):
        encoder = read_preset("videoprism_base").build().requires_grad_(False)
    probe = make_adapter("probe", encoder, KINETICS, **settings)
    found = trainable_flops(probe, encoder, 16, 288)
    assert found is not None and found / 1e9 == pytest.approx(printed, rel=0.004)


def test_only_layers_that_are_trained_count_and_none_twice() -> None:
    module = nn.Sequential(nn.Linear(10, 20), nn.Sequential(nn.Linear(20, 30), nn.ReLU()), nn.Linear(30, 5))
    first, second, third = 2 * 7 * 10 * 20, 2 * 7 * 20 * 30, 2 * 7 * 30 * 5
    assert trained_flops(module, shape(7, 10)) == first + second + third
    module[0].requires_grad_(False)
    assert trained_flops(module, shape(7, 10)) == second + third
    module[1].requires_grad_(False)
    assert trained_flops(module, shape(7, 10)) == third
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())


def test_what_counts_nothing_or_needs_values_has_no_count() -> None:
    class Looks(nn.Module):
        def forward(self, video: Tensor) -> float:
            return float(video.mean())

    class Plain(Adapter):
        def predict(self, examples: Any, features: Any) -> list[Prediction]:
            return []

    class Counts(Plain):
        def flops(self, encoder: Any, video: Tensor) -> int:
            return int(encoder(video))

    assert trainable_flops(Plain(), Looks(), 2, 8) is None
    assert trainable_flops(Counts(), Looks(), 2, 8) is None
