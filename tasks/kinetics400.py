"""Kinetics-400: 400 human actions in ten-second clips (https://arxiv.org/abs/1705.06950)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Task
from evalkit.datasets import kinetics, protocols
from evalkit.mini import classes


def task(root: Path = Path("data/kinetics400"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Names the human action in a ten-second clip, by a frozen-backbone protocol.

    Files: train.csv and val.csv as published, or lists of path and number; the clips in train/ and val/, flat or in
    class folders (evalkit/datasets/kinetics.py has the details). Val is what the papers report. VideoGLUE counts 19,165
    clips in val, the published csv 19,906: what had vanished when they were fetched is expected here.

    Args:
        root: folder with the lists and the clips.
        mini: ten-second films of the mini world, a class per motion.
        protocol: frames, views, augmentation and training: as evalkit/datasets/protocols.py has them; not of the
            miniature.
    """
    return protocols.classification(
        "kinetics400",
        classes.one_step(lambda step: step.action) if mini else kinetics.read_kinetics(root, 400),
        protocol,
        mini,
        split="val",
        sizes={"train": (235_693, 246_534), "test": (19_165, 19_906)},
        version=2,
        license="CC BY 4.0 (annotations)",
        source="https://github.com/cvdfoundation/kinetics-dataset",
    )
