"""Kinetics-600: 600 human actions in ten-second clips (https://arxiv.org/abs/1808.01340)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.api import Task
from evalkit.datasets import protocols
from evalkit.datasets.actions import kinetics
from evalkit.datasets.actions.kinetics import KINETICS
from evalkit.mini import classes

DATA = replace(
    KINETICS,
    sizes={"test": 30_000},
    disk="779 GB: 648 of train, 43 of val and 88 of test, as the zoo of FiftyOne states them",
    vanished="FiftyOne's zoo states 29,793 clips of val at the mirror",
)


def task(root: Path = Path("data/kinetics600"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Classifies 600 human actions in ten-second clips, by a frozen-backbone protocol.

    Files: as kinetics400's, the list of val also as validate.csv. No paper here probes it: the protocol is
    Kinetics-400's.

    Args:
        root: folder with the lists and the clips.
        mini: the films of kinetics400's miniature, a class per shape.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); not used by the
            miniature.
    """
    return protocols.classification(
        "kinetics600",
        classes.one_step(lambda step: step.thing.shape, classes.ALONE) if mini else kinetics.read_kinetics(root, 600),
        protocol,
        mini,
        split="val",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )
