"""AdamW with a warm-up and a cosine: what decays, and the rate of each step."""

import math

import pytest
import torch
from torch import nn

from evalkit.heads.optim import adamw


def test_matrices_decay_and_biases_norms_and_scales_do_not() -> None:
    module = nn.ModuleDict({"linear": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "frozen": nn.Linear(2, 2)})
    module["frozen"].requires_grad_(False)
    module.register_parameter("scale", nn.Parameter(torch.ones(())))
    groups = adamw(module, 1e-3, 0.1, 100)["optimizer"].param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 1), (0.0, 4)]
    assert groups[0]["params"][0] is module["linear"].weight


@pytest.mark.parametrize("steps", [1, 2, 10, 100, 1000])
def test_the_rate_warms_up_to_its_peak_and_falls_as_a_cosine_to_almost_nothing(steps: int) -> None:
    made = adamw(nn.Linear(2, 2), 0.5, 0.0, steps)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    first = max(1, round(0.05 * steps))
    assert rates[first - 1] == max(rates) == 0.5
    assert rates[:first] == pytest.approx([0.5 * (i + 1) / first for i in range(first)])
    falling = [0.25 * (1 + math.cos(math.pi * i / (steps - first))) for i in range(steps - first)]
    assert rates[first:] == pytest.approx(falling)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12) or steps == 1
