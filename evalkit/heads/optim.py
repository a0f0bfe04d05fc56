"""AdamW with a linear warm-up and a cosine schedule, for one module or for a bank of probes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from evalkit.heads.adapter import Adapter, Training
from evalkit.heads.bank import Bank

MAX_NORM = 1.0  # of one head's gradient, as the trainer clips that of other adapters


class Trained(Adapter):
    """An adapter that `adamw` trains, with the rate, decay, epochs and batch size of its settings."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.lr, self.weight_decay = training.lr, training.weight_decay
        self.epochs, self.batch_size = training.epochs, training.batch_size

    def configure_optimizers(self) -> Any:
        return adamw(self, self.lr, self.weight_decay, int(self.trainer.estimated_stepping_batches))


def adamw(
    module: nn.Module,
    lr: float,
    weight_decay: float,
    steps: int,
    warmup: float = 0.05,
    lr_of_parts: Mapping[nn.Module, float] = MappingProxyType({}),
) -> dict[str, Any]:
    """AdamW over the trainable parameters: cosine to zero after a linear warm-up, no decay of biases and norms.

    Args:
        module: whose parameters are trained.
        lr: peak learning rate.
        weight_decay: of the matrices.
        steps: in all.
        warmup: share of the steps.
        lr_of_parts: peak learning rate of parts of the module that have one of their own.
    """
    own = {parameter: rate for part, rate in lr_of_parts.items() for parameter in part.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((own.get(parameter, lr), decay), []).append(parameter)
    optimizer: Optimizer = AdamW(
        [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
    )
    return {
        "optimizer": optimizer,
        "lr_scheduler": {
            "scheduler": LambdaLR(optimizer, lambda step: warmup_cosine(step, steps, warmup)),
            "interval": "step",
        },
    }


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak learning rate at a step, from 0: linear over the share `warmup`, then a cosine to zero."""
    first = max(1, round(warmup * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - first) / max(1, steps - first))))


# torch has no public fused step per head: `_fused_adamw_` and `_foreach_norm` are private. Tested with torch 2.13.0;
# tests/heads/test_bank.py compares every step with torch.optim.AdamW, and fails where a release changes them.
class StackedAdamW(Optimizer):
    """AdamW of a bank of probes: each head has its own learning rate, weight decay, schedule and gradient norm.

    As `adamw` with torch.nn.utils.clip_grad_norm_ does for one probe: a cosine to zero after a linear warm-up, no
    decay of biases and norms. Call `backward` on the sum of the losses before `step`.

    Args:
        bank: on its device.
        steps: in all; one number for every head, or one per head: a head that has done its own stays as it is.
        warmup: share of the steps.

    Attributes:
        diverged: (K,) the first step, from 1, at which a head's gradient was not finite; 0 where there was none.
    """

    def __init__(self, bank: Bank, steps: int | Sequence[int], warmup: float = 0.05) -> None:
        trained = [p for p in bank.parameters() if p.requires_grad]
        decayed = [p for p in trained if p[0].ndim > 1]
        others = [p for p in trained if p[0].ndim <= 1]
        super().__init__([{"params": decayed, "decay": True}, {"params": others, "decay": False}], {})
        self.points, self.warmup = bank.points, warmup
        self.total = [steps] * len(bank.points) if isinstance(steps, int) else list(steps)
        self.done, self.count = 0, torch.zeros((), device=trained[0].device)  # steps; the kernel wants a tensor
        self.diverged = torch.zeros(len(bank.points), dtype=torch.int64, device=trained[0].device)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every head once; returns the closure's loss, if there is a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        factors = {total: warmup_cosine(self.done, total, self.warmup) for total in set(self.total)}
        self.done += 1
        self.count += 1
        grads = [[p.grad.unbind() for p in group["params"]] for group in self.param_groups]
        # Each head's by itself, so that the order of summation, and with it the last bit, is that of the head alone.
        norms = torch._foreach_norm([grad for stacks in grads for stack in stacks for grad in stack])
        norm = sum(torch.stack(norms).square().view(-1, len(self.points)).unbind()).sqrt()  # type: ignore[union-attr]
        self.diverged.masked_fill_((self.diverged == 0) & ~norm.isfinite(), self.done)
        divisors = ((norm + 1e-6) / MAX_NORM).clamp(min=1).float().unbind()  # the kernel wants no other dtype
        for group, stacks in zip(self.param_groups, grads, strict=True):
            # Head by head: the fused kernel takes one learning rate, but reads and writes memory once, where
            # element-wise operations over the stack do so nine times.
            heads = zip(
                self.points, self.total, divisors, self._of_heads(group), zip(*stacks, strict=True), strict=True
            )
            for point, total, divisor, (weights, means, squares), gradient in heads:
                if factor := factors[total]:
                    torch._fused_adamw_(
                        weights,
                        gradient,
                        means,
                        squares,
                        [],
                        [self.count] * len(weights),
                        lr=point.lr * factor,
                        beta1=0.9,
                        beta2=0.999,
                        weight_decay=point.weight_decay if group["decay"] else 0.0,
                        eps=1e-8,
                        amsgrad=False,
                        maximize=False,
                        grad_scale=divisor,
                    )
        return loss

    def _of_heads(self, group: dict[str, Any]) -> list[Sequence[tuple[Tensor, ...]]]:
        """Views of each head's weights and of the running means of their gradients and squares, cached in the group."""
        if "heads" not in group:
            stacks = [group["params"], *([torch.zeros_like(p) for p in group["params"]] for _ in range(2))]
            kinds = [list(zip(*(p.detach().unbind() for p in stack), strict=True)) for stack in stacks]
            group["heads"] = list(zip(*kinds, strict=True))
        return group["heads"]  # type: ignore[no-any-return]
