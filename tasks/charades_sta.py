"""Charades-STA: sentences that describe moments of household videos (https://arxiv.org/abs/1705.02101)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from evalkit.api import Data, Example, Task, Views
from evalkit.datasets import published
from evalkit.datasets.captions import clean_text
from evalkit.datasets.files import LabeledSplits, find_file, parsing_errors_at, read_lines, read_table, time_span
from evalkit.datasets.multiple_choice import multiple_choice_task
from evalkit.datasets.videos import find_videos, video_file
from evalkit.mini import questions

ADAPTER = "zero_shot"


DATA = Data(
    source="https://github.com/jiyanggao/TALL",
    license="the data set's own, non-commercial",
    files={
        "charades_sta_test.txt": "lines `ID start end##sentence`",
        "Charades_v1_test.csv": "columns id, length and others; also in Charades/",
        "videos/ID.mp4": "the videos, in any folder there",
    },
    sizes={"test": 3_720},
)


def task(root: Path = Path("data/charades"), mini: bool = False) -> Task:
    """Finds the sentence that describes a moment, among all sentences of its video: zero-shot.

    Files as published: charades_sta_test.txt (`<id> <start> <end>##<sentence>`), Charades_v1_test.csv, here or in
    Charades/, and the videos as <id>.mp4 in any folder there. Frames are taken uniformly over the moment, which ends
    with the video: 562 of 3,720 moments are annotated beyond its length in that csv. As published, 394 videos have one
    sentence, which is right whatever is predicted, and 1,989 moments share their times, and so their frames, with
    another sentence: chance is 35.9 %, and more than 69.3 % cannot be had. All count here; what VideoPrism leaves out,
    if anything, it does not say.

    Args:
        root: folder with the files and the videos.
        mini: the steps of the films of egoschema's miniature.
    """
    return multiple_choice_task(
        questions.steps() if mini else LabeledSplits([], _read(root), ()),
        mini,
        views=Views("uniform"),
        controls=("shuffled", "single_frame"),
        split="test",
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
        published=published.rows("charades_sta", "accuracy", "zero-shot"),
    )


class Moment(NamedTuple):
    """A part of a video in seconds, and its sentence."""

    span: tuple[float, float]
    sentence: str


def _read(root: Path) -> list[Example]:
    moments: dict[str, list[Moment]] = {}
    file = find_file(root, "charades_sta_test.txt")
    lengths = _lengths(find_file(root, "Charades_v1_test.csv", "Charades/Charades_v1_test.csv"))
    for where, line in read_lines(file):
        with parsing_errors_at(where):
            times, sentence = line.split("##")
            name, start, end = times.split()
            whole = time_span(start, end)
            span = whole[0], min(whole[1], lengths[name])
            if not span[0] < span[1]:
                raise ValueError(f"no moment from {start} to {end} s in a video of {lengths[name]:g} s")
            moments.setdefault(name, []).append(Moment(span, clean_text(sentence)))
    videos = find_videos(root)
    return [
        Example(
            f"{name}/{i}",
            video_file(videos, root / "Charades_v1_480", name),
            choices.index(sentence),
            span,
            "",
            choices,
        )
        for name, in_video in moments.items()
        for choices in [tuple(dict.fromkeys(moment.sentence for moment in in_video))]
        for i, (span, sentence) in enumerate(in_video)
    ]


def _lengths(file: Path) -> Mapping[str, float]:
    """Seconds of each video."""
    lengths = {}
    for where, row in read_table(file, ("id", "length")):
        with parsing_errors_at(where):
            _, lengths[row["id"]] = time_span(0, row["length"])
    return lengths
