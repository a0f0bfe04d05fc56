"""The plain probe is what one head of a bank is, and gives its features a gradient."""

from typing import Any

import pytest
import torch

from evalkit.errors import UserError
from evalkit.heads.bank import Bank, Point
from evalkit.heads.head import Head, HeadShape, attention_heads

KINDS: dict[str, dict[str, Any]] = {
    "linear": {},
    "attentive": {"heads": 3},
    "positions": {"heads": 3, "steps": 2},
    "mlap": {"heads": 3, "layers": 2},
    "mlap of one layer": {"heads": 3, "layers": 1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_a_bank_and_gives_its_logits(kind: str) -> None:
    settings = KINDS[kind]
    shape = (4, 2, 3, 5, 12) if kind == "mlap" else (4, 3, 5, 12) if settings else (4, 12)
    draw = torch.Generator().manual_seed(0)
    bank = Bank([Point()], HeadShape(12, 4, **settings))
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
    head = Head(HeadShape(12, 4, **settings))
    head.load_state_dict(bank.state(0))
    features = torch.randn(shape, generator=draw)
    wanted = bank(features)[0]
    found = head(features.requires_grad_())
    assert torch.allclose(found, wanted, rtol=0, atol=1e-5)
    found.sum().backward()
    assert features.grad is not None and features.grad.abs().max() > 0


@torch.no_grad()
def test_attention_is_what_the_values_are_weighed_by() -> None:
    draw = torch.Generator().manual_seed(1)
    head = Head(HeadShape(12, 4, heads=1)).eval()
    for parameter in head.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.5)
    features = torch.randn(2, 3, 5, 12, generator=draw)
    weights = head.attention(features)
    assert weights is not None and weights.shape == (2, 1, 3, 5)
    assert torch.allclose(weights.sum((-1, -2)), torch.ones(2, 1)) and weights.std() > 0.01
    part = head.pool.attention
    value = torch.nn.functional.linear(head.pool.norm(features), part.in_proj_weight[24:], part.in_proj_bias[24:])
    pooled = part.out_proj((weights[:, 0, ..., None] * value).sum((1, 2)))
    assert torch.allclose(head.classify(pooled), head(features), atol=1e-5)


@torch.no_grad()
def test_each_layer_has_an_attention_of_its_own_and_a_linear_probe_none() -> None:
    shape = HeadShape(12, 4, heads=3, layers=2)
    weights = Head(shape).attention(torch.randn(2, 2, 3, 5, 12))
    assert weights is not None and weights.shape == (2, 2, 3, 5)
    assert torch.allclose(weights.sum((-1, -2)), torch.ones(2, 2))
    assert Head(HeadShape(12, 4)).attention(torch.randn(2, 12)) is None


def test_heads_are_the_most_up_to_twelve_that_divide_the_width() -> None:
    assert [attention_heads(width, 0) for width in (768, 24, 35, 13)] == [12, 12, 7, 1]
    assert attention_heads(24, 3) == 3
    with pytest.raises(
        UserError, match=r"adapter.heads=5 does not divide the encoder's width 24; use one of \[1, 2, 3"
    ):
        attention_heads(24, 5)
