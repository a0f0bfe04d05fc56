"""MSR-VTT: videos of ten to thirty seconds from the web and their captions (CVPR 2016)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from evalkit.api import Task, Views
from evalkit.datasets import caption_files
from evalkit.datasets.caption_files import MSRVTT_DATA
from evalkit.datasets.captions import CaptionedVideo, CaptionSplits, clean_text, retrieval_task
from evalkit.datasets.files import find_file, parsing_errors_at, read_table
from evalkit.datasets.videos import find_videos, video_file
from evalkit.mini import captions

ADAPTER = "retrieval"

# VideoPrism (https://arxiv.org/abs/2402.13217), tables 3 and 18: zero-shot, R@1 of texts that search videos.
PUBLISHED = {
    "1k-A": {"CLIP-L": 35.0, "InternVideo-L": 40.7, "UMT-L": 42.6, "VideoCoCa-g": 43.9}
    | {"VideoPrism-B": 51.4, "VideoPrism-g": 52.7},
    "full": {"CLIP-B": 23.3, "CoCa-g": 30.0, "VideoCoCa-g": 34.3, "VideoPrism-B": 37.0, "VideoPrism-g": 39.7},
}

SIZES = {"1k-A": {"train": 180_000, "test": 1_000}, "full": {"train": 130_260, "val": 9_940, "test": 59_800}}


DATA = replace(
    MSRVTT_DATA,
    sizes=SIZES["1k-A"],
    files={
        "MSRVTT_JSFUSION_test.csv": "columns key, vid_key, video_id, sentence: the 1,000 of 1k-A",
        "MSRVTT_train.9k.csv": "column video_id: what goes with 1k-A to train on; may be missing",
        **MSRVTT_DATA.files,
    },
)


def task(root: Path = Path("data/msrvtt"), mini: bool = False, split: Literal["1k-A", "full"] = "1k-A") -> Task:
    """Retrieves videos of MSR-VTT by caption, and captions by video.

    Files: MSRVTT_JSFUSION_test.csv (1,000 videos, one caption each) for 1k-A; MSRVTT_data.json (videos with their
    split, and sentences) for full and, with MSRVTT_train.9k.csv, for training on the 9,000 videos that go with 1k-A;
    without these two there is no train split. The videos as <video_id>.mp4 in any folder there. The papers' numbers
    are of either split and far apart; VideoPrism's appendix and LongViViT
    (https://arxiv.org/abs/2312.07395, table 2) use the full one.

    Args:
        root: folder with the files and the videos.
        mini: three-minute films of the mini world; with two captions each where the split is full.
        split: 1k-A, or full: 2,990 videos with twenty captions each, of which a video's best counts.
    """
    if mini:
        splits = captions.several() if split == "full" else captions.whole()
    else:
        splits = caption_files.msrvtt(root) if split == "full" else _one_k_a(root)
    return retrieval_task(
        splits,
        mini,
        views=Views("uniform"),
        split=split,
        sizes=SIZES[split],
        license=DATA.license,
        source=DATA.source,
        published=PUBLISHED[split],
    )


def _one_k_a(root: Path) -> CaptionSplits:
    file = find_file(root, "MSRVTT_JSFUSION_test.csv")
    videos = find_videos(root)
    test = []
    for where, row in read_table(file, ("key", "vid_key", "video_id", "sentence")):
        with parsing_errors_at(where):
            name = row["video_id"]
            test.append(CaptionedVideo(name, video_file(videos, root / "videos", name), [clean_text(row["sentence"])]))
    if not all((root / name).is_file() for name in ("MSRVTT_data.json", "MSRVTT_train.9k.csv")):
        return CaptionSplits(test)
    full = caption_files.msrvtt(root)
    by_name = {video.name: video for video in (*full.train, *full.val, *full.test)}
    train = []
    for where, row in read_table(root / "MSRVTT_train.9k.csv", ("video_id",)):
        with parsing_errors_at(where):
            train.append(by_name[row["video_id"]])
    return CaptionSplits(test, train)
