"""Text-video retrieval on your own videos: a csv `path,caption[,split]`."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from evalkit.api import Data, Task, Views
from evalkit.datasets.captions import CaptionedVideo, CaptionSplits, retrieval_task
from evalkit.datasets.files import SPLIT_OF, read_table
from evalkit.datasets.videos import listed_video
from evalkit.errors import UserError
from evalkit.mini import captions

logger = logging.getLogger("evalkit")

ADAPTER = "retrieval"
SPLITS = ("test", "train", "val")


DATA = Data(
    source="your own",
    license="your own",
    files={
        "captions.csv": "path,caption[,split], a row for each caption, paths relative to it; data.root= names the file",
    },
)


def task(root: Path = Path("data/captions.csv"), mini: bool = False) -> Task:
    """Retrieves your own videos by caption, and captions by video: a csv `path,caption[,split]`.

    Paths are relative to the csv's folder; a video with several captions has a row for each. `split` is train, val or
    test; without it everything is test. Frames are sampled uniformly from the whole video.

    Args:
        root: the csv.
        mini: generated three-minute films with two captions each.
    """
    return retrieval_task(
        captions.several() if mini else _read(root),
        mini,
        views=Views("uniform"),
        split="test",
        license=DATA.license,
        source="evalkit.mini" if mini else DATA.source,
    )


def _read(file: Path) -> CaptionSplits:
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise UserError(f"data.root={file} {what}: wanted a csv path,caption[,split]")
    texts: dict[str, list[str]] = {}
    videos: dict[str, Path] = {}
    split_of: dict[str, str] = {}
    given: set[bool] = set()
    repeated: list[str] = []  # rows of which an earlier one has video and caption
    named: dict[str, str] = {}  # a file may be named in several ways, such as a.mp4 and ./a.mp4
    for where, row in read_table(file, ("path", "caption"), optional=("split",)):
        path, caption, word = row["path"].strip(), row["caption"].strip(), row.get("split", "").strip()
        split = SPLIT_OF.get(word.casefold() or "test", "")
        if not split:
            raise UserError(f"{where}: split is {word!r}; wanted train, val or test")
        if not path or not caption:
            raise UserError(f"{where}: path or caption is empty")
        video = listed_video(file.parent, path)
        path = named.setdefault(os.path.realpath(video), path)
        if split_of.setdefault(path, split) != split:
            raise UserError(f"{where}: {path} is in {split_of[path]} already")
        given.add(bool(word))
        if len(given) > 1:
            raise UserError(f"{where}: some rows have a split and some have none; give all or none")
        if caption in texts.setdefault(path, []):
            repeated.append(f"{where}: {path}")
        texts[path].append(caption)
        videos[path] = video
    if repeated:
        logger.warning(
            f"{len(repeated):,} rows repeat a caption of the same video, first {repeated[0]}; each is a query of its "
            "own, as in MSR-VTT: remove them if that is not meant"
        )
    test, train, val = (
        [
            CaptionedVideo(path, videos[path], captions_of)
            for path, captions_of in texts.items()
            if split_of[path] == split
        ]
        for split in SPLITS
    )
    return CaptionSplits(test, train, val)
