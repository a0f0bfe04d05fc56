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


def test_heads_are_the_most_up_to_twelve_that_divide_the_width() -> None:
    assert [attention_heads(width, 0) for width in (768, 24, 35, 13)] == [12, 12, 7, 1]
    assert attention_heads(24, 3) == 3
    with pytest.raises(
        UserError, match=r"adapter.heads=5 does not divide the encoder's width 24; use one of \[1, 2, 3"
    ):
        attention_heads(24, 5)
