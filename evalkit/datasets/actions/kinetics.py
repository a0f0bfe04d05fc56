"""Reader of Kinetics' lists: the published csv, or lines of a path and a class index."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evalkit.api import Data
from evalkit.datasets.actions.classes import check_classes, labeled_examples
from evalkit.datasets.files import (
    LabeledSplits,
    class_number,
    find_file,
    parsing_errors_at,
    read_lines,
    read_table,
    time_span,
)
from evalkit.datasets.videos import find_videos, video_file
from evalkit.errors import UserError, nearest

KINETICS = Data(
    source="https://github.com/cvdfoundation/kinetics-dataset",
    license="CC BY 4.0 (annotations)",
    files={
        "train.csv": "label,youtube_id,time_start,time_end,split, with a header; also in annotations/; or "
        "kinetics400_train_list_videos.txt, lines of `path number`, with label_map_k400.txt, a class a line (for "
        "600 and 700 by their numbers)",
        "val.csv": "the same; also validate.csv",
        "train/NAME.mp4": "the clips, NAME as <youtube id>_<start>_<end> with six digits each, flat or in class "
        "folders",
        "val/NAME.mp4": "the same",
    },
)
COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
# As the published lists have them.
SPLIT_NAMES = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


def read_subset(root: Path, classes: int, file: Path) -> LabeledSplits:
    """Reads the listed clips from train, and from val or test if its csv exists.

    Args:
        root: as of `read_kinetics`.
        classes: as of `read_kinetics`.
        file: a text file with the name of a clip in each line, as <youtube_id>_<start>_<end> with six digits each.

    Raises:
        UserError: as `read_kinetics`; or a clip stands in none of the lists.
    """
    tested = ("val", "test") if (root / "test.csv").is_file() else ("val",)
    splits = read_kinetics(root, classes, tested)
    known = {example.id for example in (*splits.train, *splits.test)}
    names = set()
    for where, line in read_lines(file):
        name = line.removesuffix(".mp4")
        if name not in known:
            raise UserError(f"{where}: clip {name!r:.80} is in none of the lists of train, {' and '.join(tested)}")
        names.add(name)
    train, test = ([example for example in split if example.id in names] for split in (splits.train, splits.test))
    return splits._replace(train=train, test=test)


def read_kinetics(root: Path, classes: int, tested: Sequence[str] = ("val",)) -> LabeledSplits:
    """Reads the clips of train and val with their classes.

    Each list is `train.csv` as published (or `annotations/train.csv`), or kinetics400_train_list_videos.txt, lines of
    `path number` or `path,number` beside label_map_k400.txt, a name a line; a `train.csv` may hold such lines, too.
    Clips lie in train/ and val/, flat or in class folders, as <youtube_id>_<start>_<end> with six digits each. Every
    row is expected, also where its clip is missing.

    Args:
        root: folder with the lists and the clips.
        classes: 400, 600 or 700.
        tested: the splits that are tested on, together.

    Raises:
        UserError: names file and line of a row that is not as published.
    """
    rows = {split: list(_rows(root, split, classes)) for split in ("train", *tested)}
    labels = {split: {label: where for where, _, label in reversed(members)} for split, members in rows.items()}
    if len(set().union(*labels.values())) > classes:
        refuse_unlike(labels)
    names = check_classes(root, sorted(set().union(*labels.values())), classes)
    number = {label: i for i, label in enumerate(names)}
    examples = {}
    for split, members in rows.items():
        videos = find_videos(root / split)
        examples[split] = labeled_examples(
            (path.stem, video_file(videos, (root / path).parent, path.name), number[label])
            for _, path, label in members
        )
    return LabeledSplits(examples["train"], [example for split in tested for example in examples[split]], names)


def refuse_unlike(labels: Mapping[str, Mapping[str, str]]) -> None:
    """Raises UserError where a class of one list is in no other, and spelled nearly as one that is there.

    Args:
        labels: by split, train first, the place (file and line) where each class is first named.
    """
    for split in reversed([*labels]):  # the longest list is the likeliest to be right
        others = set().union(*(labels[other] for other in labels if other != split))
        for label, where in labels[split].items():
            if label not in others and (near := nearest(label, others)):
                raise UserError(f"{where}: class {label!r} is in no other list. Did you mean {near!r}?")


def _rows(root: Path, split: str, classes: int) -> Iterator[tuple[str, Path, str]]:
    """Yields the place of each clip's row, its expected path, relative to the root, and the name of its class."""
    published = [f"{place}{split}.csv" for place in ("", "annotations/")]
    published += [name.replace("val.", "validate.") for name in published if split == "val"]  # Kinetics-600's own name
    file = find_file(root, *published, f"kinetics{classes}_{split}_list_videos.txt")
    lines = read_lines(file)
    first = next(lines, ("", ""))[1]
    if len({name.strip('" ').casefold() for name in first.split(",")} & {*COLUMNS}) > 1:  # it names columns
        for where, row in read_table(file, COLUMNS):
            with parsing_errors_at(where):
                if row["split"].strip('" ').casefold() not in SPLIT_NAMES[split]:
                    raise ValueError(
                        f"split {row['split']!r:.60}; wanted {' or '.join(SPLIT_NAMES[split])}, as this is read as "
                        f"{split}: perhaps the file of another split has this name"
                    )
                start, end = map(int, time_span(row["time_start"], row["time_end"]))
                yield where, Path(split, f"{row['youtube_id']}_{start:06d}_{end:06d}.mp4"), row["label"].strip('" ')
        return
    names = dict(enumerate(line for _, line in read_lines(find_file(root, f"label_map_k{classes}.txt"))))
    for where, line in read_lines(file):
        with parsing_errors_at(where):
            path, _, label = line.replace(",", " ").rpartition(" ")
            if re.search(r"\s\d+$", path.rstrip()):
                raise ValueError(
                    "three values; wanted `path class`: lists of `path frames class` are of folders of images, which "
                    "must be made videos"
                )
            yield where, Path(path.strip()), names[class_number(label, len(names))]
