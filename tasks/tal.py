"""Temporal action localization of your own videos."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Data, Task
from evalkit.datasets.files import same_split
from evalkit.errors import UserError
from evalkit.localization.segment_task import Windows, labeled_splits, segment_task
from evalkit.localization.segments import read_segments
from evalkit.mini.moments import moments

ADAPTER = "localizer"


DATA = Data(
    source="your own",
    license="your own",
    files={
        "segments.json": "database: {ID: {subset, duration, annotations: [{segment: [start, end], label}]}}; "
        "data.root= names the file or its folder",
        "ID.mp4": "the videos, in any folder beside the file; any ending",
    },
)


def task(
    root: Path = Path("data/tal/segments.json"),
    mini: bool = False,
    train: str = "training",
    test: str = "validation",
    windows: Windows = "videoglue",
    video_classes: Path | None = None,
) -> Task:
    """Localizes your own classes in time, scored by average mAP over tIoU 0.5 to 0.95.

    The file is in ActivityNet's layout: {"database": {"<id>": {"subset": "training", "duration": 93.1, "annotations":
    [{"segment": [12.0, 20.5], "label": "jump"}, ...]}, ...}}, in seconds. A video is <id> with any ending, in any
    folder beside the file.

    Args:
        root: the json file, or a folder with segments.json.
        mini: the films of activitynet_tal's miniature.
        train: name of the subset to learn from.
        test: name of the subset that is scored.
        windows: videoglue, videoglue_table12 or thumos, as tasks/activitynet_tal.py has them; clip.window= and
            clip.window_stride= are any others, in seconds.
        video_classes: a file of each video's classes, as tasks/activitynet_tal.py has it.
    """
    if mini:
        splits = moments()
    else:
        file = root / "segments.json" if root.is_dir() else root
        if not file.is_file():
            raise UserError(f"data.root={root}: wanted a json file in ActivityNet's layout; there is no {file}")
        if same_split(train, test):
            raise UserError(f"data.train={train} is data.test too: nothing would be left for training")
        splits = labeled_splits(file.parent, read_segments(file), train, test, video_classes)
    return segment_task(splits, windows, mini, split=test, license=DATA.license, source=DATA.source)
