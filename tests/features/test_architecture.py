"""What of a module is in the key of its features, beside its weights."""

import functools
from argparse import Namespace
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evalkit.api import Clip
from evalkit.features.key import (
    architecture,
)


class Block(nn.Module):
    def __init__(self, heads: int = 2, eps: float = 1e-5, **more: Any) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(4, eps=eps)
        for name, value in more.items():
            setattr(self, name, value)


def test_an_architecture_is_told_by_settings_that_no_weight_shows() -> None:
    same = architecture(nn.Sequential(Block()))
    assert architecture(nn.Sequential(Block()).eval()) == same
    others = [Block(heads=4), Block(eps=1e-6), Block(stride=(2, 2)), Block(stride=(2, 3)), Block(rope={"base": 1e4})]
    others += [Block(clip=Clip()), Block(clip=Clip(size=32))]
    hashes = {same, *(architecture(nn.Sequential(other)) for other in others)}
    assert len(hashes) == len(others) + 1


def test_an_architecture_does_not_depend_on_weights_mode_place_or_address() -> None:
    first, second = Block(name_or_path="/a", hook=object()), Block(name_or_path="/b", hook=object())
    nn.init.normal_(second.norm.weight)
    assert architecture(first.train()) == architecture(second.eval().to(torch.float16))


def test_an_edited_source_file_is_another_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from torch import nn\n\nclass Own(nn.Module):\n    def forward(self, x):\n        return x{}\n"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_encoder_of_this_test.py").write_text(source.format(""))
    import own_encoder_of_this_test as module  # type: ignore[import-not-found]

    before = architecture(module.Own())
    assert architecture(module.Own()) == before
    (tmp_path / "own_encoder_of_this_test.py").write_text(source.format(" * 2"))
    assert architecture(module.Own()) != before


def test_what_a_module_keeps_to_itself_changes_its_architecture() -> None:
    class Own(nn.Module):
        def __init__(self, pool: str) -> None:
            super().__init__()
            self._pool = pool

    assert architecture(Own("mean")) != architecture(Own("max"))
    assert architecture(Own("mean")) == architecture(Own("mean").train())


@dataclass(slots=True)
class Slotted:
    gain: float

    def doubled(self) -> float:
        return 2 * self.gain

    def halved(self) -> float:
        return self.gain / 2


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (torch.zeros(3), torch.ones(3)),
        (np.zeros(3), np.ones(3)),
        (np.int64(3), np.int64(4)),
        ({3, 7}, {3, 11}),
        (torch.float32, torch.float16),
        ([3, torch.float32], [3, torch.float16]),
        (nn.functional.relu, nn.functional.gelu),
        (functools.partial(nn.functional.gelu, approximate="none"), functools.partial(nn.functional.gelu)),
        (lambda x: x + 1, lambda x: x + 2),
        (slice(0, 2), slice(0, 3)),
        (SimpleNamespace(gain=2), SimpleNamespace(gain=3)),
        (Namespace(gain=2), Namespace(gain=3)),
        (Slotted(2), Slotted(3)),
        (deque([2]), deque([3])),
        (nn.ReLU, nn.GELU),
        ("2".zfill, "2".center),
        (Slotted(2).doubled, Slotted(2).halved),
        (Slotted(2).doubled, Slotted(3).doubled),
    ],
    ids=lambda value: type(value).__name__,
)
def test_attributes_of_any_plain_kind_and_functions_change_an_architecture(value: Any, other: Any) -> None:
    assert architecture(Block(kept=value)) == architecture(Block(kept=value)) != architecture(Block(kept=other))


def test_a_buffer_that_no_checkpoint_holds_changes_an_architecture_and_a_saved_one_does_not() -> None:
    def hashed(value: float, persistent: bool) -> str:
        block = Block()
        block.register_buffer("mean", torch.full((3,), value), persistent=persistent)
        return architecture(block)

    assert hashed(0.5, False) != hashed(0.4, False)
    assert hashed(0.5, True) == hashed(0.4, True)


def test_functions_made_alike_differ_by_the_values_that_they_bring_along() -> None:
    def scaled(gain: float) -> Callable[[float], float]:
        return lambda x: gain * x

    assert architecture(Block(act=scaled(2))) == architecture(Block(act=scaled(2)))
    assert architecture(Block(act=scaled(2))) != architecture(Block(act=scaled(3)))


def test_what_a_function_brings_along_counts_however_it_holds_it() -> None:
    def by_key(gain: float) -> Callable[[float], float]:
        def scale(x: float, *, by: float = gain) -> float:
            return by * x

        return scale

    def of_pair(pair: tuple[float, float]) -> Callable[[float], float]:
        return lambda x: pair[0] * x

    def after(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return functools.wraps(function)(lambda x: function(x))

    cases: list[tuple[Callable[[Any], Any], Any, Any]] = [
        (by_key, 2.0, 3.0),
        (of_pair, (2.0, 0.0), (3.0, 0.0)),
        (after, torch.sin, torch.cos),
        (after, lambda x: x + 1, lambda x: x + 2),
    ]
    for make, one, two in cases:
        first, again, other = (architecture(Block(act=make(value))) for value in (one, one, two))
        assert first == again != other
    within = [lambda x: (lambda y: y + 1)(x), lambda x: (lambda y: y + 2)(x)]
    assert len({architecture(Block(act=function)) for function in within}) == 2


def test_what_holds_itself_has_a_hash() -> None:
    def countdown(n: int) -> int:
        return countdown(n - 1) if n else 0

    ring: list[Any] = [1]
    ring.append(ring)
    named: dict[str, Any] = {"one": 1}
    named["all"] = named
    for value in (countdown, ring, named):
        assert architecture(Block(kept=value)) == architecture(Block(kept=value)) != architecture(Block())


def test_sparse_tensors_and_those_without_values_have_a_hash() -> None:
    one, again, other = (architecture(Block(kept=scale * torch.eye(3).to_sparse())) for scale in (1, 1, 2))
    assert one == again != other
    wide, wider = (architecture(Block(kept=torch.empty(n, device="meta"))) for n in (2, 3))
    assert wide != wider
