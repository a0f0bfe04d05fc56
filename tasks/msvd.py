"""MSVD: short clips from YouTube and some forty captions of each (https://aclanthology.org/P11-1020)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from evalkit.api import Data, Task, Views
from evalkit.datasets import published
from evalkit.datasets.captions import CaptionedVideo, CaptionSplits, clean_text, retrieval_task
from evalkit.datasets.files import find_file, parsing_errors_at, read_lines
from evalkit.datasets.videos import find_videos, video_file
from evalkit.errors import counted
from evalkit.mini import captions

logger = logging.getLogger("evalkit")

ADAPTER = "retrieval"
VIDEOS = {"test": 670, "train": 1_200, "val": 100}


DATA = Data(
    source="https://www.cs.utexas.edu/~ml/clamp/videoDescription",
    license="the data set's own",
    files={
        "AllVideoDescriptions.txt": "lines `NAME_START_END sentence`",
        "test_list.txt": "a clip's name a line, 670",
        "train_list.txt": "the same, 1,200; may be missing",
        "val_list.txt": "the same, 100; may be missing",
        "videos/NAME.avi": "the clips, in any folder there",
    },
)


def task(root: Path = Path("data/msvd"), mini: bool = False) -> Task:
    """Retrieves clips by each of their captions, and captions by clip, counting the best of a clip.

    Files as published: AllVideoDescriptions.txt (`NAME_START_END sentence`), the lists test_list.txt (670 clips) and,
    without which there is no such split, train_list.txt and val_list.txt, and the clips as <name>.avi in any folder
    there. raw-captions.pkl of CLIP4Clip is not read, since a pickle can run code.

    Args:
        root: folder with the files and the clips.
        mini: generated three-minute films with two captions each.
    """
    return retrieval_task(
        captions.several() if mini else _read(root),
        mini,
        views=Views("uniform"),
        split="test",
        license=DATA.license,
        published=published.rows("msvd", "t2v_R@1", "zero-shot"),
        source=DATA.source,
    )


def _read(root: Path) -> CaptionSplits:
    find_file(root, "test_list.txt")
    sentences: dict[str, list[str]] = {}
    for where, line in read_lines(find_file(root, "AllVideoDescriptions.txt")):
        if not line.startswith("#"):
            with parsing_errors_at(where):
                name, sentence = line.split(maxsplit=1)
                sentences.setdefault(name, []).append(clean_text(sentence))
    splits = {split: _captioned(root, split, sentences) for split in VIDEOS}
    return CaptionSplits(splits["test"], splits["train"], splits["val"] if splits["train"] else [])


def _captioned(root: Path, split: str, sentences: Mapping[str, list[str]]) -> list[CaptionedVideo]:
    """The clips of a split's list, with their captions; none where there is no list."""
    file = root / f"{split}_list.txt"
    if not file.is_file():
        return []
    videos = find_videos(root)
    captioned = {}
    for where, name in read_lines(file):
        with parsing_errors_at(where):
            path = video_file(videos, root / "YouTubeClips", name, ".avi")
            captioned[name] = CaptionedVideo(name, path, sentences[name])
    if len(captioned) != VIDEOS[split]:
        logger.warning(f"{file}: {counted(len(captioned), 'clip')}; published: {VIDEOS[split]:,}")
    return list(captioned.values())
