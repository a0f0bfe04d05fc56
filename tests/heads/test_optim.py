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
    groups = {group["weight_decay"]: group for group in adamw(module, 1e-3, 0.1, 100)["optimizer"].param_groups}
    assert {decay: len(group["params"]) for decay, group in groups.items()} == {0.1: 1, 0.0: 4}
    assert groups[0.1]["params"][0] is module["linear"].weight


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


def test_a_part_has_its_own_rate_and_the_same_schedule_and_decay() -> None:
    module = nn.ModuleDict({"encoder": nn.Linear(3, 4), "decoder": nn.Linear(4, 2)})
    made = adamw(module, 1e-4, 0.1, 20, lr_of_parts={module["decoder"]: 2e-3})
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(20):
        of = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
        rates.append([of[module[part].weight] for part in ("encoder", "decoder")])
        assert of[module["decoder"].bias] == of[module["decoder"].weight]
        optimizer.step()
        schedule.step()
    assert rates[0] == [1e-4, 2e-3]
    assert all(decoder == pytest.approx(20 * encoder) for encoder, decoder in rates)
    decays = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decays[p] for p in module["decoder"].parameters()] == [0.1, 0.0]
