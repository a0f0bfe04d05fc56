"""THUMOS14: localizing 20 actions in long sports videos (http://crcv.ucf.edu/THUMOS14)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Data, Task
from evalkit.datasets.files import find_file
from evalkit.localization.segment_task import Windows, labeled_splits, segment_task
from evalkit.localization.segments import read_segments
from evalkit.metrics import thumos_map
from evalkit.mini.moments import moments

ADAPTER = "localizer"
SETTINGS = {"head": "actionformer", "length": 0, "segments": 200}  # as ActionFormer; its training is the head's own


DATA = Data(
    source="https://github.com/happyharrycn/actionformer_release",
    license="none stated; research use",
    files={
        "thumos14.json": "database: {ID: {subset, duration, annotations: [{segment: [start, end], label}]}}, as "
        "ActionFormer and OpenTAD have it; data.file= names another",
        "videos/ID.mp4": "the videos, in any folder there",
    },
    sizes={"train": 200, "test": 213},
)


def task(
    root: Path = Path("data/thumos14"),
    mini: bool = False,
    file: str = "thumos14.json",
    windows: Windows = "thumos",
    video_classes: Path | None = None,
) -> Task:
    """Localizes actions with ActionFormer, scored by average mAP over tIoU 0.3 to 0.7.

    The file is in the layout that ActionFormer (subsets validation and test) and OpenTAD (training and validation)
    share: validation's 200 videos are learned from, and test's 213 are scored. Repeated annotations are one and
    ambiguous ones are left out, as both do. Windows are in seconds of 30 frames, which nearly all of the videos have.

    Args:
        root: folder with the file, and the videos in any folder there.
        mini: the films of activitynet_tal's miniature.
        file: the name of the json.
        windows: thumos, videoglue or videoglue_table12, as tasks/activitynet_tal.py has them.
        video_classes: a file of each video's classes, as tasks/activitynet_tal.py has it.
    """
    if mini:
        splits = moments()
    else:
        videos = read_segments(find_file(root, file), drop_repeated=True)
        scored = any(video.segments for video in videos.of("test"))
        subsets = ("validation", "test") if scored else ("training", "validation")
        splits = labeled_splits(root, videos, *subsets, video_classes)
    return segment_task(
        splits,
        windows,
        mini,
        score=thumos_map,
        settings=SETTINGS,
        split="test",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )
