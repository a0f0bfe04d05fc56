"""The encoder under examination, and what it gives for a few clips, each computed once."""

from __future__ import annotations

import math
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evalkit.api import Clip, EncoderOutput
from evalkit.canary.finding import Finding
from evalkit.canary.reference import Reference, film, find_reference
from evalkit.canary.weights import WeightStats, weight_statistics
from evalkit.errors import one_line

# Relative to an embedding's norm. Other machines, batch sizes and kernels differ by 1e-6 in float32 and 0.004 in half;
# the smallest input mismatch, CLIP's mean and std for ImageNet's, by 0.08 (demo encoder).
SAME_FLOAT, SAME_HALF = 1e-3, 0.02


class Unusable(Exception):
    """The encoder's output cannot be examined further; `finding` says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.detail)
        self.finding = finding


class ExaminedEncoder:
    """An encoder, two clips of the task, the deadline, and outputs that several checks share.

    Attributes:
        encoder: with `clip` and `dim`; it lies where the clips do.
        clip: what the encoder sees.
        clips: uint8 RGB (2, T, C, H, W).
        folder: of the checkpoint, or None.
        deadline: in seconds of `time.monotonic`.
        clip_s: seconds that encoding one clip takes; 0 until `both` has been computed.
        tolerance: distance relative to the norm up to which two outputs count as the same.
    """

    def __init__(self, encoder: Any, clips: Tensor, folder: Path | None, deadline: float) -> None:
        self.encoder = encoder
        self.clip: Clip = encoder.clip
        self.clips, self.folder, self.deadline = clips, folder, deadline
        self.clip_s = 0.0
        half = any(p.dtype in (torch.float16, torch.bfloat16) for p in encoder.parameters())
        self.tolerance = SAME_HALF if half or torch.is_autocast_enabled(clips.device.type) else SAME_FLOAT

    @cached_property
    def weight_stats(self) -> WeightStats:
        """Traces of training in the weights."""
        return weight_statistics(self.encoder)

    @cached_property
    def both(self) -> EncoderOutput:
        """The output for both clips, whatever it is. Raises what the encoder raises."""
        video = self.clip.normalize(self.clips)
        started = time.monotonic()
        encoded: EncoderOutput = self.encoder(video)
        self.clip_s = (time.monotonic() - started) / len(video)
        return encoded

    @cached_property
    def alone(self) -> EncoderOutput:
        """The output for the first clip in a batch of one. Raises what the encoder raises."""
        encoded: EncoderOutput = self.encoder(self.clip.normalize(self.clips[:1]))
        return encoded

    @cached_property
    def batch_distance(self) -> float:
        """Distance between the first clip's outputs alone and in a batch of two."""
        return output_distance(self.alone, EncoderOutput(self.both.tokens[:1], self.both.pooled[:1]))

    @cached_property
    def repeat_distance(self) -> float:
        """Distance between the first clip's outputs in two passes.

        The clip is encoded again only if alone and in a batch it differs too much, which may be due to the batch or to
        chance.
        """
        if self.batch_distance <= self.tolerance:
            return self.batch_distance
        again = self.encoder(self.clip.normalize(self.clips[:1]))
        return output_distance(self.alone, again)

    @cached_property
    def record(self) -> Reference | Finding | None:
        """The reference record; a finding if it cannot be read, None if there is none."""
        return find_reference(self.encoder, self.folder)

    @property
    def value_range_place(self) -> str:
        """Where the range of the input is set: in the files of the checkpoint's folder, or in the encoder's code."""
        for name, key in (("preprocessor_config.json", "rescale_factor"), ("config.json", "value_range")):
            if self.folder and (self.folder / name).is_file() and key in (self.folder / name).read_text("utf-8"):
                return f"{key} in {self.folder / name}"
        return "value_range of Clip(...) in the encoder's code"

    @property
    def reference(self) -> Reference | None:
        """The reference record, if there is one that can be read."""
        return self.record if isinstance(self.record, Reference) else None

    @cached_property
    def film_pooled(self) -> Tensor:
        """Pooled (1, E), float32, of the record's film, or of a drawn one.

        Raises:
            Unusable: the encoder fails on it.
        """
        drawn = film(self.clips.shape[1], self.clips.shape[-1], 1)
        video = self.reference.video if self.reference else drawn
        return self.pooled(self.clip.normalize(video[None].to(self.clips.device)), "film")

    @cached_property
    def unlike(self) -> Tensor:
        """Pooled of unlike clips, float32 (2 or 3, E): the task's two, and the film if its embedding is as wide."""
        pooled = self.both.pooled.float()
        same_width = self.film_pooled.shape[1:] == pooled.shape[1:]
        return torch.cat([pooled, self.film_pooled]) if same_width else pooled

    @cached_property
    def spread(self) -> float:
        """The largest distance between unlike clips."""
        return float(torch.cdist(self.unlike, self.unlike).max())

    def pooled(self, video: Tensor, check: str) -> Tensor:
        """Pooled (B, E), float32, of a normalized video of a shape that the encoder took before.

        Args:
            video: float (B, T, C, H, W).
            check: that needs it; the name of the finding if there is no output.

        Raises:
            Unusable: the encoder fails on it, or gives NaN or infinity.
        """
        try:
            pooled: Tensor = self.encoder(video).pooled.float()
        except Exception as error:
            detail = f"the encoder fails on {tuple(video.shape)}: {one_line(error, 200)}"
            raise Unusable(Finding(check, "failed", detail)) from error
        if not torch.isfinite(pooled).all():
            detail = f"pooled of {tuple(video.shape)} is NaN or infinity; of other clips it is not"
            raise Unusable(Finding(check, "failed", detail))
        return pooled

    def out_of_time(self, check: str, clips: int = 1) -> Finding | None:
        """A finding that the check was not made, if that many more clips do not fit into the time."""
        if time.monotonic() + clips * self.clip_s <= self.deadline:
            return None
        return Finding(check, "unknown", f"not measured: out of time, one clip takes {self.clip_s:.1f} s")


def distance(a: Tensor, b: Tensor) -> float:
    """Distance between two tensors relative to the second's norm; infinity if their shapes differ."""
    if a.shape != b.shape:
        return math.inf
    return float((a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-30))


def output_distance(a: EncoderOutput, b: EncoderOutput) -> float:
    """The larger of the distances between two outputs' tokens and between their pooled vectors."""
    return max(distance(a.tokens, b.tokens), distance(a.pooled, b.pooled))
