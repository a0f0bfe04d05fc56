"""Forward passes of a frozen encoder: uint8 clips to features, in batches that fit into memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from evalkit.api import EncoderOutput, FeatureSpec
from evalkit.errors import UserError, counted, one_line

HALF_PRECISION = {"bf16": torch.bfloat16, "16": torch.float16}


class Arriving:
    """Features (N, ...) on their way from a GPU to the CPU, or there.

    Args:
        features: on any device.
        clips: what they are computed of, which stays in memory until they are.
    """

    def __init__(self, features: Tensor, clips: Sequence[Tensor]) -> None:
        self.later = features.is_cuda
        self._clips = clips
        finite = torch.isfinite(features).flatten(1).all(1) if features.is_floating_point() else None
        self._features, self._finite = _to_cpu(features), None if finite is None else _to_cpu(finite)
        if self.later:
            self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrival.record()

    def split(self, sizes: Sequence[int]) -> Iterator[tuple[Tensor, bool]]:
        """Successive rows, so many at a time, on the CPU, and whether all of them are finite; waits for them."""
        if self.later:
            self._arrival.synchronize()
        rows = torch.split(self._features, list(sizes))
        finite = itertools.repeat(True) if self._finite is None else map(_all, torch.split(self._finite, list(sizes)))
        del self._clips, self._features, self._finite
        return zip(rows, finite, strict=False)


def _all(good: Tensor) -> bool:
    return bool(good.all())


def _to_cpu(tensor: Tensor) -> Tensor:
    """The tensor in page-locked memory, once the GPU has come so far; one that is on the CPU is given back."""
    if not tensor.is_cuda:
        return tensor.cpu()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


@dataclass
class EncoderRunner:
    """A frozen encoder on its device.

    Attributes:
        module: the encoder.
        sha256: of its weights.
        device: of its parameters.
        batch: clips in one forward pass; halved when memory runs out, if `auto_batch`.
        auto_batch: allow halving the batch. A clip's features depend on its batch by rounding alone; the canary
            measures by how much.
        precision: of the arithmetic: 32, or bf16 or 16 under autocast.
    """

    module: Any
    sha256: str
    device: torch.device
    batch: int
    auto_batch: bool
    precision: Literal["32", "bf16", "16"] = "32"
    _stream: torch.cuda.Stream | None = None  # on which clips are copied to a GPU

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the encoder runs: autocast for half precision."""
        half = HALF_PRECISION.get(self.precision)
        return torch.autocast(self.device.type, half) if half else nullcontext()

    def gather(self, parts: list[Tensor]) -> Tensor:
        """One batch, uint8 (N, T, C, H, W), of the clips of several examples.

        It is on a GPU where the encoder is, copied there from page-locked memory while the batch before is computed;
        the clips must stay as they are until this one is computed.
        """
        if self.device.type != "cuda":
            return torch.cat(parts)
        with torch.cuda.device(self.device):
            computing, copying = torch.cuda.current_stream(), self._copying()
            shape = (sum(map(len, parts)), *parts[0].shape[1:])
            try:
                with torch.cuda.stream(copying):
                    pixels = torch.empty(shape, dtype=torch.uint8, device=self.device)
                    start = 0
                    for part in parts:
                        pixels[start : start + len(part)].copy_(part, non_blocking=True)
                        start += len(part)
            except torch.OutOfMemoryError:  # it is moved in smaller batches
                return torch.cat(parts)
            computing.wait_stream(copying)
            pixels.record_stream(computing)
        return pixels

    def _copying(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        return self._stream

    def encode(self, pixels: Tensor, layers: int | tuple[int, ...] = 1) -> EncoderOutput:
        """The encoder's output, float32 on its device, of uint8 clips (N, T, C, H, W).

        Raises:
            UserError: the encoder takes no `layers=`, or fails on clips of this shape.
            RuntimeError: the memory does not suffice.
        """
        video = self.module.clip.normalize(pixels.to(self.device, non_blocking=True))
        with self.autocast():
            try:
                encoded: EncoderOutput = self.module(video) if layers == 1 else self.module(video, layers=layers)
            except UserError:
                raise
            except Exception as error:
                if _is_out_of_memory(error):
                    raise
                if isinstance(error, TypeError) and layers != 1 and "layers" in str(error):
                    raise UserError(
                        f"the adapter reads the encoder's last {layers} layers, and this encoder takes no layers=: "
                        "see docs/encoders.md, or choose another head"
                    ) from error
                raise UserError(
                    f"the encoder failed on clips of shape {tuple(video.shape)} (B, T, C, H, W): {one_line(error)}"
                ) from error
        if self.precision == "32":
            return encoded
        layers_float = tuple(tokens.float() for tokens in encoded.layers)
        frames = None if encoded.frames is None else encoded.frames.float()
        sequence = None if encoded.sequence is None else encoded.sequence.float()
        return EncoderOutput(encoded.tokens.float(), encoded.pooled.float(), layers_float, frames, sequence)

    def __call__(self, pixels: Tensor, spec: FeatureSpec) -> Tensor:
        """Features (N, ...) of uint8 clips (N, T, C, H, W): the part of the output that `spec` names.

        They may hold NaN or infinity. They are on the device, where a GPU may still be at work on them.

        Raises:
            UserError: the encoder fails on clips of this shape, or needs more memory than there is.
        """
        features: list[Tensor] = []
        done = 0
        while done < len(pixels):
            passes = math.ceil((len(pixels) - done) / self.batch)
            part = pixels[done : done + math.ceil((len(pixels) - done) / passes)]  # none is short
            try:
                with torch.inference_mode():
                    features.append(spec.take(self.encode(part, spec.layers)))
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                if not self.auto_batch or self.batch == 1:
                    mend = "a smaller clip.frames= or clip.size=" if self.batch == 1 else "batch=auto, or a smaller one"
                    raise UserError(
                        f"the memory does not suffice for {counted(len(part), 'clip')} of {tuple(part.shape[1:])} "
                        f"at once: {mend}"
                    ) from error
                self.batch //= 2
            else:
                done += len(part)
        # An inference tensor could not be trained on: `cat` and `clone` give another one.
        return features[0].clone() if len(features) == 1 else torch.cat(features)


def _is_out_of_memory(error: Exception) -> bool:
    # A CPU and Metal raise plain RuntimeErrors.
    messages = ("can't allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(message in str(error) for message in messages)
