"""Your own labeled videos: a csv `path,label[,split]`, or one folder per class."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

from evalkit.api import Example, Task, Views
from evalkit.datasets.files import VIDEO_ENDINGS, read_table
from evalkit.datasets.miniature import LICENSE
from evalkit.errors import UserError
from evalkit.metrics import top1_top5
from evalkit.mini import language
from evalkit.mini.library import Films

SPLITS = ("train", "val", "test")


def task(root: Path = Path("data/videos"), mini: bool = False, test_share: float = 0.3, split_seed: int = 0) -> Task:
    """Classifies your own videos: a csv `path,label[,split]` or class folders.

    With a csv, paths are relative to its folder and `split` is train, val or test. Without splits a seeded share of
    each class is test. Frames are taken uniformly over the whole video.

    Args:
        root: the csv, or a folder with one folder of videos per class.
        mini: short films of the mini world, a class per shape.
        test_share: share of each class that is test where no split is given.
        split_seed: of that split.
    """
    rows = _mini() if mini else _csv(root) if root.is_file() else _folders(root)
    labels = sorted({label for _, _, label, _ in rows})
    if len(labels) < 2:
        raise UserError(f"data.root={root}: found {len(labels)} class(es) in {len(rows)} videos; wanted at least two")
    if not any(split for *_, split in rows):
        rows = _split(rows, test_share, split_seed)
    examples: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for name, path, label, split in rows:
        examples[split].append(Example(name, path, labels.index(label)))
    return Task(
        train=examples["train"],
        val=examples["val"],
        test=examples["test"],
        score=top1_top5,
        classes=tuple(labels),
        views=Views("uniform"),
        chance=100 / len(labels),
        license=LICENSE if mini else "your own",
        source="evalkit.mini" if mini else "your own",
        prepare_videos=_films().prepare_videos if mini else None,
    )


Row = tuple[str, Path, str, str]  # id, video, label, split or ""


def _csv(file: Path) -> list[Row]:
    rows: list[Row] = []
    seen: set[Path] = set()  # a video in both train and test would leak its label
    for where, row in read_table(file, ("path", "label")):
        split = row.get("split", "").strip()
        if not row["path"] or not row["label"]:
            raise UserError(f"{where}: path or label is empty")
        if split not in (*SPLITS, ""):
            raise UserError(f"{where}: split is {split!r}; wanted train, val or test")
        video = file.parent / row["path"]
        if video.resolve() in seen:
            raise UserError(f"{where}: {row['path']} stands there twice")
        seen.add(video.resolve())
        rows.append((row["path"], video, row["label"], split))
    if len({bool(split) for *_, split in rows}) > 1:
        raise UserError(f"{file}: some rows have a split and some have none; give all or none")
    return rows


def _folders(root: Path) -> list[Row]:
    if not root.is_dir():
        raise UserError(
            f"data.root={root} does not exist: wanted a csv path,label[,split] or a folder of class folders"
        )
    return [
        (str(file.relative_to(root)), file, folder.name, "")
        for folder in sorted(root.iterdir())
        if folder.is_dir()
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in VIDEO_ENDINGS
    ]


def _split(rows: list[Row], test_share: float, seed: int) -> list[Row]:
    if not 0 < test_share < 1:
        raise UserError(f"data.test_share={test_share}: wanted a number between 0 and 1")
    by_label: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row[2]].append(row)
    with_split: list[Row] = []
    for label, members in sorted(by_label.items()):
        random.Random(f"{seed} {label}").shuffle(members)
        tests = max(1, round(test_share * len(members)))
        with_split += [
            (n, path, label, "test" if i < tests else "train") for i, (n, path, label, _) in enumerate(members)
        ]
    return with_split


def _films() -> Films:
    return Films("folder", language.clips("folder", 100), fps=8)


def _mini() -> list[Row]:
    films = _films()
    splits = ["train"] * 60 + ["test"] * 40
    return [
        (path.name, path, story.steps[0].thing.shape, split)
        for path, story, split in zip(films.paths, films.stories, splits, strict=True)
    ]
