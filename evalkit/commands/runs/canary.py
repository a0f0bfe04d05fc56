"""`evalkit canary`: checks that an encoder gets the input it was trained on."""

from __future__ import annotations

import torch

from evalkit import encoders
from evalkit.api import Views
from evalkit.canary import reference
from evalkit.config.config import Config
from evalkit.errors import UserError
from evalkit.features.exchange.module import FeatureFiles
from evalkit.features.sources import resolve_views
from evalkit.pipeline import setup, task_data
from evalkit.pipeline.preflight import DRAWN, examine_clips, sample_clips


def main(config: Config) -> int:
    """1 where a check failed, else 0."""
    return 0 if canary(config) else 1


def canary(config: Config) -> bool:
    """Prints what the canary found, with clips of the task where one is given, else with drawn films.

    Returns:
        Whether nothing failed.

    Raises:
        UserError: there is no such encoder or task.
    """
    forward = setup.load_runner(config)
    if isinstance(forward.module, FeatureFiles):
        raise UserError(f"{forward.module} holds {forward.module.holds}: there is nothing to feed")
    if config.options.task:
        task = task_data.load_task(config)
        clips = sample_clips(setup.make_extractor(config, task.views, forward), task)
    else:
        views = resolve_views(Views(), forward.module.clip, {})
        assert views.frames and views.size
        clips = torch.stack([reference.film(views.frames, views.size, index) for index in DRAWN])
    findings = examine_clips(forward, clips, encoders.folder_of(config.options.ckpt))
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        print(f"{finding.check:<{width}}  {finding.outcome:<7}  {finding.detail}")
    return not any(finding.outcome == "failed" for finding in findings)
