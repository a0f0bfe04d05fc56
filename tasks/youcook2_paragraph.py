"""YouCook2 summaries: a whole recipe in one paragraph (https://arxiv.org/abs/1703.09788)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.api import Task
from evalkit.datasets import published
from evalkit.datasets.caption_files import YOUCOOK2_DATA, youcook2
from evalkit.datasets.captions import FrameSampling, paragraph_task
from evalkit.mini import captions

ADAPTER = "captioner"


DATA = replace(
    YOUCOOK2_DATA,
    sizes={"train": 1_333, "test": 457},
    needs={"captions": "data.meteor=true"},
    vanished="",
)


def task(
    root: Path = Path("data/youcook2"), mini: bool = False, frames: FrameSampling = "first", meteor: bool = False
) -> Task:
    """Summarizes a whole recipe in a paragraph, as LongViViT (https://arxiv.org/abs/2312.07395, table 3).

    Files as tasks/youcook2.py has them. The reference is the sentences of all steps, one paragraph per video. LongViViT
    sees 256 frames at one a second; six of ten videos are longer, and what it does with their rest, and which program
    its ROUGE-L is from, it does not say. Here it is of words of letters alone, as VLTinT's, whose row it prints.

    Args:
        root: folder with the files and the videos.
        mini: generated three-minute films with captions of their six steps in order.
        frames: first takes 256 at one a second from the start, uniform 256 over the whole video.
        meteor: also score METEOR, which needs video-evalkit[captions].
    """
    return paragraph_task(
        captions.whole() if mini else youcook2(root).paragraphs(),
        frames,
        meteor,
        mini,
        split="val",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
        published=published.rows("youcook2_paragraph", "ROUGE-L", "fine-tuned"),
    )
