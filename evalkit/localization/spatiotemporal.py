"""AVA and AVA-Kinetics: actions of persons in key frames, with the two papers' protocols for frozen encoders.

VideoGLUE (https://arxiv.org/abs/2307.03166, tables 10 to 12 and its code) and VideoPrism
(https://arxiv.org/abs/2402.13217, appendix E.1) agree: 16 frames, every fourth of the film, with the key frame in the
middle; training on annotated boxes for 50 epochs with a batch size of 256 and a sigmoid for each of 80 classes; testing
on detected boxes, whose scores multiply the probabilities; frame mAP at IoU 0.5 over the 60 classes of the official
list. `videoglue` uses frames of 256 pixels, `videoprism` of 288, and `videoprism_8x288` only 8 of them. Learning rate
and weight decay are the starting values of the search, as for classification; the dropout of 0.5 is from the code.
`videoglue_finetune` is `videoglue` for adapter=finetune, without the papers' layer-wise learning rate decay of 0.75.

Choices made here: frames are squashed to a square, so that no box is cut off, while the code crops the center. Training
has no augmentation (table 10: flips, scales of 0.5 to 2, and color), which would move the boxes. Each box is a training
example, while the code groups up to 32 boxes of a key frame, and the loss is the mean over classes, not their sum. A
fixed tenth of the training videos is held out for validation, with annotated boxes, and scored like the test. The step
between 8 frames is not stated, so it is that between 16.

Key frames without annotated boxes are in no annotation file and do not count: the official evaluation and VideoGLUE's
ignore detections there. The papers' numbers of AVA's key frames, 210,634 and 57,371, include them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from evalkit.api import Data, Example, Task, Views
from evalkit.datasets import protocols, published
from evalkit.datasets.miniature import miniature
from evalkit.metrics import ava_map, chance_map

Protocol = Literal["videoglue", "videoglue_finetune", "videoprism", "videoprism_8x288"]
Boxes = Literal["detections", "truth"]

VIEWS = Views("dense", frames=16, stride=4, resize="squash", size=256)
PROTOCOLS: Mapping[Protocol, Views] = {
    "videoglue": VIEWS,
    "videoglue_finetune": VIEWS,
    "videoprism": replace(VIEWS, size=288),
    "videoprism_8x288": replace(VIEWS, frames=8, size=288),
}
PROBE = {"head": "box", "batch_size": 256, "epochs": 50, "lr": 1e-4, "weight_decay": 1e-5, "dropout": 0.5}

Corners = tuple[float, float, float, float]


class BoxSplits(NamedTuple):
    """Training examples of a box each, and key frames with their boxes.

    Attributes:
        train: their targets are tuples of indices of classes.
        val: with the boxes that are annotated.
        test: with those that are asked about.
        classes: names; empty for one that is not scored.
        prepare_videos: as of `evalkit.api.Task`.
        counted: key frames of the test's videos that are not excluded, with annotated boxes or without.
    """

    train: Sequence[Example]
    val: Sequence[Example]
    test: Sequence[Example]
    classes: tuple[str, ...]
    prepare_videos: Callable[[Sequence[Example]], None] | None = None
    counted: int = 0


AVA = Data(
    source="https://research.google.com/ava",
    license="CC BY 4.0 (annotations)",
    files={
        "ava_train_v2.2.csv": "video,second,left,top,right,bottom,action,person, without a header; sides as "
        "shares of the frame",
        "ava_val_v2.2.csv": "the same",
        "ava_train_excluded_timestamps_v2.2.csv": "video,second: key frames that do not count",
        "ava_val_excluded_timestamps_v2.2.csv": "the same",
        "ava_action_list_v2.2_for_activitynet_2019.pbtxt": "the 60 actions that are scored; also in "
        "ava_kinetics_v1_0/, or v2.1 of 2018",
        "ava_val_predicted_boxes.csv": "detected persons, as SlowFast's: "
        "video,second,left,top,right,bottom,,score; or data.detections=FILE, or data.boxes=truth",
        "videos/ID.mp4": "the films, in any folder there, also .mkv and .webm; whole, or cut with data.start=900",
    },
)


def task(
    benchmark: str,
    splits: BoxSplits,
    mini: bool,
    protocol: Protocol,
    boxes: Boxes,
    count: int,
) -> Task:
    """A task of actions in boxes by a protocol, or as a miniature.

    Args:
        benchmark: its name.
        splits: the examples.
        mini: they are the miniature's, whose protocol is `protocols.MINI`.
        protocol: of the papers.
        boxes: what the test examples' boxes are; given ones are a protocol of their own.
        count: key frames of the split in the paper, with those without annotated boxes; 0 where that is not known.
    """
    truth = boxes == "truth"
    facts: dict[str, Any] = dict(split="val", license=AVA.license, source=AVA.source)
    if mini:
        facts = miniature(facts) | protocols.MINI
        facts |= {"views": replace(facts["views"], resize="squash"), "settings": facts["settings"] | {"head": "box"}}
        facts["protocol"] = "truth" if truth else ""
    else:
        name = f"{protocol}_truth" if truth else protocol
        adapter = "finetune" if protocol == "videoglue_finetune" else ""
        facts |= {
            "protocol": name,
            "adapter": adapter,
            "views": PROTOCOLS[protocol],
            "settings": PROBE,
            "published": published.rows(benchmark, "mAP", adapter or "frozen", facts["split"], name),
            # Where the key frames come to the paper's number, the annotated ones are all there.
            "sizes": {"test": len(splits.test) if count in (len(splits.test), splits.counted) else count}
            if count
            else {},
        }
    number = {name: k for k, name in enumerate(splits.classes)}
    persons = [[[number[name] for name in names] for names in _by_box(e.target).values()] for e in splits.test]
    return Task(
        test=splits.test,
        score=ava_map,
        train=splits.train,
        val=splits.val,
        classes=splits.classes,
        # Of a random order of the annotated boxes.
        chance=chance_map([*itertools.chain.from_iterable(persons)]),
        prepare_videos=splits.prepare_videos,
        **facts,
    )


def _by_box(target: Iterable[Sequence[Any]]) -> dict[Corners, list[str]]:
    """The names of each box of a key frame."""
    names: dict[Corners, list[str]] = {}
    for *corners, name in target:
        names.setdefault(tuple(corners), []).append(name)
    return names
