"""Something-Something v2: 174 interactions with objects (https://arxiv.org/abs/1706.04261)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.api import Task
from evalkit.datasets import protocols
from evalkit.datasets.actions.ssv2 import SSV2, read_ssv2
from evalkit.mini import classes

DATA = replace(
    SSV2,
    sizes={"train": 168_913, "test": 24_777},
)


def task(root: Path = Path("data/ssv2"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Classifies an interaction with an object, by motion and order, by a frozen-backbone protocol.

    Files as published: labels/train.json, labels/validation.json and labels/labels.json, or these as
    something-something-v2-train.json and so on, and the videos as <id>.webm (or .mp4) in any folder there. Papers
    report the validation split.

    Args:
        root: folder with the json files and the videos.
        mini: the films of kinetics400's miniature, one class per motion that, played backwards, is another class.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); not used by the
            miniature.
    """
    return protocols.classification(
        "ssv2",
        classes.one_step(lambda step: step.action, classes.REVERSIBLE) if mini else read_ssv2(root),
        protocol,
        mini,
        split="validation",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )
