"""Kinetics-700: 700 human actions in ten-second clips (https://arxiv.org/abs/1907.06987)."""

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
    vanished="of the list of 2020, FiftyOne's zoo states 534,073 of 542,352 clips of train and 33,914 of 34,125 "
    "of val at the mirror",
)


def task(root: Path = Path("data/kinetics700"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Classifies 700 human actions in ten-second clips, by a frozen-backbone protocol.

    Files: as kinetics400's, the list of val also as validate.csv; those of 2019 or of 2020
    (https://arxiv.org/abs/2010.10864), whose clips differ and whose classes are the same. The protocol is
    Kinetics-400's.

    Args:
        root: folder with the lists and the clips.
        mini: the films of kinetics400's miniature, a class per motion of one thing.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); not used by the
            miniature.
    """
    return protocols.classification(
        "kinetics700",
        classes.one_step(lambda step: step.action, classes.ALONE) if mini else kinetics.read_kinetics(root, 700),
        protocol,
        mini,
        split="val",
        license=DATA.license,
        source=DATA.source,
    )
