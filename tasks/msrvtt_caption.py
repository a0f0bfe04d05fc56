"""MSR-VTT captioning: one sentence for a web video of ten to thirty seconds (CVPR 2016)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.api import Task
from evalkit.datasets import caption_files, published
from evalkit.datasets.caption_files import MSRVTT_DATA
from evalkit.datasets.captions import captioning_task
from evalkit.mini import captions

ADAPTER = "captioner"


DATA = replace(
    MSRVTT_DATA,
    sizes={"train": 6_513, "val": 497, "test": 2_990},
    needs={"captions": "data.meteor=true"},
)


def task(root: Path = Path("data/msrvtt"), mini: bool = False, meteor: bool = False) -> Task:
    """Captions each video of MSR-VTT in a sentence.

    Files: MSRVTT_data.json (videos with their split, and sentences), and the videos as <video_id>.mp4 in any folder
    there. Test is the official split, with twenty references of each video. CIDEr is
    pycocoevalcap's, with the document frequencies of the whole split.

    Args:
        root: folder with the files and the videos.
        mini: generated three-minute films with captions of their six steps in order.
        meteor: also score METEOR, which needs video-evalkit[captions].
    """
    return captioning_task(
        captions.whole() if mini else caption_files.msrvtt(root),
        meteor,
        mini,
        settings={"max_tokens": 100} if mini else {},
        split="test",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
        published=published.rows("msrvtt_caption", "CIDEr", "fine-tuned"),
    )
