"""Something-Something v1: 174 interactions with objects (https://arxiv.org/abs/1706.04261)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Data, Task
from evalkit.datasets import protocols
from evalkit.datasets.actions.twentybn import read_twentybn
from evalkit.mini import classes

DATA = Data(
    source="https://arxiv.org/abs/1706.04261",
    license="the data set's own",
    files={
        "something-something-v1-labels.csv": "a template a line, 174; all three files also in labels/ or annotations/",
        "something-something-v1-train.csv": "lines `id;label`",
        "something-something-v1-validation.csv": "the same",
        "videos/ID.mp4": "the videos, in any folder there, made of the folders of images; any ending",
    },
)


def task(root: Path = Path("data/sthv1"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Classifies an interaction with an object in the first version of SSv2, by SSv2's protocol.

    Files as published: something-something-v1-labels.csv, -train.csv and -validation.csv (`id;label`), here or in
    labels/ or annotations/. The clips, folders of images such as 20bn-something-something-v1/100218, must be made
    videos, videos/100218.mp4 or with another ending in any folder; without loss by
    `ffmpeg -framerate 12 -i 20bn-something-something-v1/100218/%05d.jpg -c copy videos/100218.mp4`. Its classes are
    SSv2's in another order.

    Args:
        root: folder with the lists and the videos.
        mini: the films of kinetics400's miniature, one class per motion that, played backwards, is another class.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); not used by the
            miniature.
    """
    return protocols.classification(
        "sthv1",
        classes.one_step(lambda step: step.action, classes.REVERSIBLE)
        if mini
        else read_twentybn(root, "something-something-v1", 174),
        protocol,
        mini,
        split="validation",
        license=DATA.license,
        source=DATA.source,
    )
