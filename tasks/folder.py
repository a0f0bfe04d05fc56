"""Your own labeled videos: a csv `path,label[,split]`, or one folder per class."""

from __future__ import annotations

import logging
import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from evalkit.api import Data, Example, Task, Views
from evalkit.datasets.files import SPLIT_OF, check_root, read_table
from evalkit.datasets.miniature import LICENSE
from evalkit.datasets.videos import (
    describe_files,
    files_by_path,
    is_hidden,
    is_video,
    listed_video,
    report_left_out,
)
from evalkit.errors import UserError, counted
from evalkit.metrics import top1_top5
from evalkit.mini import language
from evalkit.mini.library import Films
from evalkit.video import places

logger = logging.getLogger("evalkit")

SPLITS = ("train", "val", "test")


DATA = Data(
    source="your own",
    license="your own",
    files={
        "videos.csv": "path,label[,split], paths relative to it; data.root= names the file",
        "CLASS/x.mp4": "or without a csv: a folder per class, also train/CLASS/x.mp4 and CLASS/train/x.mp4; "
        "data.root= names the folder",
    },
)


def task(root: Path = Path("data/videos"), mini: bool = False, test_share: float = 0.3, split_seed: int = 0) -> Task:
    """Classifies your own videos: a csv `path,label[,split]` or class folders.

    With a csv, paths are relative to its folder and `split` is train, val or test. Folders are CLASS/x.mp4, or with
    splits train/CLASS/x.mp4 or CLASS/train/x.mp4. Without splits a seeded share of each class is test. What else lies
    in a folder is named. Frames are sampled uniformly from the whole video.

    Args:
        root: the csv, or a folder with one folder of videos per class.
        mini: short films of the mini world, a class per shape.
        test_share: share of each class that is test where no split is given.
        split_seed: of that split.
    """
    rows = _mini() if mini else _csv(root) if root.is_file() else _folders(root)
    labels = sorted({label for _, _, label, _ in rows})
    if len(labels) < 2:
        raise UserError(
            f"data.root={root}: found {counted(len(labels), 'class')} in {counted(len(rows), 'video')}; wanted at "
            "least two"
        )
    _warn_of_alike(labels)
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
        license=LICENSE if mini else DATA.license,
        source="evalkit.mini" if mini else DATA.source,
        prepare_videos=_films().prepare_videos if mini else None,
    )


def _warn_of_alike(labels: Sequence[str]) -> None:
    """Warns of the first two labels that look the same, or nearly so."""
    plain = [" ".join(label.casefold().split()) for label in labels]
    joined = [" ".join(re.split(r"[\s_-]+", label.casefold())) for label in labels]
    numbers = [f"{float(label):g}" if re.fullmatch(r"[0-9]{1,9}(\.0*)?", label) else label for label in labels]
    visible = [
        " ".join("".join(c for c in unicodedata.normalize("NFKC", label) if unicodedata.category(c) != "Cf").split())
        for label in labels
    ]
    for names, shown, what in (
        (plain, repr, "case or blanks"),
        (joined, repr, "case, blanks, hyphens or underscores"),
        (numbers, repr, "how a number is written"),
        ([name.casefold() for name in visible], ascii, "invisible characters or Unicode form"),
    ):
        if alike := [k for k, name in enumerate(names) if name in names[:k]]:
            label, other = labels[alike[0]], labels[names.index(names[alike[0]])]
            logger.warning(f"classes {shown(other)} and {shown(label)} differ in {what} alone; are they one?")
            return


Row = tuple[str, Path, str, str]  # id, video, label, split or ""


def _csv(file: Path) -> list[Row]:
    rows: list[Row] = []
    seen: set[Path] = set()  # a video in both train and test would leak its label
    for where, row in read_table(file, ("path", "label"), optional=("split",)):
        path, label, split = row["path"].strip(), row["label"].strip(), row.get("split", "").strip()
        if not path or not label:
            raise UserError(f"{where}: path or label is empty")
        if split.casefold() not in (*SPLIT_OF, ""):
            raise UserError(f"{where}: split is {split!r}; wanted train, val or test")
        video, split = listed_video(file.parent, path), SPLIT_OF.get(split.casefold(), "")
        try:
            folder = video.is_dir()
        except OSError as error:  # a name that is too long, a folder that is not to be entered
            raise UserError(f"{where}: {path[:60]!r} cannot be the path of a video: {error.strerror}") from error
        if folder:
            raise UserError(f"{where}: {video} is a folder; wanted a video file; in it: {describe_files(video)}")
        if video.resolve() in seen:
            raise UserError(f"{where}: {path} appears twice")
        seen.add(video.resolve())
        rows.append((path, video, label, split))
    if len({bool(split) for *_, split in rows}) > 1:
        raise UserError(f"{file}: some rows have a split and some have none; give all or none")
    _check_end(file, [label for _, _, label, _ in rows])
    return rows


def _check_end(file: Path, labels: Sequence[str]) -> None:
    """Raises UserError where the last label is perhaps cut off: its line has no end, and it begins another label."""
    *others, last = labels or [""]
    whole = sorted({label for label in others if label.startswith(last) and label != last})
    if whole and last not in others and not file.read_bytes().endswith((b"\n", b"\r")):
        raise UserError(
            f"{file}: it ends in {last!r}, perhaps {whole[0]!r} cut off: get the file again; if it is whole, end its "
            "last line as the others"
        )


