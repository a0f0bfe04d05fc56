"""YouCook2 dense captioning: localizing and describing the steps of a recipe (https://arxiv.org/abs/1703.09788)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.api import Task, Views
from evalkit.datasets.caption_files import YOUCOOK2_DATA, youcook2
from evalkit.datasets.dense_captions import dense_captioning_task
from evalkit.mini import captions

ADAPTER = "captioner"


DATA = replace(
    YOUCOOK2_DATA,
    sizes={"train": 10_337, "test": 3_492},
    needs={"captions": "data.meteor=true"},
)


def task(root: Path = Path("data/youcook2"), mini: bool = False, segments: str = "given", meteor: bool = False) -> Task:
    """Captions the segments of each video, scored by densevid_eval's 2018 rules.

    Files as tasks/youcook2.py has them. An example is one segment, told from frames uniformly over it; training is on
    annotated segments. With given segments Recall and Precision say nothing of the model.

    Args:
        root: folder with the files and the videos.
        mini: generated three-minute films of six steps.
        segments: given, the annotated ones; even, each video in as many equal parts as training videos have on
            average; or a .json file of proposals, {"results": {video: [{"timestamp": [start, end]}, ...]}}.
        meteor: score METEOR and SODA_c, too, which needs video-evalkit[captions].
    """
    return dense_captioning_task(
        captions.steps() if mini else youcook2(root),
        segments,
        meteor,
        mini,
        views=Views("uniform"),
        split="val",
        sizes=DATA.sizes if segments == "given" else {"train": DATA.sizes["train"]},
        license=DATA.license,
        source=DATA.source,
    )
