"""AVA: the actions of each person in films, one key frame per second (https://arxiv.org/abs/1705.08421)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from evalkit.api import Task
from evalkit.localization import ava_files, spatiotemporal
from evalkit.localization.spatiotemporal import AVA
from evalkit.mini import classes

PUBLISHED = {"v2.2": 57_371, "v2.1": 0}  # key frames of val, with those without a person


DATA = replace(
    AVA,
    sizes={"test": PUBLISHED["v2.2"]},
)


def task(
    root: Path = Path("data/ava"),
    mini: bool = False,
    protocol: spatiotemporal.Protocol = "videoglue",
    boxes: spatiotemporal.Boxes = "detections",
    detections: Path | None = None,
    threshold: Annotated[float, Interval(ge=0, le=1)] = 0.8,
    version: Literal["v2.2", "v2.1"] = "v2.2",
    start: Annotated[float, Ge(0)] = 0.0,
) -> Task:
    """Classifies each person's actions in key frames of films; 60 of 80 actions are scored.

    Files as published: ava_val_v2.2.csv, ava_train_v2.2.csv, the files of excluded timestamps beside them
    (ava_val_excluded_timestamps_v2.2.csv), the official list of scored actions
    (ava_action_list_v2.2_for_activitynet_2019.pbtxt), and the films as <id>.mp4, .mkv or .webm in any folder there.
    `evalkit score task=ava predictions=FILE` needs ava_val and the list alone.

    The test uses detected persons from a csv with rows of video,second,left,top,right,bottom,,score, such as
    SlowFast's. evalkit/localization/spatiotemporal.py says which parts of the protocol are the papers' and which are
    chosen here.

    Args:
        root: folder with the csv files, the list, and the films.
        mini: the films of chimpact's miniature, two objects side by side; simulated detections are shifted, and some
            are missing or false.
        protocol: defines frames and their size (evalkit/localization/spatiotemporal.py); not used by the miniature.
        boxes: detections, or truth for the annotated boxes, which is a separate protocol.
        detections: csv of detected persons; by default ava_val_predicted_boxes.csv in root, where it is there.
        threshold: detections with lower scores are dropped.
        version: of the annotations.
        start: second of the film at which the files start: 0 for whole films, 900 for the usual cut of 15 minutes.
    """
    if mini:
        splits = classes.key_frames(lambda step: {step.thing.color, step.action}, boxes == "truth")
    else:
        splits = ava_files.read(root, False, boxes, detections, threshold, version, start)
    return spatiotemporal.task(
        "ava",
        splits,
        mini,
        protocol,
        boxes,
        PUBLISHED[version],
    )
