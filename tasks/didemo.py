"""DiDeMo: Flickr videos and descriptions of their moments (https://arxiv.org/abs/1708.01641)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Data, Task, Views
from evalkit.datasets.captions import CaptionedVideo, CaptionSplits, clean_text, retrieval_task
from evalkit.datasets.files import find_file, parsing_errors_at, read_json, video_name
from evalkit.datasets.videos import Videos, find_videos, video_file
from evalkit.mini import captions

ADAPTER = "retrieval"
SECONDS = 30.0


DATA = Data(
    source="https://github.com/LisaAnne/LocalizingMoments",
    license="BSD-2-Clause (annotations)",
    files={
        "test_data.json": "[{video, description, ...}]",
        "train_data.json": "the same; may be missing, then nothing is trained",
        "val_data.json": "the same",
        "videos/NAME.mp4": "the videos, in any folder there, NAME as `video`; any ending",
    },
    sizes={"train": 8_395, "val": 1_065, "test": 1_004},
    vanished="the videos are Flickr's; the files do not say how many are left",
)


def task(root: Path = Path("data/didemo"), mini: bool = False) -> Task:
    """Retrieves videos by a paragraph of all their moment descriptions, and paragraphs by video.

    Files as published: test_data.json and, without which there is no such split, train_data.json and val_data.json
    (lists of {video, description}), and the videos by the names that stand there, whatever their ending, in any folder.
    Descriptions are joined in the order of the file. Annotators saw the first 30 seconds: of a longer file nothing
    else is shown.

    Args:
        root: folder with the files and the videos.
        mini: generated three-minute films with paragraphs about their six steps.
    """
    return retrieval_task(
        captions.whole() if mini else _read(root),
        mini,
        views=Views("uniform"),
        split="test",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )


def _read(root: Path) -> CaptionSplits:
    find_file(root, "test_data.json")
    videos = find_videos(root)
    files = [root / f"{split}_data.json" for split in ("test", "train", "val")]
    test, train, val = (_paragraphs(file, videos) if file.is_file() else [] for file in files)
    return CaptionSplits(test, train, val if train else [])


def _paragraphs(file: Path, videos: Videos) -> list[CaptionedVideo]:
    descriptions: dict[str, list[str]] = {}
    for number, entry in enumerate(read_json(file, list), 1):
        with parsing_errors_at(f"{file}, entry {number}"):
            descriptions.setdefault(video_name(entry["video"]), []).append(clean_text(entry["description"]))
    captioned = []
    for name, texts in descriptions.items():
        path = video_file(videos, file.parent / "videos", Path(name).stem)
        captioned.append(CaptionedVideo(name, path, [" ".join(texts)], (0.0, SECONDS) if _longer(path) else None))
    return captioned


def _longer(path: Path) -> bool:
    """Whether the file is longer than what annotators saw; an unreadable file fails later, when it is decoded."""
    import av

    try:
        with av.open(str(path)) as container:
            return (container.duration or 0) / av.time_base > SECONDS
    except (OSError, av.FFmpegError):
        return False
