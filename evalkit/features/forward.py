"""Forward passes of a frozen encoder: uint8 clips to features, in batches that fit into memory."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from evalkit.api import EncoderOutput, FeatureSpec
from evalkit.errors import UserError

HALF_PRECISION = {"bf16": torch.bfloat16, "16": torch.float16}


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

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the encoder runs: autocast for half precision."""
        half = HALF_PRECISION.get(self.precision)
        return torch.autocast(self.device.type, half) if half else nullcontext()

    def encode(self, pixels: Tensor, layers: int | tuple[int, ...] = 1) -> EncoderOutput:
        """The encoder's output, float32 on its device, of uint8 clips (N, T, C, H, W).

        Raises:
            UserError: the encoder takes no `layers=`.
        """
        video = self.module.clip.normalize(pixels.to(self.device, non_blocking=True))
        with self.autocast():
            try:
                encoded: EncoderOutput = self.module(video) if layers == 1 else self.module(video, layers=layers)
            except TypeError as error:
                if layers != 1 and "layers" in str(error):
                    raise UserError(
                        f"the adapter reads the encoder's last {layers} layers, and this encoder takes no layers=: "
                        "see docs/encoders.md, or choose another head"
                    ) from error
                raise
        if self.precision == "32":
            return encoded
        layers_float = tuple(tokens.float() for tokens in encoded.layers)
        frames = None if encoded.frames is None else encoded.frames.float()
        return EncoderOutput(encoded.tokens.float(), encoded.pooled.float(), layers_float, frames)

    def __call__(self, pixels: Tensor, spec: FeatureSpec) -> Tensor:
        """Features (N, ...) on the CPU of uint8 clips (N, T, C, H, W): the part of the output that `spec` names.

        They may hold NaN or infinity.

        Raises:
            UserError: the encoder does not take clips of this shape, or needs more memory than there is.
        """
        features: list[Tensor] = []
        done = 0
        while done < len(pixels):
            part = pixels[done : done + self.batch]
            try:
                with torch.inference_mode():
                    features.append(spec.take(self.encode(part, spec.layers)).cpu())
            except (RuntimeError, ValueError) as error:
                if not _is_out_of_memory(error):
                    if isinstance(error, ValueError):  # a shape that it does not take: clip.frames, clip.size
                        raise UserError(f"the encoder cannot take these clips: {error}") from error
                    raise
                if not self.auto_batch or self.batch == 1:
                    mend = "a smaller clip.frames= or clip.size=" if self.batch == 1 else "batch=auto, or a smaller one"
                    raise UserError(
                        f"the memory does not suffice for {len(part)} clips of {tuple(part.shape[1:])} at once: {mend}"
                    ) from error
                self.batch //= 2
            else:
                done += len(part)
        return torch.cat(features)  # a copy: an inference tensor could not be trained on


def _is_out_of_memory(error: Exception) -> bool:
    # A CPU and Metal raise plain RuntimeErrors.
    messages = ("can't allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(message in str(error) for message in messages)
