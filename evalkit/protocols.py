"""The papers' ways to classify with a frozen encoder, as data: frames, views, augmentation and training, by name.

`videoglue` is tables 10 to 12 of https://arxiv.org/abs/2307.03166, and the default: its epochs and views are what both
papers print. `videoglue_code` is the released configurations of frozen encoders
(https://github.com/tensorflow/models/tree/master/official/projects/videoglue), where they differ: SSv2 is trained for
60,000 steps, 91 epochs; Charades is cut into clips and scored by PR-AUC. Both leave out RandAugment, MixUp and CutMix,
which table 10 names for Kinetics-400 and SSv2 and which the code has for fine-tuning alone, and Diving48's additional
L2 of 5e-5. The papers search learning rate and weight decay from the values here, in 4e-5 to 2.5e-3 and 1e-6 to 1e-4.

`videoprism` and `videoprism_8x252` (with as many operations as VideoGLUE's) are VideoPrism's: `videoglue` on frames of
288 and 252 pixels (https://arxiv.org/abs/2402.13217, appendix E.1). The step between the 8 frames is not printed; it is
VideoGLUE's.

`vjepa2` is V-JEPA 2's attentive probe of four blocks as its configurations for ViT-L have it
(https://github.com/facebookresearch/vjepa2/tree/main/configs/eval/vitl), whose grid is lr 1e-4, 3e-4, 1e-3, 3e-3, 5e-3
by weight_decay 0.01, 0.1, 0.4, 0.8 (Diving48: lr 1e-4, 3e-4, 1e-3, weight_decay 0.8).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from evalkit import published
from evalkit.annotations import Labelled
from evalkit.api import Augment, Score, Task, UserError, Views
from evalkit.metrics import chance_map, charades_map, top1_top5

Name = Literal["videoglue", "videoglue_code", "videoprism", "videoprism_8x252", "vjepa2"]

DENSE = Views("dense", frames=16, stride=4, clips=4, crops=3, size=224)
# Adapter settings; the probe's own are as in VideoGLUE's code otherwise.
PROBE = {"batch_size": 256, "lr": 1e-4, "weight_decay": 1e-5, "dropout": 0.5, "label_smoothing": 0.1}
# By benchmark: views, epochs, whether training clips are mirrored, and what else its settings are.
VIDEOGLUE: dict[str, tuple[Views, int, bool, dict[str, Any]]] = {
    "kinetics400": (DENSE, 150, True, {}),
    "kinetics600": (DENSE, 150, True, {}),  # in none of the papers; as Kinetics-400
    "moments_in_time": (DENSE, 50, True, {}),
    "ssv2": (replace(DENSE, sampling="segments", stride=1, clips=1), 50, False, {}),
    "diving48": (DENSE, 100, True, {}),
    # Every frame of a source of six frames a second; the code's loss of several classes knows no smoothing.
    "charades": (replace(DENSE, sampling="fps", fps=6.0, stride=1), 50, False, {"label_smoothing": 0.0}),
}
# Distinct augmented views of a training clip, each encoded once. The papers draw one anew in every epoch, which
# trainer.views=150 does for Kinetics-400, at fifteen times the cost.
VIEWS = 10
CODE_EPOCHS = {"ssv2": 91}  # 60,000 steps of 256 of 168,913 videos
VIDEOPRISM = {"videoprism": (16, 288), "videoprism_8x252": (8, 252)}  # frames, and their height and width
# The miniatures' own: one clip of the whole film, as the encoder takes it, and whether order tells the classes.
MINI: dict[str, Any] = {
    "views": Views("uniform"),
    "settings": {"epochs": 60, "batch_size": 32, "lr": 1e-3},
    "controls": ("shuffled",),
}


def prescribed(name: Name, benchmark: str) -> dict[str, Any]:
    """What a protocol says of a benchmark: `protocol`, `views`, `augment` and `settings` of `evalkit.api.Task`.

    Args:
        name: of the protocol.
        benchmark: a key of `VIDEOGLUE`.

    Raises:
        UserError: the protocol needs what evalkit does not have.
    """
    if name == "vjepa2":
        raise UserError(
            "data.protocol=vjepa2 is a classifier of four blocks, which adapter=probe is not; use videoglue, "
            "videoglue_code, videoprism or videoprism_8x252"
        )
    views, epochs, flip, settings = VIDEOGLUE[benchmark]
    if name in VIDEOPRISM:
        frames, size = VIDEOPRISM[name]
        views = replace(views, frames=frames, size=size)
    if name == "videoglue_code":
        epochs = CODE_EPOCHS.get(benchmark, epochs)
    return {
        "protocol": name,
        "views": views,
        "augment": Augment(views=min(VIEWS, epochs), flip=flip),
        "settings": {**PROBE, "epochs": epochs, **settings},
    }


def classification(
    benchmark: str, found: Labelled, name: Name, mini: bool, score: Score = top1_top5, **facts: Any
) -> Task:
    """A task with classes by a protocol, or on the miniature's own terms.

    Args:
        benchmark: a key of `VIDEOGLUE`.
        found: the examples.
        name: of the protocol.
        mini: the examples are the miniature's: no published number is about them, and no protocol was made for them.
        score: of several classes per example where it is not the accuracy.
        facts: other fields of the task, of the benchmark itself.
    """
    several = [example.target for example in found.test if isinstance(example.target, tuple)]
    if mini:
        facts |= {"split": "mini", "sizes": {}, "licence": "generated (Apache-2.0)", **MINI}
    else:
        metric = "mAP" if several else "top1"
        facts |= {"published": published.rows(benchmark, metric, "frozen"), **prescribed(name, benchmark)}
    return Task(
        train=found.train,
        test=found.test,
        classes=found.classes,
        provide=found.provide,
        score=score,
        chance=chance_map(several, empty=score is not charades_map) if several else 100 / len(found.classes),
        **facts,
    )
