"""VATEX captioning: one sentence for a ten-second clip of Kinetics-600 (https://arxiv.org/abs/1904.03493)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.api import Task
from evalkit.datasets import caption_files, published
from evalkit.datasets.caption_files import VATEX_DATA
from evalkit.datasets.captions import captioning_task
from evalkit.mini import captions

ADAPTER = "captioner"


DATA = replace(
    VATEX_DATA,
    sizes={"train": 25_991, "val": 3_000, "test": 6_000},
    needs={"captions": "data.meteor=true"},
)


def task(root: Path = Path("data/vatex"), mini: bool = False, meteor: bool = False) -> Task:
    """Captions each clip of VATEX in a sentence.

    Files as published: vatex_training_v1.0.json, vatex_validation_v1.0.json, vatex_public_test_english_v1.1.json, and
    the clips as <videoID>.mp4 in any folder there; without a file of training there is no train split, without one of
    validation a tenth of train is chosen on. Test is the public test, with ten English references of each clip. CIDEr
    is pycocoevalcap's, with the document frequencies of the whole split.

    Args:
        root: folder with the files and the clips.
        mini: generated three-minute films with captions of their six steps in order.
        meteor: also score METEOR, which needs video-evalkit[captions].
    """
    return captioning_task(
        captions.several() if mini else caption_files.vatex(root),
        meteor,
        mini,
        settings={"max_tokens": 100} if mini else {},
        split="test",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
        published=published.rows("vatex_caption", "CIDEr", "fine-tuned"),
    )