def _folders(root: Path) -> list[Row]:
    """The videos of CLASS/x, SPLIT/CLASS/x or CLASS/SPLIT/x."""
    if not places.named():
        check_root(root, "a csv path,label[,split] or a folder of class folders")
    files: list[Path] = []
    passed_over: list[Path] = []
    inside = files_by_path(root)
    for path, below in inside.items():
        (passed_over if any(map(is_hidden, below.parts[:-1])) else files).append(path)
    videos = [path for path in files if is_video(path) and len(inside[path].parts) > 1]
    folders = [inside[path].parts[:-1] for path in videos]
    place = _split_level(root, folders)
    left_out = {
        path: "not in a folder of its class" for path in files if is_video(path) and len(inside[path].parts) == 1
    }
    left_out |= {path: "no video by its ending" for path in files if path.name[0] != "." and not is_video(path)}
    left_out |= dict.fromkeys(filter(is_video, passed_over), "in a hidden or system folder")
    rows: list[Row] = []
    for path, parts in zip(videos, folders, strict=True):
        if place is None:
            rows.append((str(inside[path]), path, parts[0], ""))
        elif len(parts) < 2:
            left_out[path] = "not in a folder of its class" if place == 0 else "not in a folder of its split"
        else:
            rows.append((str(inside[path]), path, parts[1 - place], SPLIT_OF[parts[place].casefold()]))
    classes = {label for _, _, label, _ in rows}
    direct_videos = sum(len(below.parts) == 1 for path, below in inside.items() if is_video(path))
    hint = ""
    if direct_videos and not classes:
        above = root.resolve().parent
        hint = f"; it contains {counted(direct_videos, 'video')} itself: if it is one class, name the folder above, "
        hint += f"data.root={above}"
    if len(classes) < 2:
        raise UserError(
            f"data.root={root}: found {counted(len(classes), 'class')} in {counted(len(rows), 'video')}; wanted "
            f"at least two, CLASS/x.mp4 or train/CLASS/x.mp4 and test/CLASS/x.mp4; found {describe_files(root)}{hint}"
        )
    if place is not None and (absent := {"train", "test"} - {split for *_, split in rows}):
        raise UserError(
            f"data.root={root}: its folders are splits, of which {min(absent)} has no video in a class folder; wanted "
            "train/CLASS/x.mp4 and test/CLASS/x.mp4"
        )
    if place is not None and (loose := [path for path in videos if left_out.get(path)]):
        raise UserError(
            f"data.root={root}: its folders are splits, and {len(loose)} videos are in none of a class, first "
            f"{inside[loose[0]]}; move them into "
            + ("train/CLASS/ or test/CLASS/" if place == 0 else "CLASS/train/ or CLASS/test/")
        )
    depth = 1 if place is None else 2
    direct = {label for _, path, label, _ in rows if len(inside[path].parts) == depth + 1}
    if nested := sorted(inside[path].parent for _, path, label, _ in rows if label not in direct):
        raise UserError(
            f"data.root={root}: {Path(*nested[0].parts[:depth])} holds no video itself, only folders of videos "
            f"({nested[0]}); wanted each class as one folder of videos (CLASS/x.mp4, or train/CLASS/x.mp4)"
        )
    report_left_out({inside[path]: why for path, why in left_out.items()})
    return rows


def _split_level(root: Path, folders: Sequence[tuple[str, ...]]) -> int | None:
    """Which of the first two folders of each video names its split; None where none does.

    Raises:
        UserError: of some videos it does and of others not, or folders with the same folders in them are no splits.
    """
    for level in (0, 1):
        names = {parts[level] for parts in folders if len(parts) > level}
        splits = {name for name in names if name.casefold() in SPLIT_OF}
        nested = {parts[0] for parts in folders if len(parts) > 1}
        # One folder such as `train`, with videos and beside others, is a class: trains are filmed, too.
        if not splits or (level == 0 and len(splits) == 1 and len(names) > 1 and not splits & nested):
            continue
        if others := names - splits:
            raise UserError(
                f"data.root={root}: its folder {min(splits)} is named as a split is, and {min(others)} beside it not; "
                "wanted all classes (CLASS/x.mp4) or all splits (train/CLASS/x.mp4, test/CLASS/x.mp4)"
            )
        return level
    inner: dict[str, set[str]] = defaultdict(set)
    for parts in folders:
        inner[parts[0]].update(parts[1:2])
    direct = {parts[0] for parts in folders if len(parts) == 1}
    for first, second in combinations(sorted(name for name in inner if inner[name]), 2):
        shared = sorted(inner[first] & inner[second])
        if len(shared) > 1 or (shared and not {first, second} & direct):
            raise UserError(
                f"data.root={root}: its folders {first} and {second} both hold {', '.join(shared[:3])}, so they are no "
                "classes; wanted split folders called train, val and test (train/CLASS/x.mp4), or classes alone "
                "(CLASS/x.mp4)"
            )
    return None


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
