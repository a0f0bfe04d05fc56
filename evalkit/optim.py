"""The optimiser and schedule that the papers' probes use."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR


def adamw(module: nn.Module, lr: float, weight_decay: float, steps: int, warmup: float = 0.05) -> dict[str, Any]:
    """AdamW over what is trainable, a cosine to zero after a linear warm-up; no decay of biases and norms.

    Args:
        module: whose parameters are trained.
        lr: peak learning rate.
        weight_decay: of the matrices.
        steps: in all.
        warmup: share of the steps.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trainable if p.ndim > 1]
    vectors = [p for p in trainable if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer: Optimizer = AdamW(groups, lr=lr)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {
            "scheduler": LambdaLR(optimizer, lambda step: cosine(step, steps, warmup)),
            "interval": "step",
        },
    }


def cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak learning rate at a step, from 0: a linear rise over a share of the steps, a cosine to zero."""
    first = max(1, round(warmup * steps))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - first) / max(1, steps - first))))
