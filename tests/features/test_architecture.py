"""What of a module is in the key of its features, beside its weights."""

import functools
import importlib
import logging
import os
import subprocess
import sys
import threading
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


class Plain:
    """An object of the user's own class, which may refer to others, and they to it."""

    def __init__(self, gain: float, *others: Any) -> None:
        self.gain, self.others, self.names = gain, others, {"left", "right", "middle"}

    def scaled(self, value: float) -> float:
        return self.gain * value


class PlainSlots:
    __slots__ = ("__gain", "unset")

    def __init__(self, gain: float) -> None:
        self.__gain = gain


class Derived(PlainSlots):
    def __init__(self, gain: float, scale: float) -> None:
        super().__init__(gain)
        self.scale = scale


@dataclass
class Up:
    gain: float

    def __call__(self, value: float) -> float:
        return value * self.gain


@dataclass
class Down(Up):
    def __call__(self, value: float) -> float:
        return value / self.gain


class Gains(list[float]):
    scale = 1.0


def gains(scale: float) -> Gains:
    made = Gains([2.0])
    made.scale = scale
    return made


def linear(weight: float) -> nn.Module:
    module = nn.Linear(2, 2, bias=False)
    nn.init.constant_(module.weight, weight)
    return nn.Sequential(module)


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
        (Plain(2), Plain(3)),
        (Plain(2).scaled, Plain(3).scaled),
        (Plain(2), Derived(2, 1)),
        (PlainSlots(2), PlainSlots(3)),
        (Derived(2, 1), Derived(3, 1)),
        (Derived(2, 1), Derived(2, 2)),
        (Plain(1, {"inner": [Plain(2)]}), Plain(1, {"inner": [Plain(3)]})),
        (Plain(1, torch.zeros(3)), Plain(1, torch.ones(3))),
        (Up(2), Down(2)),
        (Gains([2.0]), Gains([3.0])),
        (Gains([2.0]), [2.0]),
        (gains(2), gains(3)),
        ({Up(2).__call__: 1}, {Down(2).__call__: 1}),
        ([nn.LayerNorm(4), Block(heads=2)], [nn.LayerNorm(4), Block(heads=4)]),  # a list, which registers no module
        ([nn.LayerNorm(4)], [nn.LayerNorm(4, eps=1e-3)]),
        ([linear(1)], [linear(2)]),
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


def ring(size: int, last: float) -> list[Plain]:
    """Objects that all refer to one another: there are more ways through them than could be walked."""
    objects = [Plain(1.0) for _ in range(size - 1)] + [Plain(last)]
    for each in objects:
        each.others = tuple(objects)
    return objects


def test_objects_that_refer_to_one_another_are_looked_into_once() -> None:
    one, again, other = (architecture(Block(kept=ring(40, last))) for last in (2.0, 2.0, 3.0))
    assert one == again != other
    chain: list[Any] = []
    for _ in range(5_000):
        chain = [Plain(1.0, chain)]
    assert architecture(Block(kept=chain)) != architecture(Block())


def test_what_holds_neither_numbers_nor_code_of_the_users_does_not_change_an_architecture(tmp_path: Path) -> None:
    logger = logging.Logger(str(tmp_path))
    logger.addHandler(logging.StreamHandler())
    for value, other in ((tmp_path, Path("elsewhere")), (logger, logging.Logger("b")), (object(), threading.Lock())):
        assert architecture(Block(kept=value)) == architecture(Block(kept=other)) == architecture(Block())


def of_own_objects() -> Block:
    by_object = {Plain(2): 1, nn.functional.relu: 2, Up: 3}
    return Block(kept=[Plain(2, Derived(2, 1), ring(3, 2.0)), Plain(3).scaled, gains(2), by_object])


def test_an_own_object_has_the_same_hash_in_another_process() -> None:
    code = "from tests.features.test_architecture import *\nprint(architecture(of_own_objects()))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == architecture(of_own_objects())


def test_the_code_of_an_own_object_counts_wherever_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    for place, code in (("a", "return 2 * x"), ("b", "return 3 * x"), ("c", "return 2 * x")):
        (tmp_path / place).mkdir()
        file = tmp_path / place / "own_scale.py"
        file.write_text(f"class Scale:\n    def __call__(self, x):\n        {code}\n")
        monkeypatch.syspath_prepend(file.parent)
        monkeypatch.delitem(sys.modules, "own_scale", raising=False)
        hashed.append(architecture(Block(kept=importlib.import_module("own_scale").Scale())))
    assert hashed[0] == hashed[2] != hashed[1]


def test_what_holds_itself_has_a_hash() -> None:
    def countdown(n: int) -> int:
        return countdown(n - 1) if n else 0

    endless: list[Any] = [1]
    endless.append(endless)
    named: dict[str, Any] = {"one": 1}
    named["all"] = named
    for value in (countdown, endless, named):
        assert architecture(Block(kept=value)) == architecture(Block(kept=value)) != architecture(Block())


def test_sparse_tensors_and_those_without_values_have_a_hash() -> None:
    one, again, other = (architecture(Block(kept=scale * torch.eye(3).to_sparse())) for scale in (1, 1, 2))
    assert one == again != other
    wide, wider = (architecture(Block(kept=torch.empty(n, device="meta"))) for n in (2, 3))
    assert wide != wider
