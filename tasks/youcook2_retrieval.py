"""YouCook2 retrieval: steps of recipes by their sentences (https://arxiv.org/abs/1703.09788)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.api import Task, Views
from evalkit.datasets.caption_files import YOUCOOK2_DATA, youcook2
from evalkit.datasets.captions import retrieval_task
from evalkit.mini import captions

ADAPTER = "retrieval"


DATA = replace(
    YOUCOOK2_DATA,
    sizes={"train": 10_337, "test": 3_492},
)


def task(root: Path = Path("data/youcook2"), mini: bool = False) -> Task:
    """Retrieves the clip of a recipe step by its sentence, and the sentence by clip.

    Files: youcookii_annotations_trainval.json as published, or yc2_train.json and yc2_val.json as dense captioning has
    them, and the videos as <id>.mp4 or v_<id>.mp4 in any folder there. The clips are the annotated segments of val:
    3,492, of which the papers, whose lists are not published, have 3,300 to 3,500.

    Args:
        root: folder with the files and the videos.
        mini: the halves of generated three-minute films, each with a sentence.
    """
    return retrieval_task(
        captions.parts() if mini else youcook2(root).segments(),
        mini,
        views=Views("uniform"),
        split="val",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
        # LongViViT (https://arxiv.org/abs/2312.07395), table 2: zero-shot, R@1 of texts that search clips.
        published={"VideoCoCa-L": 18.9, "ImageViT-L": 18.2, "ShortViViT-L": 20.4},
    )
