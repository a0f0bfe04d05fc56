"""Something-Something v1: 174 ways to do something with something (https://arxiv.org/abs/1706.04261)."""

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
    """Names what is done with something in the first edition of SSv2, by a frozen-backbone protocol, SSv2's.

    Files as published: something-something-v1-labels.csv, -train.csv and -validation.csv (`id;label`), here or in
    labels/ or annotations/. The clips, folders of images such as 20bn-something-something-v1/100218, must be made
    videos, videos/100218.mp4 or with another ending in any folder; without loss by
    `ffmpeg -framerate 12 -i 20bn-something-something-v1/100218/%05d.jpg -c copy videos/100218.mp4`. Its classes are
    SSv2's in another order.

    Args:
        root: folder with the lists and the videos.
        mini: the films of kinetics400's miniature, a class per motion that is another one backwards.
        protocol: frames, views, augmentation and training: as evalkit/datasets/protocols.py has them; not of the
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
