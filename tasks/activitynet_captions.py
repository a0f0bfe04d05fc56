"""ActivityNet Captions: segments of everyday videos with sentences (https://arxiv.org/abs/1705.00754)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from evalkit.api import Task, Views
from evalkit.datasets import published
from evalkit.datasets.caption_files import ACTIVITYNET_CAPTIONS_DATA, activitynet
from evalkit.datasets.captions import FrameSampling, SegmentSplits, captioning_task, paragraph_task
from evalkit.datasets.dense_captions import dense_captioning_task
from evalkit.errors import UserError
from evalkit.mini import captions

ADAPTER = "captioner"
SIZES = {
    "segments": {"train": 37_421, "test": 17_505},
    "paragraph": {"train": 10_009, "test": 4_917},
    "dense": {"train": 37_421, "test": 17_505},
}
UNTOLD = 32  # videos of val_1 that val_2 as published does not have
# Of LongViViT, which tells no dense captions.
PUBLISHED = {"segments": "CIDEr", "paragraph": "ROUGE-L"}


DATA = replace(
    ACTIVITYNET_CAPTIONS_DATA,
    sizes=SIZES["segments"],
    needs={"captions": "data.meteor=true"},
)


def task(
    root: Path = Path("data/activitynet"),
    mini: bool = False,
    what: Literal["segments", "paragraph", "dense"] = "segments",
    frames: FrameSampling = "first",
    segments: str = "given",
    meteor: bool = False,
) -> Task:
    """Captions the segments of a video in sentences, or the whole video in a paragraph.

    Files as published: val_1.json, val_2.json (the same videos, told by another person), train.json, and the videos as
    v_<id>.mp4 in any folder there. Segments are those of val_1, each with its one sentence; paragraphs and dense
    captions are compared with both files, where a video is in both. Papers on paragraphs divide these videos into
    ae-val (2,460) and ae-test (2,457), whose lists are not published with the data: here they are all 4,917 of val_1.
    Which of them LongViViT (https://arxiv.org/abs/2312.07395) tells, it does not say.

    Args:
        root: folder with the files and the videos.
        mini: generated three-minute films of six steps.
        what: segments by themselves, with CIDEr; one paragraph, with ROUGE-L; or dense, the segments of a video
            together, by densevid_eval's rule of 2018.
        frames: of a paragraph: first takes 256 at one a second from the start, uniform 256 over the whole video.
        segments: of dense: given, even, or a .json file of proposals, as tasks/youcook2_dense.py has them.
        meteor: score METEOR, too, and SODA_c of dense, which needs video-evalkit[captions].
    """
    if what != "dense" and segments != "given":
        raise UserError(f"data.segments={segments} has no effect with data.what={what}: it is for dense")
    if what != "paragraph" and frames != "first":
        raise UserError(f"data.frames={frames} has no effect with data.what={what}: it is for paragraph")
    facts: dict[str, Any] = {
        "split": "val_1",
        "sizes": SIZES[what] if segments == "given" else {"train": SIZES[what]["train"]},
        "license": DATA.license,
        "source": DATA.source,
        "published": {} if what == "dense" else published.rows("activitynet_captions", PUBLISHED[what], "fine-tuned"),
    }
    if what == "paragraph":
        whole = captions.whole() if mini else _told_twice(root).paragraphs()
        return paragraph_task(whole, frames, meteor, mini, protocol=what, **facts)
    if what == "dense":
        splits = captions.steps() if mini else _told_twice(root)
        return dense_captioning_task(splits, segments, meteor, mini, views=Views("uniform"), **facts)
    splits = captions.steps() if mini else activitynet(root, "val_1", "val_2")
    return captioning_task(splits.segments(), meteor, mini, protocol=what, **facts)


def _told_twice(root: Path) -> SegmentSplits:
    """The videos of val_1 with the segments of val_2, which is checked to have as many of them as published."""
    splits = activitynet(root, "val_1", "val_2")
    if len(untold := [video.name for video in splits.test if not video.others]) > UNTOLD:
        raise UserError(
            f"{root / 'val_2.json'}: {len(untold)} of the {len(splits.test)} videos of val_1.json are missing, first "
            f"{untold[0]}; as published {UNTOLD} are: download the file again"
        )
    return splits
