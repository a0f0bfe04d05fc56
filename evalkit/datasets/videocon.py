"""Something-Something v2 by words alone, over VideoCon's two lists of a few templates
(https://arxiv.org/abs/2311.10111).

A list names the videos that each template is looked for among, twelve of each. VideoCon's own score is the mAP of
templates that search their videos. VideoPrism says that its score is the accuracy (https://arxiv.org/abs/2402.13217,
table 4) and names no list. It prints VideoCon's figures beside its own, of which 16.1, 18.6 and others are no share of
216 videos to a decimal: they are of another list, or mAP. So both are given here: `top1`, as VideoPrism calls it and as
its figures are filed, and `mAP`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from evalkit.api import Example, Task, Views
from evalkit.datasets import published
from evalkit.datasets.files import (
    LabeledRow,
    check_classes,
    error_context,
    find_videos,
    first_existing,
    read_table,
    video_file,
)
from evalkit.errors import UserError
from evalkit.metrics.average_precision import top1_map

LISTS = {"ssv2_temporal": (18, 216), "ssv2_events": (49, 588)}  # templates and videos


def by_words(benchmark: str, found: LabeledRow, mini: bool) -> Task:
    """A task of naming the template of a video.

    Args:
        benchmark: a key of `LISTS`.
        found: the examples, with one class each.
        mini: they are the miniature's: no published number is about them.
    """
    train, test = ([replace(one, target=(one.target,)) for one in split] for split in (found.train, found.test))
    return Task(
        train=train,
        test=test,
        score=top1_map,
        views=Views("uniform"),
        classes=found.classes,
        controls=("shuffled", "single_frame"),
        chance=100 / len(found.classes),
        split="mini" if mini else "val",
        sizes={} if mini else {"test": LISTS[benchmark][1]},
        license="generated (Apache-2.0)" if mini else "the data set's own",
        source="https://github.com/Hritikbansal/videocon",
        published={} if mini else published.rows(benchmark, "top1", "zero-shot"),
        prepare_videos=found.prepare_videos,
    )


def read_videocon(root: Path, benchmark: str) -> LabeledRow:
    """The videos of a list, their template the class.

    The published rows, one of each video and template, hold the template in quotes within a question, and whether it is
    the video's.

    Args:
        root: folder with eval_<benchmark>.csv, and the videos in any folder there.
        benchmark: a key of `LISTS`.

    Raises:
        UserError: there is no such list, or names file and line of a row that is not as published.
    """
    rows = []
    file = first_existing(root, f"eval_{benchmark}.csv")
    for where, row in read_table(file, ("videopath", "caption", "match")):
        with error_context(where):
            (template,) = re.findall(r'"(.+)"', row["caption"])
            rows.append((Path(row["videopath"]).stem, re.sub(r"[\[\]]", "", template), ("0", "1").index(row["match"])))
    names = check_classes(root, list(dict.fromkeys(template for _, template, _ in rows)), LISTS[benchmark][0])
    right = {one: names.index(template) for one, template, match in rows if match}
    asked = {one for one, *_ in rows}
    if not len(asked) == len(right) == sum(match for *_, match in rows):
        raise UserError(f"{file}: {len(asked)} videos; wanted one row with match 1 of each")
    videos = find_videos(root)
    return LabeledRow([], [Example(one, video_file(videos, root, one), target) for one, target in right.items()], names)
