"""The cost of a bank of probes compared with one probe of torch's own modules, as a Markdown table of ratios.

    OMP_NUM_THREADS=2 PYTHONPATH=. python bench/bank.py [repeats]

Each ratio is one of medians over the repeats. The variants take turns, so that other work on the machine affects all of
them. A step is forward, backward, clipping and AdamW.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from evalkit.heads.bank import Bank, Point
from evalkit.heads.head import HeadShape
from evalkit.heads.optim import StackedAdamW

REPEATS = int(sys.argv[1]) if len(sys.argv) > 1 else 7
DIM, HEADS, CLASSES = 768, 12, 50
BATCH, TOKENS = 16, 1568


class Attentive(nn.Module):
    """LayerNorm, torch.nn.MultiheadAttention with one learned query, a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, DIM) * 0.02)
        self.norm = nn.LayerNorm(DIM)
        self.attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.classify = nn.Linear(DIM, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, C)."""
        normed = self.norm(tokens)
        pooled, _ = self.attention(self.query.expand(len(normed), -1, -1), normed, normed, need_weights=False)
        return self.classify(pooled[:, 0])  # type: ignore[no-any-return]


def medians(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(REPEATS + 1):
        for name, do in work.items():
            started = time.perf_counter()
            do()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def bank_step(points: list[Point], heads: int, features: Tensor, target: Tensor) -> Callable[[], None]:
    """One training step of a bank."""
    bank = Bank(points, HeadShape(DIM, CLASSES, heads))
    optimizer = StackedAdamW(bank, 10_000)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(bank.loss(bank(features), target).sum())
        optimizer.step()

    return step


def plain_step(module: nn.Module, features: Tensor, target: Tensor) -> Callable[[], None]:
    """One training step of a probe of torch's own modules."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(module(features), target))
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    return step


def attentive() -> list[tuple[str, float, str]]:
    """Steps of one and of twenty attentive heads beside one torch.nn.MultiheadAttention head."""
    tokens, target = torch.randn(BATCH, TOKENS, DIM), torch.randint(0, CLASSES, (BATCH,))
    half, module = tokens.half(), Attentive()
    sweep = [Point(lr=10 ** (-4 + i / 5), seed=i) for i in range(20)]
    found = medians(
        {
            "torch": plain_step(module, tokens, target),
            "one": bank_step(sweep[:1], HEADS, tokens, target),
            "half": bank_step(sweep[:1], HEADS, half, target),
            "twenty": bank_step(sweep, HEADS, tokens, target),
        }
    )
    shape = f"batch {BATCH}, {TOKENS} tokens, width {DIM}, {HEADS} attention heads"
    print(f"torch.nn.MultiheadAttention head: {found['torch']:.3f} s a step", file=sys.stderr)
    return [
        (f"one MultiheadAttention head / one head of the bank; {shape}", found["torch"] / found["one"], ">= 20"),
        ("the same, tokens in half precision for the bank", found["torch"] / found["half"], ">= 20"),
        ("20 attentive heads / one MultiheadAttention head", found["twenty"] / found["torch"], "<= 0.5"),
    ]


