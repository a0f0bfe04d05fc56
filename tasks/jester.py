"""Jester: 27 hand gestures in front of a webcam (ICCV workshops 2019)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Data, Task
from evalkit.datasets import protocols
from evalkit.datasets.actions.twentybn import read_twentybn
from evalkit.mini import classes

DATA = Data(
    source="https://www.qualcomm.com/developer/software/jester-dataset",
    license="the data set's own",
    files={
        "jester-v1-labels.csv": "a name a line, 27; all three files also in labels/ or annotations/",
        "jester-v1-train.csv": "lines `id;label`",
        "jester-v1-validation.csv": "the same",
        "videos/ID.mp4": "the videos, in any folder there, made of the folders of images; any ending",
    },
    sizes={"train": 118_562, "test": 14_787},
)


def task(root: Path = Path("data/jester"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Classifies a hand gesture in a three-second clip, by a frozen-backbone protocol.

    Files as published: jester-v1-labels.csv, jester-v1-train.csv and jester-v1-validation.csv (`id;label`), here or in
    labels/ or annotations/. The clips, folders of images such as 20bn-jester-v1/34870, must be made videos,
    videos/34870.mp4 or with another ending in any folder; without loss by
    `ffmpeg -framerate 12 -i 20bn-jester-v1/34870/%05d.jpg -c copy videos/34870.mp4`. Validation is what V-JEPA 2
    reports (https://arxiv.org/abs/2506.09985): `protocol=vjepa2`; all others are as SSv2's.

    Args:
        root: folder with the lists and the videos.
        mini: the films of kinetics400's miniature, one class per motion that, played backwards, is another class.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); not used by the
            miniature.
    """
    return protocols.classification(
        "jester",
        classes.one_step(lambda step: step.action, classes.REVERSIBLE)
        if mini
        else read_twentybn(root, "jester-v1", 27),
        protocol,
        mini,
        split="validation",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )
