"""Checks of the encoder's output: layout, finite values, determinism, independence of the batch, layers."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from evalkit.api import EncoderOutput, pooled_dim
from evalkit.canary.examined import ExaminedEncoder, Unusable, distance
from evalkit.canary.finding import Finding
from evalkit.errors import UserError, counted, one_line


def layout(probe: ExaminedEncoder) -> Finding:
    """Types and shapes of tokens and pooled.

    Raises:
        Unusable: the encoder fails on a batch of clips, or its output has another layout.
    """
    try:
        encoded = probe.both
    except Exception as error:
        raise Unusable(Finding("layout", "failed", _input_error(probe, error))) from error
    if deviation := _layout_error(probe, encoded):
        raise Unusable(Finding("layout", "failed", deviation))
    tokens, pooled = tuple(encoded.tokens.shape), tuple(encoded.pooled.shape)
    return Finding("layout", "ok", f"tokens {tokens} (B, T', S, D), pooled {pooled} (B, E)")


def _input_error(probe: ExaminedEncoder, error: Exception) -> str:
    """Why the encoder failed on (B, T, C, H, W): it may expect (B, C, T, H, W), or clips of its own shape alone."""
    video, clip = probe.clip.normalize(probe.clips), probe.clip
    try:
        probe.encoder(video.transpose(1, 2))
    except Exception:
        frames, size = video.shape[1], video.shape[-1]
        shown = f"the run's clips have {counted(frames, 'frame')} of {size} pixels"
        own = f"; {shown}; clip.frames={clip.frames} clip.size={clip.size} is the encoder's own"
        advice = own if (frames, size) != (clip.frames, clip.size) else ""
        return f"the encoder fails on {tuple(video.shape)} (B, T, C, H, W): {one_line(error, 200)}{advice}"
    return (
        f"the encoder takes (B, C, T, H, W), and fails on (B, T, C, H, W): T and C are swapped. Let its forward "
        f"begin with video.transpose(1, 2) ({one_line(error, 200)})"
    )


def _layout_error(probe: ExaminedEncoder, encoded: Any) -> str:
    """The first deviation of an output from the layout that the encoder states; empty if there is none."""
    tokens, pooled = getattr(encoded, "tokens", None), getattr(encoded, "pooled", None)
    if not isinstance(tokens, Tensor) or not isinstance(pooled, Tensor):
        return f"the encoder returns a {type(encoded).__name__}; wanted evalkit.api.EncoderOutput(tokens, pooled)"
    if not tokens.is_floating_point() or not pooled.is_floating_point():
        return f"tokens are {tokens.dtype} and pooled {pooled.dtype}; wanted floats"
    batch, frames = probe.clips.shape[:2]
    dim, width = probe.encoder.dim, pooled_dim(probe.encoder)
    if tokens.ndim != 4 or tokens.shape[0] != batch or tokens.shape[3] != dim:
        return f"tokens are {tuple(tokens.shape)}; wanted (B, T', S, D) with B = {batch}, D = dim = {dim}"
    if pooled.shape != (batch, width):
        return f"pooled is {tuple(pooled.shape)}; wanted (B, E) with B = {batch}, E = pooled_dim or dim = {width}"
    if tokens.shape[1] > frames:
        return f"tokens are {tuple(tokens.shape)}; wanted (B, T', S, D) with no more steps T' than the {frames} frames"
    return ""


def finite(probe: ExaminedEncoder) -> Finding:
    """No NaN and no infinity in tokens and pooled.

    Raises:
        Unusable: there are some.
    """
    outputs = (probe.both.tokens, probe.both.pooled)
    bad = sum(int((~torch.isfinite(values)).sum()) for values in outputs)
    if bad:
        share = bad / sum(values.numel() for values in outputs)
        detail = f"{share:.1%} of the output is NaN or infinity: damaged weights, or too large for half floats"
        raise Unusable(Finding("finite", "failed", detail))
    return Finding("finite", "ok", "no NaN, no infinity")


def determinism(probe: ExaminedEncoder) -> Finding:
    """The same clip gives the same output twice.

    Raises:
        Unusable: the encoder fails on a batch of one.
    """
    try:
        repeat = probe.repeat_distance
    except Exception as error:
        detail = f"the encoder fails on a batch of one: {one_line(error, 200)}"
        raise Unusable(Finding("batch", "failed", detail)) from error
    detail = f"the same clip twice differs by {repeat:.1g} of its norm, allowed {probe.tolerance:g}"
    if repeat > probe.tolerance:
        why = "something is drawn at random (dropout, masking); switch it off"
        return Finding("determinism", "failed", f"{detail}: {why}")
    return Finding("determinism", "ok", detail)


def batch(probe: ExaminedEncoder) -> Finding:
    """A clip gives the same output alone and in a batch."""
    if probe.repeat_distance > probe.tolerance:
        return Finding("batch", "unknown", "not measured: not even the same clip gives the same embedding")
    detail = (
        f"alone and in a batch a clip differs by {probe.batch_distance:.1g} of its norm, allowed {probe.tolerance:g}"
    )
    if probe.batch_distance > probe.tolerance:
        why = "clips in a batch change each other (batch statistics, a wrong reshape)"
        return Finding("batch", "failed", f"{detail}: {why}")
    return Finding("batch", "ok", detail)


def layers(probe: ExaminedEncoder) -> Finding | None:
    """`layers=2` gives two layers of tokens, the last of them the tokens; None if the encoder takes no `layers`."""
    if "layers" not in inspect.signature(probe.encoder.forward).parameters:
        return None
    if late := probe.out_of_time("layers"):
        return late
    try:
        encoded: EncoderOutput = probe.encoder(probe.clip.normalize(probe.clips[:1]), layers=2)
        shapes = [tuple(tokens.shape) for tokens in encoded.layers]
    except UserError as error:  # it has one layer
        return Finding("layers", "unknown", f"layers=2 is refused: {error}")
    except Exception as error:
        return Finding("layers", "failed", f"the encoder fails on layers=2: {one_line(error, 200)}")
    expected = probe.alone.tokens
    if shapes != [tuple(expected.shape)] * 2:
        detail = f"layers=2 gives {shapes}; wanted two of {tuple(expected.shape)}"
    elif (apart := distance(encoded.layers[-1], encoded.tokens)) > probe.tolerance:
        detail = f"the last of layers differs from tokens by {apart:.1g} of its norm; it must be the same"
    elif (apart := distance(encoded.tokens, expected)) > probe.tolerance:
        detail = f"tokens differ by {apart:.1g} of their norm when layers=2 is asked for"
    else:
        return Finding("layers", "ok", "layers=2 gives two, the last of them tokens")
    return Finding("layers", "failed", detail)
