"""Zero-shot classification of Something-Something v2's templates, over VideoCon's two lists
(https://arxiv.org/abs/2311.10111).

A list names the videos that each template is looked for among, twelve of each. VideoCon's own score is the mAP of
templates that search their videos. VideoPrism says that its score is the accuracy (https://arxiv.org/abs/2402.13217,
table 4) and names no list. It prints VideoCon's figures beside its own, of which 16.1, 18.6 and others are no share of
216 videos to a decimal: they are of another list, or mAP. So both are given here: `top1`, as VideoPrism calls it and as
its figures are filed, and `mAP`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from evalkit.api import Data, Example, Task, Views
from evalkit.datasets import published
from evalkit.datasets.actions.classes import as_label_sets, check_classes
from evalkit.datasets.files import LabeledSplits, find_file, parsing_errors_at, read_table
from evalkit.datasets.miniature import miniature
from evalkit.datasets.videos import find_videos, video_file
from evalkit.errors import UserError
from evalkit.metrics.average_precision import top1_map

LISTS = {"ssv2_temporal": (18, 216), "ssv2_events": (49, 588)}  # templates and videos
VIDEOCON = Data(
    source="https://github.com/Hritikbansal/videocon",
    license="the data set's own",
)


def zero_shot_task(benchmark: str, splits: LabeledSplits, mini: bool) -> Task:
    """A zero-shot classification task: the template of a video.

    Args:
        benchmark: a key of `LISTS`.
        splits: the examples, with one class each.
        mini: they are the miniature's.
    """
    splits = as_label_sets(splits)
    facts: dict[str, Any] = {
        "split": "val",
        "sizes": {"test": LISTS[benchmark][1]},
        "license": VIDEOCON.license,
        "published": published.rows(benchmark, "top1", "zero-shot"),
    }
    return Task(
        train=splits.train,
        test=splits.test,
        score=top1_map,
        views=Views("uniform"),
        classes=splits.classes,
        controls=("shuffled", "single_frame"),
        chance=100 / len(splits.classes),
        source=VIDEOCON.source,
        prepare_videos=splits.prepare_videos,
        **(miniature(facts) if mini else facts),
    )


def read_videocon(root: Path, benchmark: str) -> LabeledSplits:
    """Reads the videos of a list, with their template as class.

    The published rows, one of each video and template, hold the template in quotes within a question, and whether it is
    the video's.

    Args:
        root: folder with eval_<benchmark>.csv, and the videos in any folder there.
        benchmark: a key of `LISTS`.

    Raises:
        UserError: there is no such list, or names file and line of a row that is not as published.
    """
    rows = []
    file = find_file(root, f"eval_{benchmark}.csv")
    for where, row in read_table(file, ("videopath", "caption", "match")):
        with parsing_errors_at(where):
            (template,) = re.findall(r'"(.+)"', row["caption"])
            rows.append((Path(row["videopath"]).stem, re.sub(r"[\[\]]", "", template), ("0", "1").index(row["match"])))
    names = check_classes(root, list(dict.fromkeys(template for _, template, _ in rows)), LISTS[benchmark][0])
    targets = {video: names.index(template) for video, template, match in rows if match}
    listed = {video for video, *_ in rows}
    if not len(listed) == len(targets) == sum(match for *_, match in rows):
        raise UserError(f"{file}: {len(listed)} videos; wanted one row with match 1 of each")
    videos = find_videos(root)
    test = [Example(video, video_file(videos, root, video), target) for video, target in targets.items()]
    return LabeledSplits([], test, names)
