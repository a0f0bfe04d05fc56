"""ActivityNet and THUMOS14 as examples with segments: what scores predictions made elsewhere.

No adapter of evalkit localizes yet, so these are no benchmarks of `evalkit run`. A file of one line makes each a task
that `evalkit score task=./tal.py data.root=... predictions=FILE` knows:

    from evalkit.localization.benchmarks import activitynet as task
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evalkit.api import Example, Task
from evalkit.datasets.files import find_file
from evalkit.datasets.videos import find_videos, video_file
from evalkit.localization.segments import LabeledVideos, read_segments
from evalkit.metrics import activitynet_map, thumos_map


def activitynet(root: Path = Path("data/activitynet"), file: str = "activity_net.v1-3.min.json") -> Task:
    """Says when which of 200 activities happens, in long videos.

    Segments that end after their video, 1,732 in training and validation, are scored as they are, as the official
    evaluation does.

    Args:
        root: folder with the file, and the videos as v_<id>.mp4 or <id>.mp4 in any folder there.
        file: in its layout.
    """
    return _segment_task(
        root,
        read_segments(find_file(root, file)),
        train="training",
        test="validation",
        score=activitynet_map,
        split="validation",
        sizes={"train": 10_002, "test": 4_926},
        license="MIT (annotations)",
        source="https://github.com/activitynet/ActivityNet",
    )


def thumos14(root: Path = Path("data/thumos14"), file: str = "thumos14.json") -> Task:
    """Says when which of 20 actions happens, in long videos of sports.

    Repeated annotations are one and ambiguous ones are left out, as ActionFormer and OpenTAD do.

    Args:
        root: folder with the file, and the videos in any folder there.
        file: in the layout that ActionFormer (subsets validation and test) and OpenTAD (training and validation) share.
    """
    videos = read_segments(find_file(root, file), drop_repeated=True)
    train, test = ("validation", "test") if videos.of("test") else ("training", "validation")
    return _segment_task(
        root,
        videos,
        train=train,
        test=test,
        score=thumos_map,
        split="test",
        sizes={"train": 200, "test": 213},
        license="none stated; research use",
        source="https://github.com/happyharrycn/actionformer_release",
    )


def _segment_task(root: Path, videos: LabeledVideos, train: str, test: str, **facts: Any) -> Task:
    files = find_videos(root)

    def examples(subset: str) -> list[Example]:
        return [Example(video.name, path(video.name), video.segments) for video in videos.of(subset)]

    def path(name: str) -> Path:
        return video_file(files, root / "videos", f"v_{name}" if f"v_{name}" in files else name)

    return Task(test=examples(test), train=examples(train), classes=videos.classes, **facts)
