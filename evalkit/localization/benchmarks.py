"""ActivityNet, THUMOS14 and AVA as examples with segments or boxes: what scores predictions made elsewhere.

No adapter of evalkit localizes yet, so these are no benchmarks of `evalkit run`. A file of one line makes each a task
that `evalkit score task=./tal.py data.root=... predictions=FILE` knows:

    from evalkit.localization.benchmarks import activitynet as task
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.api import Example, Task
from evalkit.datasets.files import find_file
from evalkit.datasets.videos import Videos, find_videos, video_file
from evalkit.errors import UserError
from evalkit.localization.key_frames import (
    ACTIONS,
    key_frame_name,
    read_excluded,
    read_key_frames,
    read_label_map,
)
from evalkit.localization.segments import LabeledVideos, read_segments
from evalkit.metrics import activitynet_map, ava_map, thumos_map

LABEL_MAPS = (
    "ava_action_list_v2.2_for_activitynet_2019.pbtxt",
    "ava_action_list_v2.1_for_activitynet_2018.pbtxt",
    "ava_action_list_v2.1_for_activitynet_2018.pbtxt.txt",
)


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


def ava(root: Path = Path("data/ava"), version: str = "v2.2") -> Task:
    """Says what each person does in the key frames of films, of 80 actions, 60 of which are scored.

    An example is a key frame. Those that are excluded are left out; those whose boxes have unscored actions alone stay,
    as in the official evaluation. `classes` has the actions by id, the first of which is 1, and an empty name for one
    that is not scored.

    Args:
        root: folder with ava_val_<version>.csv, the label map (ava_action_list_v2.2_for_activitynet_2019.pbtxt),
            and, where they are there, ava_val_excluded_timestamps_<version>.csv, ava_train_<version>.csv and the videos
            as <id>.mp4 in any folder.
        version: v2.2 or v2.1.
    """
    file = find_file(root, f"ava_val_{version}.csv")
    actions = read_label_map(find_file(root, *LABEL_MAPS))
    train = root / f"ava_train_{version}.csv"
    videos = find_videos(root)
    return Task(
        test=_key_frame_examples(root, videos, file, actions),
        train=_key_frame_examples(root, videos, train, actions) if train.is_file() else (),
        score=ava_map,
        classes=tuple(actions.get(number, "") for number in range(1, max(ACTIONS, *actions) + 1)),
        split="val",
        sizes={"train": 210_634, "test": 57_371},
        license="CC BY 4.0 (annotations)",
        source="https://research.google.com/ava",
    )


def _segment_task(root: Path, videos: LabeledVideos, train: str, test: str, **facts: Any) -> Task:
    files = find_videos(root)

    def examples(subset: str) -> list[Example]:
        return [Example(video.name, path(video.name), video.segments) for video in videos.of(subset)]

    def path(name: str) -> Path:
        return video_file(files, root / "videos", f"v_{name}" if f"v_{name}" in files else name)

    return Task(test=examples(test), train=examples(train), classes=videos.classes, **facts)


def _key_frame_examples(root: Path, videos: Videos, file: Path, actions: Mapping[int, str]) -> list[Example]:
    split, _, version = file.name.rpartition("_")
    excluded = file.with_name(f"{split}_excluded_timestamps_{version}")
    frames = read_key_frames(file, actions, read_excluded(excluded) if excluded.is_file() else ())
    if not frames.boxes:
        raise UserError(f"{file}: no key frame in it")
    return [
        Example(key_frame_name(key), video_file(videos, root / "videos", key[0]), boxes)
        for key, boxes in frames.boxes.items()
    ]
