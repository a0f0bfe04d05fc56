"""Kinetics-400: 400 human actions in ten-second clips (https://arxiv.org/abs/1705.06950)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.api import Task
from evalkit.datasets import protocols
from evalkit.datasets.actions import kinetics
from evalkit.datasets.actions.kinetics import KINETICS
from evalkit.errors import UserError
from evalkit.mini import classes

DATA = replace(
    KINETICS,
    sizes={"train": (235_693, 246_534), "test": (19_165, 19_906)},
    vanished="VideoGLUE had 235,693 of the 246,534 clips that the list of train names, and 19,165 of val's 19,906",
)


def task(
    root: Path = Path("data/kinetics400"),
    mini: bool = False,
    protocol: protocols.Name = "videoglue",
    subset: Path | None = None,
) -> Task:
    """Classifies a human action in a ten-second clip, by a frozen-backbone protocol.

    Files: train.csv and val.csv as published, or lists of path and number; the clips in train/ and val/, flat or in
    class folders (evalkit/datasets/actions/kinetics.py has the details). Val is what the papers report. VideoGLUE
    counts 19,165 clips in val, the published csv 19,906: the sizes expected here leave out the missing ones.

    Args:
        root: folder with the lists and the clips.
        mini: ten-second films of the mini world, a class per motion.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); the miniature
            can set only mveb.
        subset: of protocol=mveb, a text file with the name of each of its clips, of train and of val (or test.csv),
            such as 0wR5jVB-WPk_000417_000427.
    """
    if (protocol == "mveb") != bool(subset) and not mini:
        raise UserError(
            f"data.subset={subset} is of data.protocol=mveb alone: leave it out"
            if subset
            else "data.protocol=mveb takes 3,973 clips of kinetics400 to learn from and 3,995 others, whose list is "
            "not published with it: data.subset=FILE, with a clip's name in each line, as 0wR5jVB-WPk_000417_000427"
        )
    if mini:
        splits = classes.one_step(lambda step: step.action)
    else:
        splits = kinetics.read_subset(root, 400, subset) if subset else kinetics.read_kinetics(root, 400)
    return protocols.classification(
        "kinetics400",
        splits,
        protocol,
        mini,
        split="mveb" if subset else "val",
        sizes={"train": 3_973, "test": 3_995} if subset else DATA.sizes,
        version=2,
        license=DATA.license,
        source=DATA.source,
    )