def linear(batch: int) -> list[tuple[str, float, str]]:
    """Steps of a hundred linear heads beside their two matrix products alone, and beside a hundred separate steps.

    Clipping and AdamW read and write memory whatever the batch is: each weight's gradient once, then gradient, weight
    and two running means, of which three are written. What that takes at the speed of a plain copy is a bound of what
    any such training can reach. A separate fit is what a user would write: a DataLoader over the features, a LayerNorm,
    a Linear; three are timed, and the bank with a DataLoader of its own.
    """
    features, target = torch.randn(batch, DIM), torch.randint(0, CLASSES, (batch,))
    sweep = [Point(lr=10 ** (-4 + i / 25), weight_decay=i / 100) for i in range(100)]
    weight, grad = torch.randn(100 * CLASSES, DIM), torch.randn(batch, 100 * CLASSES)
    old, new = torch.randn(1 << 25), torch.empty(1 << 25)
    rows = TensorDataset(torch.randn(4096, DIM), torch.randint(0, CLASSES, (4096,)))

    def module() -> nn.Module:
        return nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, CLASSES))

    def fit(make: Callable[[Tensor, Tensor], Callable[[], None]]) -> None:
        """One epoch; what makes steps is given room for a batch, which is filled again and again."""
        step = make(room := torch.empty(batch, DIM), wanted := torch.empty(batch, dtype=torch.int64))
        for some, right in DataLoader(rows, batch, shuffle=True):
            room.copy_(some)
            wanted.copy_(right)
            step()

    alone = plain_step(module(), features, target)
    found = medians(
        {
            "bare": lambda: (features @ weight.T, grad.T @ features),
            "bank": bank_step(sweep, 0, features, target),
            "separate": lambda: [alone() for _ in range(100)],
            "copy": lambda: new.copy_(old),
            "fit": lambda: fit(lambda *room: bank_step(sweep, 0, *room)),
            "fits": lambda: [fit(lambda *room: plain_step(module(), *room)) for _ in range(3)],
        }
    )
    bound = 1 + 8 * weight.numel() / (2 * old.numel()) * found["copy"] / found["bare"]
    shape = f"batch {batch}, width {DIM}, {CLASSES} classes"
    return [
        (f"100 linear heads / their matrix products alone; {shape}", found["bank"] / found["bare"], "<= 1.5"),
        ("the least that clipping and AdamW allow at the speed of a copy", bound, ""),
        (
            f"100 separate linear steps / the matrix products of all alone; {shape}",
            found["separate"] / found["bare"],
            "",
        ),
        (f"100 separate linear steps / one of 100 in the bank; {shape}", found["separate"] / found["bank"], ">= 5"),
        (
            "100 whole fits with torch's DataLoader / one of 100 in the bank",
            100 / 3 * found["fits"] / found["fit"],
            ">= 5",
        ),
    ]


def equality(heads: int, layers: int) -> tuple[float, float]:
    """How far final parameters of heads trained together are from those of heads alone, at worst over all tensors.

    The norm of a tensor's difference by the tensor's norm, and its largest entry by the tensor's largest. Adam scales
    every entry's step by that entry's own gradients: where those are little but rounding errors, the step is, too. So
    all that is summed is summed in an order that does not depend on the other heads, as far as the library's matrix
    products keep to that; then nothing differs. A linear head without dropout beside one that has it is computed in
    another way.
    """
    points = [Point(10 ** (-4 + i / 2), i / 10, i / 10, i / 20, seed=i) for i in range(4)]
    draw = torch.Generator().manual_seed(0)
    shape = (128, *([layers] if layers else []), 16, DIM) if heads else (128, DIM)
    target = torch.randint(0, CLASSES, (128,), generator=draw)
    features = torch.randn(shape, generator=draw)

    def train(points: list[Point]) -> Bank:
        bank = Bank(points, HeadShape(DIM, CLASSES, heads, layers=layers))
        optimizer = StackedAdamW(bank, 32)
        for step in range(32):
            rows = slice(32 * (step % 4), 32 * (step % 4) + 32)
            optimizer.zero_grad()
            torch.autograd.backward(bank.loss(bank(features[rows]), target[rows]).sum())
            optimizer.step()
        return bank

    together, by_norm, by_entry = train(points), 0.0, 0.0
    for k, point in enumerate(points):
        alone = train([point]).state(0)
        for name, value in together.state(k).items():
            gap = alone[name] - value
            by_norm = max(by_norm, (gap.norm() / value.norm().clamp(min=1e-12)).item())
            by_entry = max(by_entry, (gap.abs().max() / value.abs().max().clamp(min=1e-12)).item())
    return by_norm, by_entry


def main() -> None:
    """Prints the table."""
    torch.manual_seed(0)
    rows = [*attentive(), *linear(32), *linear(512), *linear(1024)]
    print("| what | measured | wanted |\n|---|---|---|")
    for what, ratio, wanted in rows:
        print(f"| {what} | {ratio:.2f} | {wanted} |")
    for kind, heads, layers in (("linear", 0, 0), ("attentive", HEADS, 0), ("MLAP (2 layers)", HEADS, 2)):
        by_norm, by_entry = equality(heads, layers)
        what = f"4 {kind} heads together and alone, 32 steps: relative difference of final parameters, at worst"
        print(f"| {what} | {by_norm:.1e} in norm, {by_entry:.1e} of one entry | <= 1e-4 |")


if __name__ == "__main__":
    main()
