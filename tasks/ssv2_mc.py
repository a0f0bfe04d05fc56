"""SSv2-MC: zero-shot classification of the 174 templates of Something-Something v2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.api import Task, Views
from evalkit.datasets import published
from evalkit.datasets.actions.ssv2 import SSV2, read_ssv2
from evalkit.datasets.miniature import miniature
from evalkit.metrics import top1_top5
from evalkit.mini import classes

ADAPTER = "zero_shot"


DATA = replace(
    SSV2,
    sizes={"test": 24_777},
)


def task(root: Path = Path("data/ssv2"), mini: bool = False) -> Task:
    """Classifies an interaction with an object by the most similar of 174 templates: zero-shot.

    Files: those of task ssv2; train is not read from. Templates are without their brackets and stand alone, as the
    options in InternVideo2's code (https://arxiv.org/abs/2403.15377): `adapter.prompts=none`. Perception Encoder's code
    has no templates of prompts for it and falls back on ImageNet's, which are of photographs. Frames are taken
    uniformly: InternVideo2's are clip.sampling=middle clip.frames=8, Perception Encoder's clip.sampling=linspace
    clip.frames=8.

    Args:
        root: folder with the json files and the videos.
        mini: the films of ssv2's miniature, one class per motion that, played backwards, is another class.
    """
    splits = classes.one_step(lambda step: step.action, classes.REVERSIBLE) if mini else read_ssv2(root, train=False)
    facts: dict[str, Any] = {
        "split": "validation",
        "sizes": DATA.sizes,
        "license": DATA.license,
        "published": published.rows("ssv2_mc", "top1", "zero-shot"),
    }
    return Task(
        train=splits.train,
        test=splits.test,
        score=top1_top5,
        views=Views("uniform"),
        classes=splits.classes,
        settings={"prompts": "none"},
        controls=("shuffled", "single_frame"),
        chance=100 / len(splits.classes),
        source=DATA.source,
        prepare_videos=splits.prepare_videos,
        **(miniature(facts) if mini else facts),
    )
