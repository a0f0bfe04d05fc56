"""Kinetics-400: 400 human actions in ten-second clips (https://arxiv.org/abs/1705.06950)."""

from __future__ import annotations

import csv
from pathlib import Path

from evalkit.api import Example, Task, UserError, Views
from evalkit.metrics import top1_top5
from evalkit.mini import language
from evalkit.mini.library import Films

CLASSES = 400


def task(root: Path = Path("data/kinetics400"), mini: bool = False) -> Task:
    """Names the human action in a ten-second clip, by VideoGLUE's frozen-backbone protocol.

    Files: train.csv and val.csv as published (label, youtube_id, time_start, time_end, split, is_cc), and the clips
    as <youtube_id>_<start>_<end>.mp4 with six digits each, in train/ and val/, flat or in class folders. Val is what
    the papers report; each row of val.csv is expected, also where its clip is missing. Protocol: every fourth frame,
    4 clips x 3 crops, softmax averaged (VideoGLUE, https://arxiv.org/abs/2307.03166, tables 10 to 12, and its code:
    attentive head, dropout 0.5, label smoothing 0.1, AdamW). Training sees the same views, without augmentation.

    Args:
        root: folder with the csv files and the clips.
        mini: ten-second films of the mini world, a class per motion.
    """
    if mini:
        train, test, classes = _mini()
        views, settings = Views("uniform"), {"epochs": 60, "batch_size": 32, "lr": 1e-3}
    else:
        train, test, classes = _official(root)
        views = Views("dense", stride=4, clips=4, crops=3)
        settings = {"epochs": 150, "batch_size": 256, "lr": 1e-4, "weight_decay": 1e-5}
        settings |= {"dropout": 0.5, "label_smoothing": 0.1}
    return Task(
        train=train,
        test=test,
        score=top1_top5,
        classes=classes,
        views=views,
        settings=settings,
        chance=100 / len(classes),
        split="mini" if mini else "val",
        licence="generated (Apache-2.0)" if mini else "CC BY 4.0 (annotations)",
        source="https://github.com/cvdfoundation/kinetics-dataset",
        published={} if mini else {"CLIP-B": 75.2, "CoCa-B": 73.1, "VideoMAE-B": 65.1, "InternVideo-B": 69.3},
        provide=_films().provide if mini else None,
    )


def read(file: Path) -> list[tuple[str, str]]:
    """Label and file stem of each row of an official csv.

    Raises:
        UserError: names file and line of a row that is not as published.
    """
    if not file.is_file():
        raise UserError(f"no {file}: wanted the published csv (label, youtube_id, time_start, time_end, split, is_cc)")
    rows = []
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            try:
                start, end = int(float(row["time_start"])), int(float(row["time_end"]))
                rows.append((row["label"].strip('"'), f"{row['youtube_id']}_{start:06d}_{end:06d}"))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise UserError(f"{file}, line {reader.line_num}: not a row as published: {error!r}") from error
    return rows


def _official(root: Path) -> tuple[list[Example], list[Example], tuple[str, ...]]:
    if not root.is_dir():
        raise UserError(f"data.root={root} does not exist: wanted a folder with train.csv, val.csv, train/ and val/")
    rows = {split: read(root / f"{split}.csv") for split in ("train", "val")}
    classes = tuple(sorted({label for split in rows.values() for label, _ in split}))
    if len(classes) != CLASSES:
        raise UserError(f"data.root={root}: train.csv and val.csv name {len(classes)} classes; wanted {CLASSES}")
    number = {label: i for i, label in enumerate(classes)}
    found = {}
    for split, members in rows.items():
        files = {path.stem: path for path in sorted((root / split).rglob("*")) if path.is_file()}
        found[split] = [
            Example(stem, files.get(stem, root / split / f"{stem}.mp4"), number[label]) for label, stem in members
        ]
    return found["train"], found["val"], classes


def _films() -> Films:
    return Films("kinetics400", language.clips("kinetics400", 300), fps=8)


def _mini() -> tuple[list[Example], list[Example], tuple[str, ...]]:
    films = _films()
    classes = tuple(sorted({story.steps[0].action for story in films.stories}))
    examples = [
        Example(path.stem, path, classes.index(story.steps[0].action))
        for path, story in zip(films.paths, films.stories, strict=True)
    ]
    return examples[:200], examples[200:], classes
