"""Classification protocols of the papers: frames, views, augmentation and training, by name.

`videoglue`, the default, is VideoGLUE's protocol in tables 10 to 12 of https://arxiv.org/abs/2307.03166; VideoPrism
prints the same epochs and views. `videoglue_code` follows the released configurations for frozen encoders
(https://github.com/tensorflow/models/tree/master/official/projects/videoglue) where they differ: SSv2 is trained for
60,000 steps (91 epochs), and Charades is divided into clips and scored by PR-AUC. Neither includes RandAugment, MixUp
and CutMix, which table 10 lists for Kinetics-400 and SSv2 but the code only uses for fine-tuning, nor Diving48's
additional L2 penalty of 5e-5. Both are tested on 224-pixel crops of a shorter side of 256, as in the code; the papers
do not state the size before the crop. The papers search learning rate and weight decay, starting from the values here,
in 4e-5 to 2.5e-3 and 1e-6 to 1e-4.

`videoprism` and `videoprism_8x252` (with as many FLOPs as VideoGLUE) are VideoPrism's: `videoglue` with frames of 288
and 252 pixels (https://arxiv.org/abs/2402.13217, appendix E.1). The step between the 8 frames is not stated, so it is
VideoGLUE's; so is the crop share.

`videoglue_finetune` is VideoGLUE's end-to-end fine-tuning, for adapter=finetune. Its augmentation is table 10's, with
RandAugment, MixUp and CutMix for Kinetics-400 and SSv2. It omits the code's stochastic depth of 0.2 and its strong
augmentation of Charades, which is not in table 10.

`vjepa2` is V-JEPA 2's attentive classifier, for adapter=attentive_classifier, as in its configurations for ViT-L
(https://github.com/facebookresearch/vjepa2/tree/main/configs/eval/vitl), with frames of the encoder's own size (256
pixels there). Its grid is lr 1e-4, 3e-4, 1e-3, 3e-3, 5e-3 by weight_decay 0.01, 0.1, 0.4, 0.8 (Diving48 and Jester: lr
1e-4, 3e-4, 1e-3, weight_decay 0.8; ImageNet: lr 5e-4, 1e-3, 2e-3, weight_decay 5e-4, 1e-3, 2e-3, 4e-3, 8e-3). For
ViT-g, SSv2 uses 64 frames with a stride of 2 (clip.frames=64 clip.stride=2), and Diving48 other layers
(adapter.layers=[24,29,34,39]). For encoders other than V-JEPA 2, use the last layers: adapter.layers=4. Differences
from its code: RandAugment, random erasing and warm-up are omitted; 16 frames are every fourth of 64, while the code
spreads them so that the last of the 64 is included; and test clips are evenly spaced, while the code draws each within
its part of the video.

`mveb` is the leaderboard of that name (https://github.com/embeddings-benchmark/mteb at a905523d0), for
adapter=logistic: eight training examples per class, drawn by the seed; the encoder's number of frames, by `leading`
sampling; one vector per video, the mean token if the encoder has no pooled vector; scikit-learn's LogisticRegression
with C=1. Its score is the mean of ten draws: `evalkit sweep ... seed=0,1,2,3,4,5,6,7,8,9`, whose runs share a cell of
the leaderboard. MVEB draws other examples, and stops after 100 iterations, while evalkit continues to the optimum.
MVEB uses subsets: the 51 classes with sound of UCF101's split 1, HMDB51's split 1, all of Diving48 version 2, and
3,973 and 3,995 clips of Kinetics-400, whose list is not published: `data.subset=FILE`. For SSv2, Kinetics-600 and
Kinetics-700 it cross-validates within a part of the test split, which is not supported.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from evalkit.api import Augment, Score, Task, Views
from evalkit.datasets import published
from evalkit.datasets.files import LabeledSplits
from evalkit.datasets.miniature import miniature
from evalkit.errors import UserError
from evalkit.metrics.average_precision import chance_map, charades_map
from evalkit.metrics.classification import top1_top5

Name = Literal["videoglue", "videoglue_code", "videoglue_finetune", "videoprism", "videoprism_8x252", "vjepa2", "mveb"]
Fold = Literal[1, 2, 3]  # of benchmarks with three official splits

DENSE_VIEWS = Views("dense", frames=16, stride=4, clips=4, crops=3, resize="crop", size=224, share=224 / 256)
# Adapter settings; the probe's own are as in VideoGLUE's code otherwise.
PROBE = {"batch_size": 256, "lr": 1e-4, "weight_decay": 1e-5, "dropout": 0.5, "label_smoothing": 0.1}
# By benchmark: views, epochs, whether training clips are mirrored, and what else its settings are.
VIDEOGLUE: dict[str, tuple[Views, int, bool, dict[str, Any]]] = {
    "kinetics400": (DENSE_VIEWS, 150, True, {}),
    "moments_in_time": (DENSE_VIEWS, 50, True, {}),
    "ssv2": (replace(DENSE_VIEWS, sampling="segments", stride=1, clips=1), 50, False, {}),
    "diving48": (DENSE_VIEWS, 100, True, {}),
    # Every frame of a source of six frames a second; the code's loss of several classes knows no smoothing.
    "charades": (replace(DENSE_VIEWS, sampling="fps", fps=6.0, stride=1), 50, False, {"label_smoothing": 0.0}),
}
# Benchmarks of none of the papers: as the one that is most like them.
VIDEOGLUE |= dict.fromkeys(("kinetics600", "kinetics700", "ucf101", "hmdb51", "coin"), VIDEOGLUE["kinetics400"])
VIDEOGLUE |= dict.fromkeys(("jester", "sthv1"), VIDEOGLUE["ssv2"])  # left is another class than right
VIDEOGLUE["epic_kitchens"] = (*VIDEOGLUE["ssv2"][:3], {"label_smoothing": 0.0})  # a verb and a noun
# Distinct augmented views of a training clip, each encoded once. The papers draw a new one in every epoch, which
# trainer.views=150 does for Kinetics-400, at fifteen times the cost.
TRAIN_VIEWS = 10
# Whose fine-tuning has RandAugment, MixUp and CutMix.
STRONG_AUGMENTATION = ("kinetics400", "kinetics600", "kinetics700", "ssv2", "sthv1")
CODE_EPOCHS = {"ssv2": 91}  # 60,000 steps of 256 of 168,913 videos
# V-JEPA 2's four seconds before an action.
ANTICIPATION = Views("fps", 32, fps=8.0, resize="crop")
# Views and adapter settings by benchmark; a training view is eight, two or four clips, as the classifier reads them.
VJEPA2: dict[str, tuple[Views, dict[str, Any]]] = {
    "kinetics400": (Views("dense", 16, stride=4, clips=8, crops=3, resize="crop"), {"epochs": 20, "batch_size": 256}),
    "ssv2": (Views("dense", 16, stride=4, clips=2, crops=3, resize="crop"), {"epochs": 20, "batch_size": 256}),
    "diving48": (
        Views("dense", 32, stride=2, clips=4, crops=3, resize="crop"),
        {"epochs": 100, "batch_size": 128, "layers": (17, 19, 21, 23), "weight_decay": 0.8},
    ),
    "epic_kitchens_anticipation": (
        ANTICIPATION,
        {"epochs": 20, "batch_size": 128, "weight_decay": 1e-4, "test_classes": True},
    ),
    # A still, shown in each of 16 frames.
    "imagenet": (
        Views("uniform", 16, resize="crop", share=224 / 256),
        {"epochs": 20, "batch_size": 1024, "weight_decay": 1e-3},
    ),
}
VJEPA2["jester"], VJEPA2["coin"] = VJEPA2["diving48"], (VJEPA2["kinetics400"][0], {"epochs": 20, "batch_size": 128})
VIDEOPRISM = {"videoprism": (16, 288), "videoprism_8x252": (8, 252)}  # frames, and their height and width
# Of each benchmark that MVEB has.
MVEB: dict[str, Any] = {
    "protocol": "mveb",
    "views": Views("leading"),
    "adapter": "logistic",
    "settings": {"c": 1.0, "standardize": False},
    "shots": 8,
}
MVEB_TASKS = ("kinetics400", "ucf101", "hmdb51", "diving48")
# Of the miniatures: one clip of the whole film with the encoder's own frames, and a control of the order.
MINI: dict[str, Any] = {
    "views": Views("uniform"),
    "settings": {"epochs": 60, "batch_size": 32, "lr": 1e-3},
    "controls": ("shuffled",),
}


def prescribed(name: Name, benchmark: str) -> dict[str, Any]:
    """The fields of `evalkit.api.Task` that a protocol prescribes for a benchmark.

    Args:
        name: of the protocol.
        benchmark: a key of `VIDEOGLUE`.

    Raises:
        UserError: the protocol does not cover the benchmark.
    """
    if name == "vjepa2":
        return _vjepa2(benchmark)
    if name == "mveb":
        return _mveb(benchmark)
    (views, epochs, flip, settings), tuned = VIDEOGLUE[benchmark], name == "videoglue_finetune"
    if name in VIDEOPRISM:
        frames, size = VIDEOPRISM[name]
        views = replace(views, frames=frames, size=size)
    if name == "videoglue_code":
        epochs = CODE_EPOCHS.get(benchmark, epochs)
    augment = Augment(views=min(TRAIN_VIEWS, epochs), flip=flip)
    if tuned and benchmark in STRONG_AUGMENTATION:
        augment, settings = replace(augment, randaugment=(9.0, 0.5)), {**settings, "mixup": 0.8, "cutmix": 1.0}
    return {
        "protocol": name,
        "views": views,
        "augment": augment,
        "adapter": "finetune" if tuned else "",
        "settings": {**PROBE, "epochs": epochs, **settings},
    }


def _vjepa2(benchmark: str) -> dict[str, Any]:
    if benchmark not in VJEPA2:
        raise UserError(
            f"data.protocol=vjepa2 does not cover {benchmark}, only {', '.join(VJEPA2)}; use another, such as videoglue"
        )
    views, settings = VJEPA2[benchmark]
    augment = Augment(
        min(TRAIN_VIEWS, settings["epochs"]),
        area=(0.08, 1.0),
        aspect=(3 / 4, 4 / 3),
        flip=benchmark == "imagenet",
        all_clips=True,
    )
    settings = {"heads": 16, "blocks": 4, "lr": 1e-3, "weight_decay": 0.01, **settings}
    return {
        "protocol": "vjepa2",
        "views": views,
        "augment": augment,
        "adapter": "attentive_classifier",
        "settings": settings,
    }


def _mveb(benchmark: str) -> dict[str, Any]:
    if benchmark not in MVEB_TASKS:
        raise UserError(
            f"data.protocol=mveb is not available for {benchmark}, only for {', '.join(MVEB_TASKS)}: MVEB does not "
            "have it, or cross-validates within a part of its test split; use another, such as videoglue"
        )
    return MVEB


def check_fold(name: Name, fold: int) -> None:
    """Checks that the protocol has this official split.

    Raises:
        UserError: it is mveb, which has the first alone.
    """
    if name == "mveb" and fold != 1:
        raise UserError(f"data.fold={fold}: data.protocol=mveb has split 1 alone; leave data.fold out")


def classification(
    benchmark: str, splits: LabeledSplits, name: Name, mini: bool, score: Score = top1_top5, **facts: Any
) -> Task:
    """A classification task by a protocol, or as a miniature.

    Args:
        benchmark: a key of `VIDEOGLUE`.
        splits: the examples.
        name: of the protocol.
        mini: the examples are the miniature's, whose protocol is `MINI`, or mveb.
        score: top-1 and top-5 accuracy, or a score of several classes per example.
        facts: other fields of `evalkit.api.Task`.
    """
    several = [example.target for example in splits.test if isinstance(example.target, tuple)]
    if mini:
        facts = miniature(facts) | MINI | (_mveb(benchmark) if name == "mveb" else {})
    else:
        metric = "mAP" if several else "top1"
        fields = prescribed(name, benchmark)
        adaptation = "finetune" if fields["adapter"] == "finetune" else "frozen"
        facts |= {"published": published.rows(benchmark, metric, adaptation, protocol=name), **fields}
    return Task(
        train=splits.train,
        test=splits.test,
        classes=splits.classes,
        class_texts=splits.texts,
        prepare_videos=splits.prepare_videos,
        score=score,
        chance=chance_map(several, empty=score is not charades_map) if several else 100 / len(splits.classes),
        **facts,
    )
