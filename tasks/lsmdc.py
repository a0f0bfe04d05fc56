"""LSMDC: film clips with sentences from their audio description (https://arxiv.org/abs/1605.03705)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Data, Task, Views
from evalkit.datasets import published
from evalkit.datasets.captions import CaptionedVideo, CaptionSplits, clean_text, retrieval_task
from evalkit.datasets.files import find_file, parsing_errors_at, read_lines
from evalkit.datasets.videos import Videos, find_videos, video_file
from evalkit.mini import captions

ADAPTER = "retrieval"
COLUMNS = 6  # clip, four times of its start and end, sentence


DATA = Data(
    source="https://sites.google.com/site/describingmovies",
    license="the data set's own, research only",
    files={
        "LSMDC16_challenge_1000_publictect.csv": "six values with tabs between them: clip, four times, sentence; "
        "no header",
        "LSMDC16_annos_training.csv": "the same; may be missing, then nothing is trained",
        "LSMDC16_annos_val.csv": "the same; may be missing",
        "CLIP.avi": "the clips, in any folder there, such as 3009_BATTLE_LOS_ANGELES/",
    },
    sizes={"test": 1_000},
)


def task(root: Path = Path("data/lsmdc"), mini: bool = False) -> Task:
    """Retrieves 1,000 film clips by sentence, and sentences by clip.

    Files as published, their values separated by tabs: LSMDC16_challenge_1000_publictect.csv and, without which there
    is no such split, LSMDC16_annos_training.csv and LSMDC16_annos_val.csv; the clips as <clip>.avi in any folder there,
    such as 3009_BATTLE_LOS_ANGELES/.

    Args:
        root: folder with the files and the clips.
        mini: three-minute films of the mini world, one caption each.
    """
    return retrieval_task(
        captions.whole() if mini else _read(root),
        mini,
        views=Views("uniform"),
        split="test",
        sizes=DATA.sizes,
        license=DATA.license,
        published=published.rows("lsmdc", "t2v_R@1", "zero-shot"),
        source=DATA.source,
    )


def _read(root: Path) -> CaptionSplits:
    file = find_file(root, "LSMDC16_challenge_1000_publictect.csv")
    videos = find_videos(root)
    train, val = (
        _clips(other, videos) if (other := root / f"LSMDC16_annos_{name}.csv").is_file() else []
        for name in ("training", "val")
    )
    return CaptionSplits(_clips(file, videos), train, val if train else [])


def _clips(file: Path, videos: Videos) -> list[CaptionedVideo]:
    """The clips of a list; one that stands there several times has several sentences."""
    sentences: dict[str, list[str]] = {}
    for where, line in read_lines(file):  # quotes in a sentence are its own
        with parsing_errors_at(where):
            values = line.split("\t")
            if len(values) != COLUMNS:
                raise ValueError(f"{len(values)} values between tabs; wanted {COLUMNS}")
            sentences.setdefault(values[0], []).append(clean_text(values[-1]))
    return [
        CaptionedVideo(name, video_file(videos, file.parent / name.rpartition("_")[0], name, ".avi"), texts)
        for name, texts in sentences.items()
    ]
