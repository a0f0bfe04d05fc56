"""The canary at work: before a run encodes anything, and alone as `evalkit canary`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from evalkit import encoders
from evalkit.api import Example, Task
from evalkit.canary import checks, reference
from evalkit.canary.finding import Finding
from evalkit.config.config import Config
from evalkit.errors import UserError
from evalkit.features import extract
from evalkit.features.extract import FeatureExtractor
from evalkit.features.forward import EncoderRunner

logger = logging.getLogger("evalkit")

# Clips that the canary looks at, and videos that may fail to decode before drawn films stand in.
CLIPS, TRIES = 2, 8
DRAWN = (2, 3)  # the canary draws films 0 and 1 itself


def check(config: Config, forward: EncoderRunner, extractor: FeatureExtractor, task: Task) -> list[Finding]:
    """What the canary found with clips of the task; warnings are told on stderr.

    Raises:
        UserError: the encoder is not fed, or does not answer, as its clip says; all reasons in one line.
    """
    findings = examine_clips(config, forward, sample_clips(extractor, task))
    if failed := [f"{one.check}: {one.detail}" for one in findings if one.outcome == "failed"]:
        raise UserError(f"the canary stops this run: {'; '.join(failed)} (canary=false goes on all the same)")
    for one in findings:
        if one.outcome == "warning":
            logger.warning(f"canary: {one.check}: {one.detail}")
    return findings


def examine_clips(config: Config, forward: EncoderRunner, clips: Tensor) -> list[Finding]:
    """The canary's findings on uint8 clips (N, T, C, H, W), at the run's own precision."""
    with forward.autocast():
        return checks.examine(forward.module, clips, folder=encoders.folder_of(config.options.ckpt))


def sample_clips(extractor: FeatureExtractor, task: Task) -> Tensor:
    """The first clips of the task that decode, uint8 (2, T, C, H, W), of the split that is nearest to training."""
    examples: Sequence[Example] = next((split for split in (task.train, task.val, task.test) if split), ())
    wanted = extract.sources(examples)[:TRIES]
    if task.prepare_videos:
        task.prepare_videos([one for one in examples if extract.Source(one.video, one.span) in wanted])
    found = extractor.sample(wanted, CLIPS)
    assert extractor.views.frames and extractor.views.size  # resolve() filled them in
    for index in DRAWN[len(found) :]:
        found.append(reference.film(extractor.views.frames, extractor.views.size, index))
    return torch.stack(found)
