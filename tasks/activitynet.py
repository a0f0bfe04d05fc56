"""ActivityNet Captions: two-minute videos, each with a paragraph (https://arxiv.org/abs/1705.00754)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from evalkit.api import Task, Views
from evalkit.datasets import caption_files
from evalkit.datasets.caption_files import ACTIVITYNET_CAPTIONS_DATA
from evalkit.datasets.captions import retrieval_task
from evalkit.mini import captions

ADAPTER = "retrieval"


DATA = replace(
    ACTIVITYNET_CAPTIONS_DATA,
    sizes={"train": 10_009, "test": 4_917},
)


def task(
    root: Path = Path("data/activitynet"),
    mini: bool = False,
    split: Literal["val_1", "val_2"] = "val_1",
    frames: Literal["uniform", "first"] = "uniform",
) -> Task:
    """Retrieves videos by paragraph descriptions, and paragraphs by video.

    Files as published: val_1.json, val_2.json (two annotators' sentences), train.json, without which there is no train
    split, and the videos as v_<id>.mp4 in any folder there. VideoPrism does not say which of the two it searches; val_1
    (4,917 videos) is what most papers on paragraphs use.

    Args:
        root: folder with the files and the videos.
        mini: generated three-minute films with paragraphs about their six steps.
        split: val_1 or val_2.
        frames: uniform takes them over the whole video, as most papers do; first takes one a second from its start, as
            LongViViT (https://arxiv.org/abs/2312.07395).
    """
    return retrieval_task(
        captions.whole() if mini else caption_files.activitynet(root, split).paragraphs(),
        mini,
        views=Views("fps", fps=1.0) if frames == "first" else Views("uniform"),
        split=split,
        sizes=DATA.sizes if split == "val_1" else {**DATA.sizes, "test": 4_885},
        license=DATA.license,
        source=DATA.source,
        published=PUBLISHED[frames],
    )


# R@1 of texts that search videos, zero-shot: VideoPrism (https://arxiv.org/abs/2402.13217), table 3; LongViViT, 2.
PUBLISHED = {
    "uniform": {"CLIP-L": 25.2, "InternVideo-L": 30.7, "VideoCoCa-g": 34.5, "UMT-L": 42.8}
    | {"VideoPrism-B": 49.6, "VideoPrism-g": 52.7},
    "first": {"ImageViT-L": 20.6, "ShortViViT-L": 21.3, "EffShortViViT-L": 20.1},
}
