"""VATEX: ten-second clips of Kinetics-600 with ten English captions each (https://arxiv.org/abs/1904.03493)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.api import Task, Views
from evalkit.datasets import caption_files
from evalkit.datasets.caption_files import VATEX_DATA
from evalkit.datasets.captions import retrieval_task
from evalkit.mini import captions

ADAPTER = "retrieval"


DATA = replace(
    VATEX_DATA,
    sizes={"train": 259_910, "val": 30_000, "test": 60_000},
)


def task(root: Path = Path("data/vatex"), mini: bool = False, test_list: str = "") -> Task:
    """Retrieves clips by English captions, ten for each clip, and captions by clip.

    Files as published: vatex_training_v1.0.json, vatex_validation_v1.0.json, vatex_public_test_english_v1.1.json (lists
    of {videoID, enCap}), and the clips as <videoID>.mp4 in any folder there; without a file of training there is no
    train split, without one of validation a tenth of train is chosen on. Neither VideoPrism nor LongViViT says which
    clips it searches: the whole public test is what this does, and the 1,500 clips that text-video papers share are
    named by `test_list`.

    Args:
        root: folder with the files and the clips.
        mini: generated three-minute films with two captions each.
        test_list: a text file in that folder with the videoID of each clip that is searched, from any of the three
            files; empty means the whole public test.
    """
    return retrieval_task(
        captions.several() if mini else caption_files.vatex(root, test_list),
        mini,
        views=Views("uniform"),
        split=test_list or "test",
        sizes={} if test_list else DATA.sizes,
        license=DATA.license,
        source=DATA.source,
        published={"CLIP-L": 45.2, "InternVideo-L": 49.5, "VideoPrism-B": 57.7, "VideoPrism-g": 62.5},
    )
