"""Charades-MC: zero-shot classification of Charades' 157 actions by their names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.api import Task, Views
from evalkit.datasets import published
from evalkit.datasets.actions.charades import CHARADES, read_charades
from evalkit.datasets.miniature import miniature
from evalkit.metrics import charades_map
from evalkit.metrics.average_precision import chance_map
from evalkit.mini import classes

ADAPTER = "zero_shot"


DATA = replace(
    CHARADES,
    sizes={"test": (1_814, 1_863)},
)


def task(root: Path = Path("data/charades"), mini: bool = False) -> Task:
    """Ranks 157 household actions by the similarity of their names to a video: zero-shot, multi-label.

    Files: those of task charades. Names stand alone, as the options in InternVideo2's code
    (https://arxiv.org/abs/2403.15377): `adapter.prompts=none`. The score is Charades' mAP; `mAP_all_videos` counts
    videos without an action, too. Frames are taken uniformly; InternVideo2's are clip.sampling=middle clip.frames=8.

    Args:
        root: folder with the csv files and the videos.
        mini: the films of diving48's miniature, a class for each shape and each motion.
    """
    splits = classes.three_steps(classes.seen) if mini else read_charades(root)
    facts: dict[str, Any] = {
        "split": "test",
        "sizes": DATA.sizes,
        "license": DATA.license,
        "published": published.rows("charades_mc", "mAP", "zero-shot"),
    }
    return Task(
        train=splits.train if mini else (),
        test=splits.test,
        score=charades_map,
        views=Views("uniform"),
        classes=splits.classes,
        settings={"prompts": "none"},
        controls=("shuffled", "single_frame"),
        chance=chance_map([example.target for example in splits.test], empty=False),
        source=DATA.source,
        prepare_videos=splits.prepare_videos,
        **(miniature(facts) if mini else facts),
    )
