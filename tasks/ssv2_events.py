"""SSv2-Events: 49 templates of Something-Something v2 with several events (https://arxiv.org/abs/2301.02074)."""

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
        "eval_ssv2_events.csv": "columns videopath, caption (with the template in quotes), match (0 or 1): 588 "
        "videos, 49 templates",
        "videos/ID.webm": "SSv2's videos, in any folder there; any ending",
    },
    sizes={"test": 588},
)


def task(root: Path = Path("data/ssv2"), mini: bool = False) -> Task:
    """Classifies which of 49 sequences of events is shown: zero-shot, by text.

    Files: eval_ssv2_events.csv as VideoCon publishes it (588 videos), and the videos as <id>.webm (or other) in any
    folder there. Frames are sampled uniformly from the whole video. evalkit/datasets/actions/videocon.py says what is
    known about the papers' scores.

    Args:
        root: folder with the list and the videos.
        mini: the films of diving48's miniature, a class per order of colors.
    """
    return videocon.zero_shot_task(
        "ssv2_events",
        classes.in_order() if mini else videocon.read_videocon(root, "ssv2_events"),
        mini,
    )
