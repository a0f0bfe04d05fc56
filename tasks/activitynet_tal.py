"""ActivityNet 1.3: localizing 200 activities in long videos (http://activity-net.org)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Data, Task
from evalkit.datasets import published
from evalkit.datasets.files import find_file
from evalkit.localization.segment_task import Windows, labeled_splits, segment_task
from evalkit.localization.segments import read_segments
from evalkit.mini.moments import moments

ADAPTER = "localizer"
# What VideoGLUE prints (table 12); the rest is G-TAD's own.
SETTINGS = {"head": "gtad", "length": 100, "epochs": 10, "batch_size": 32}


DATA = Data(
    source="https://github.com/activitynet/ActivityNet",
    license="MIT (annotations)",
    files={
        "activity_net.v1-3.min.json": "database: {ID: {subset, duration, annotations: [{segment: [start, end], "
        "label}]}}; data.file= names another",
        "videos/v_ID.mp4": "the videos, in any folder there, as v_<id>.mp4 or <id>.mp4",
    },
    sizes={"train": (10_002, 10_024), "test": 4_926},
    vanished="VideoGLUE counts 10,002 of the 10,024 training videos; more have vanished since, and count as failed",
)


def task(
    root: Path = Path("data/activitynet"),
    mini: bool = False,
    file: str = "activity_net.v1-3.min.json",
    windows: Windows = "videoglue",
    video_classes: Path | None = None,
) -> Task:
    """Localizes activities with G-TAD, scored by average mAP over tIoU 0.5 to 0.95.

    Files as published: activity_net.v1-3.min.json, and the videos as v_<id>.mp4 or <id>.mp4 in any folder there. The
    subset training is used for training, validation is scored. Videos that are no longer available are expected and
    count as failed. The 1,732 segments that end after their video are cut for training and left unchanged for scoring,
    as in the official evaluation.

    VideoGLUE describes its windows in two ways: its README has adjacent windows of 16 frames at 15 fps
    (`windows=videoglue`, the default, as G-TAD's own features have it), its table 12 a clip of 16 s
    (`windows=videoglue_table12`). Whether it takes the classes of a video from a file, as G-TAD's code does with CUHK's
    (cuhk_val_simp_share.json), is printed nowhere.

    Args:
        root: folder with the file and the videos.
        mini: generated 48-second films with three events and nothing before, between or after them.
        file: the name of the json; of ActivityNet's layout.
        windows: videoglue, videoglue_table12, or thumos (16 frames of 30 a second, every fourth).
        video_classes: a file in the layout of CUHK's, {"class": [name, ...], "results": {id: [score, ...], ...}}, whose
            two likeliest classes each segment gets; by default, the head predicts them.
    """
    return segment_task(
        moments()
        if mini
        else labeled_splits(root, read_segments(find_file(root, file)), "training", "validation", video_classes),
        windows,
        mini,
        settings=SETTINGS,
        split="val",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
        published=published.rows("activitynet_tal", "mAP", "frozen"),
    )
