"""SSv2-Temporal: 18 templates of Something-Something v2 that require temporal information
(https://arxiv.org/abs/1907.08340).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.api import Task
from evalkit.datasets.actions import videocon
from evalkit.datasets.actions.videocon import VIDEOCON
from evalkit.mini import classes

ADAPTER = "zero_shot"


DATA = replace(
    VIDEOCON,
    files={
        "eval_ssv2_temporal.csv": "columns videopath, caption (with the template in quotes), match (0 or 1): 216 "
        "videos, 18 templates",
        "videos/ID.webm": "SSv2's videos, in any folder there; any ending",
    },
    sizes={"test": 216},
)


def task(root: Path = Path("data/ssv2"), mini: bool = False) -> Task:
    """Classifies which of 18 interactions with an object is shown: zero-shot, by text.

    Files: eval_ssv2_temporal.csv as VideoCon publishes it (216 videos), and the videos as <id>.webm (or other) in any
    folder there. Frames are sampled uniformly from the whole video. evalkit/datasets/actions/videocon.py says what is
    known about the papers' scores.

    Args:
        root: folder with the list and the videos.
        mini: the films of ssv2's miniature, one class per motion that, played backwards, is another class.
    """
    return videocon.zero_shot_task(
        "ssv2_temporal",
        classes.one_step(lambda step: step.action, classes.REVERSIBLE)
        if mini
        else videocon.read_videocon(root, "ssv2_temporal"),
        mini,
    )
