"""Charades: 157 actions in 30-second videos at home (https://arxiv.org/abs/1604.01753)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from evalkit.api import Task
from evalkit.datasets import protocols
from evalkit.datasets.actions.charades import CHARADES, read_charades
from evalkit.metrics import charades_map, pr_auc
from evalkit.mini import classes

CHUNK = 128 / 6  # seconds: the 128 frames at six a second that VideoGLUE's configuration names


DATA = replace(
    CHARADES,
    sizes={"train": 7_811, "test": (1_814, 1_863)},
)


def task(root: Path = Path("data/charades"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Multi-label classification of household actions, by a frozen-backbone protocol.

    Files as published: Charades_v1_train.csv, Charades_v1_test.csv and Charades_v1_classes.txt, here or in Charades/,
    and the videos as <id>.mp4 in any folder there. An action that a video has twice counts once. Videos without any
    action are not trained on, as in VideoGLUE (7,811 of 7,985); in test they stand and, by Charades' own rule, are no
    false positives. The score is Charades' mAP over videos.

    `protocol=videoglue_code` is what VideoGLUE's code reports in its place: videos are cut into clips of 21.3 s, which
    have the actions that overlap them, and scored by Keras' area under the precision-recall curve. Where that code
    cuts its 6,976 clips is not published: here they are as few as cover a video, evenly spaced.

    Args:
        root: folder with the csv files and the videos.
        mini: the films of diving48's miniature, a class for each shape and each motion.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); not used by the
            miniature.
    """
    chunked = protocol == "videoglue_code" and not mini
    return protocols.classification(
        "charades",
        classes.three_steps(classes.seen) if mini else read_charades(root, CHUNK if chunked else math.inf),
        protocol,
        mini,
        score=pr_auc if chunked else charades_map,
        sizes={} if chunked else DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )
