"""AVA-Kinetics: AVA's actions in films and in Kinetics-700 clips (https://arxiv.org/abs/2005.00214)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Interval

from evalkit.api import Task
from evalkit.localization import ava_files, spatiotemporal
from evalkit.localization.spatiotemporal import AVA
from evalkit.mini import classes

PUBLISHED = 91_919  # key frames of val, with those without a person


DATA = replace(
    AVA,
    sizes={"test": PUBLISHED},
    files={
        **AVA.files,
        "kinetics_train_v1.0.csv": "as AVA's, of Kinetics-700; also in ava_kinetics_v1_0/",
        "kinetics_val_v1.0.csv": "the same",
        "videos/ID_000012_000022.mp4": "the clips of Kinetics, with the seconds at which they start and end, or "
        "whole videos as ID.mp4",
    },
    vanished="VideoGLUE's code counts 353,201 training key frames and its table 354,201; the clips of Kinetics "
    "are YouTube's",
)


def task(
    root: Path = Path("data/ava"),
    mini: bool = False,
    protocol: spatiotemporal.Protocol = "videoglue",
    boxes: spatiotemporal.Boxes = "detections",
    detections: Path | None = None,
    threshold: Annotated[float, Interval(ge=0, le=1)] = 0.2,
    start: Annotated[float, Ge(0)] = 0.0,
) -> Task:
    """Classifies each person's AVA actions in key frames of films and Kinetics-700 clips.

    Files as published, in root or in ava_kinetics_v1_0/ there: kinetics_val_v1.0.csv and kinetics_train_v1.0.csv, and
    those of task=ava. The clips of Kinetics are <id>_000012_000022.mp4, with the seconds at which they start and end,
    or whole videos as <id>.mp4, in any folder. `evalkit score task=ava_kinetics predictions=FILE` needs the two files
    of val and the list of actions alone.

    The test uses detected persons from a csv with rows of video,second,left,top,right,bottom,,score, such as
    SlowFast's. evalkit/localization/spatiotemporal.py says which parts of the protocol are the papers' and which are
    chosen here.

    Args:
        root: folder with the csv files, the list, and the films.
        mini: the films of chimpact's miniature, two objects side by side; simulated detections are shifted, and some
            are missing or false.
        protocol: defines frames and their size (evalkit/localization/spatiotemporal.py); not used by the miniature.
        boxes: detections, or truth for the annotated boxes, which is a separate protocol.
        detections: csv of detected persons; those of films and of clips; by default
            ava_val_predicted_boxes.csv in root, where it is there.
        threshold: detections with lower scores are dropped.
        start: second of the film at which AVA's files start: 0 for whole films, 900 for the usual cut of 15 minutes.
    """
    if mini:
        splits = classes.key_frames(lambda step: {step.thing.shape, step.action}, boxes == "truth")
    else:
        splits = ava_files.read(root, True, boxes, detections, threshold, "v2.2", start)
    return spatiotemporal.task(
        "ava_kinetics",
        splits,
        mini,
        protocol,
        boxes,
        PUBLISHED,
    )
