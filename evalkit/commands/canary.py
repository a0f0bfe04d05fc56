"""`evalkit canary`: is the encoder fed what it was trained on?"""

from __future__ import annotations

import torch

from evalkit.api import Views
from evalkit.canary import reference
from evalkit.config.config import Config
from evalkit.features import extract
from evalkit.pipeline import setup
from evalkit.pipeline.preflight import DRAWN, _clips, _examine


def report(config: Config) -> bool:
    """Prints what the canary found, with clips of the task where one is given, else with drawn films.

    Returns:
        Whether nothing failed.

    Raises:
        UserError: there is no such encoder or task.
    """
    forward = setup.load_forward(config)
    if config.options.task:
        task = setup.load_task(config)
        clips = _clips(setup.make_reader(config, task.views, forward), task)
    else:
        views = extract.resolve(Views(), forward.module.clip, {})
        assert views.frames and views.size
        clips = torch.stack([reference.film(views.frames, views.size, index) for index in DRAWN])
    findings = _examine(config, forward, clips)
    width = max(len(one.check) for one in findings)
    for one in findings:
        print(f"{one.check:<{width}}  {one.outcome:<7}  {one.detail}")
    return not any(one.outcome == "failed" for one in findings)
