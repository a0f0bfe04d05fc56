"""YouCook2: sentences for the steps of a recipe (https://arxiv.org/abs/1703.09788)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.api import Task
from evalkit.datasets import published
from evalkit.datasets.caption_files import YOUCOOK2_DATA, youcook2
from evalkit.datasets.captions import captioning_task
from evalkit.mini import captions

ADAPTER = "captioner"


DATA = replace(
    YOUCOOK2_DATA,
    sizes={"train": 10_337, "test": 3_492},
    needs={"captions": "data.meteor=true"},
)


def task(root: Path = Path("data/youcook2"), mini: bool = False, meteor: bool = False) -> Task:
    """Captions each step of a recipe in a sentence, from the step's segment of the video.

    Files: youcookii_annotations_trainval.json as published, or yc2_train.json and yc2_val.json as dense captioning has
    them, and the videos as <id>.mp4 or v_<id>.mp4 in any folder there. Test captions are not public: val's 3,492
    segments are told, from frames uniformly over each, and training's learned from. CIDEr is pycocoevalcap's, with the
    document frequencies of all of val.

    Args:
        root: folder with the files and the videos.
        mini: the steps of generated three-minute films.
        meteor: also score METEOR, which needs video-evalkit[captions].
    """
    splits = captions.steps() if mini else youcook2(root)
    return captioning_task(
        splits.segments(),
        meteor,
        mini,
        split="val",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
        published=published.rows("youcook2", "CIDEr", "fine-tuned"),
    )
