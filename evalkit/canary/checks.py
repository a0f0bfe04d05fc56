"""Examination of an encoder by a few clips: are its input and its output as evalkit expects them?

What an encoder was trained on cannot be read off its weights. A reference record says it: one film as uint8 pixels and
its embedding where the encoder was trained. Comparing with it shows every mismatch: layout, range, mean and std, order
of channels, training mode, altered weights. Without a record, what can be measured is measured, and the rest is
reported as unknown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from evalkit.canary import inputs, outputs
from evalkit.canary.examined import ExaminedEncoder, Unusable
from evalkit.canary.finding import Finding
from evalkit.canary.reference import device_of


def training_mode(probe: ExaminedEncoder) -> Finding:
    """No module is in training mode."""
    names = [name or type(module).__name__ for name, module in probe.encoder.named_modules() if module.training]
    if names:
        detail = f"{len(names)} modules are in training mode, {names[0]} first: call eval() on the encoder"
        return Finding("training mode", "failed", detail)
    return Finding("training mode", "ok", "every module is in evaluation mode")


def weights(probe: ExaminedEncoder) -> Finding:
    """The weights look trained, all of them."""
    return probe.weight_stats.finding()


# In this order; a check that does not apply gives None, and one that raises Unusable is the last.
CHECKS: tuple[Callable[[ExaminedEncoder], Finding | None], ...] = (
    training_mode,
    weights,
    outputs.layout,
    outputs.finite,
    outputs.determinism,
    outputs.batch,
    inputs.reference,
    inputs.constant,
    inputs.frame_order,
    inputs.value_range,
    inputs.colors,
    inputs.normalization,
    outputs.layers,
)


def examine(encoder: nn.Module, clips: Tensor, *, folder: Path | None = None, budget_s: float = 20.0) -> list[Finding]:
    """Runs all checks on an encoder; any exception becomes a finding.

    Four clips are encoded in any case, and while time is left at most eight more, or where a record disagrees as many
    as there are common mistakes. The encoder is used in the mode that it is in, on its own device; its mode, its
    buffers and torch's random state are restored.

    Args:
        encoder: with `clip` and `dim`.
        clips: of the task, uint8 RGB (N, T, C, H, W), N at least 2; the first two are used.
        folder: of the checkpoint, where a reference record may lie.
        budget_s: seconds after which only those four clips are encoded; checks that need more are then unknown.
    """
    device = device_of(encoder)
    findings: list[Finding] = []
    with _state_restored(encoder, device), torch.inference_mode():
        probe = ExaminedEncoder(encoder, clips[:2].to(device), folder, time.monotonic() + budget_s)
        for check in CHECKS:
            try:
                finding = check(probe)
            except Unusable as error:
                findings.append(error.finding)
                break
            if finding:
                findings.append(finding)
    return findings


@contextmanager
def _state_restored(encoder: nn.Module, device: torch.device) -> Iterator[None]:
    """Seed torch, and afterwards restore the encoder's modes and buffers and the random state."""
    modes = [(module, module.training) for module in encoder.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in encoder.buffers()]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, mode in modes:
            module.training = mode
