"""DiDeMo: Flickr videos and descriptions of their moments (https://arxiv.org/abs/1708.01641)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evalkit.api import Task, Views
from evalkit.datasets.captions import CaptionedVideo, CaptionSplits, caption, retrieval_task
from evalkit.datasets.files import error_context, find_videos, first_existing, read_json, video_file
from evalkit.mini import captions

ADAPTER = "retrieval"
SECONDS = 30.0


def task(root: Path = Path("data/didemo"), mini: bool = False) -> Task:
    """Finds a video by all descriptions of its moments in one paragraph, and the paragraph by the video.

    Files as published: test_data.json and, without which there is no such split, train_data.json and val_data.json
    (lists of {video, description}), and the videos by the names that stand there, whatever their ending, in any folder.
    Descriptions are joined in the order of the file. Annotators saw the first 30 seconds: of a longer file nothing
    else is shown.

    Args:
        root: folder with the files and the videos.
        mini: three-minute films of the mini world; a paragraph tells their six steps.
    """
    return retrieval_task(
        captions.whole() if mini else _read(root),
        views=Views("uniform"),
        split="mini" if mini else "test",
        sizes={} if mini else {"train": 8_395, "val": 1_065, "test": 1_004},
        license="generated (Apache-2.0)" if mini else "BSD-2-Clause (annotations)",
        source="https://github.com/LisaAnne/LocalizingMoments",
    )


def _read(root: Path) -> CaptionSplits:
    first_existing(root, "test_data.json")
    videos = find_videos(root)
    files = [root / f"{split}_data.json" for split in ("test", "train", "val")]
    test, train, val = (_paragraphs(file, videos) if file.is_file() else [] for file in files)
    return CaptionSplits(test, train, val if train else [])


def _paragraphs(file: Path, videos: Mapping[str, Path]) -> list[CaptionedVideo]:
    said: dict[str, list[str]] = {}
    for number, entry in enumerate(read_json(file, list), 1):
        with error_context(f"{file}, entry {number}"):
            said.setdefault(entry["video"], []).append(caption(entry["description"]))
    found = []
    for name, texts in said.items():
        path = video_file(videos, file.parent / "videos", Path(name).stem)
        found.append(CaptionedVideo(name, path, [" ".join(texts)], (0.0, SECONDS) if _longer(path) else None))
    return found


def _longer(path: Path) -> bool:
    """Whether a file says that it is longer than what was described; what cannot be read is told when it is decoded."""
    import av

    try:
        with av.open(str(path)) as container:
            return (container.duration or 0) / av.time_base > SECONDS
    except (OSError, av.FFmpegError):
        return False
