"""UCF101: 101 human actions in clips from YouTube, in three splits (https://arxiv.org/abs/1212.0402)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from evalkit.api import Data, Task
from evalkit.datasets import protocols
from evalkit.datasets.actions.classes import check_classes, labeled_examples
from evalkit.datasets.files import LabeledSplits, class_number, find_file, parsing_errors_at, read_lines
from evalkit.datasets.videos import find_videos, video_file
from evalkit.mini import classes

# MVEB's classes: those of split 1 with sound.
WITH_SOUND = (
    "ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BasketballDunk BlowDryHair "
    "BlowingCandles BodyWeightSquats Bowling BoxingPunchingBag BoxingSpeedBag BrushingTeeth CliffDiving CricketBowling "
    "CricketShot CuttingInKitchen FieldHockeyPenalty FloorGymnastics FrisbeeCatch FrontCrawl Haircut HammerThrow "
    "Hammering HandstandPushups HandstandWalking HeadMassage IceDancing Knitting LongJump MoppingFloor ParallelBars "
    "PlayingCello PlayingDaf PlayingDhol PlayingFlute PlayingSitar Rafting ShavingBeard Shotput SkyDiving "
    "SoccerPenalty StillRings SumoWrestling Surfing TableTennisShot Typing UnevenBars WallPushups WritingOnBoard"
)
SIZES = {1: (9_537, 3_783), 2: (9_586, 3_734), 3: (9_624, 3_696)}  # train and test of each split, 13,320 together


DATA = Data(
    source="https://www.crcv.ucf.edu/data/UCF101.php",
    license="none stated; research use",
    files={
        "classInd.txt": "lines `number name`, 101; all files also in ucfTrainTestlist/",
        "trainlist01.txt": "lines `CLASS/NAME.avi number`; so are trainlist02.txt and trainlist03.txt",
        "testlist01.txt": "lines `CLASS/NAME.avi`; so are testlist02.txt and testlist03.txt",
        "UCF-101/CLASS/NAME.avi": "the clips, in any folder there",
    },
    sizes=dict(zip(("train", "test"), SIZES[1], strict=True)),
    disk="7.0 GB, the size of a copy on the Hugging Face hub",
)


def task(
    root: Path = Path("data/ucf101"),
    mini: bool = False,
    protocol: protocols.Name = "videoglue",
    fold: protocols.Fold = 1,
) -> Task:
    """Classifies a human action in a short clip, in one of three official splits.

    Files as published: classInd.txt, trainlist01.txt, testlist01.txt and so on to 03, here or in ucfTrainTestlist/, and
    the clips by the names that stand there, in any folder. The published score is the mean over the three splits:
    `evalkit sweep task=ucf101 data.fold=1,2,3 ckpt=...`, whose runs are one cell of the board, their mean. The protocol
    is Kinetics-400's; `protocol=mveb` takes the 51 classes of split 1 that have sound.

    Args:
        root: folder with the lists and the clips.
        mini: the films of kinetics400's miniature, one class per color; each split tests on a different third.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); the miniature
            can set only mveb.
        fold: number of the split.
    """
    protocols.check_fold(protocol, fold)
    mveb = protocol == "mveb"
    train, test = ((4_893, 4_897), 1_944) if mveb else SIZES[fold]
    return protocols.classification(
        "ucf101",
        classes.one_step(lambda step: step.thing.color, classes.ALONE, fold) if mini else _read(root, fold, mveb),
        protocol,
        mini,
        fold=0 if mveb else fold,
        sizes={"train": train, "test": test},
        license=DATA.license,
        source=DATA.source,
    )


def _file(root: Path, name: str) -> Path:
    return find_file(root, f"{name}.txt", f"ucfTrainTestlist/{name}.txt")


def _read(root: Path, fold: int, mveb: bool) -> LabeledSplits:
    number = {}
    for where, line in read_lines(_file(root, "classInd")):
        with parsing_errors_at(where):
            index, name = line.split()
            number[name] = class_number(int(index) - 1, 101)
    names = check_classes(root, sorted(number, key=number.__getitem__), 101)
    videos = find_videos(root)
    kept = tuple(name for name in names if name.lower() in WITH_SOUND.lower().split()) if mveb else names
    train, test = (
        labeled_examples(
            (Path(path).stem, video_file(videos, (root / "UCF-101" / path).parent, Path(path).name), kept.index(label))
            for path, label in _rows(_file(root, f"{split}list0{fold}"), names)
            if label in kept
        )
        for split in ("train", "test")
    )
    return LabeledSplits(train, test, kept, texts=tuple(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name) for name in kept))


def _rows(file: Path, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Path and class of each clip; its folder is named for the class, whose number stands in the lists of train.

    Copies of the lists differ in the case of HandstandPushups.
    """
    named = {name.lower(): name for name in names}
    for where, line in read_lines(file):
        with parsing_errors_at(where):
            path, *number = line.split()
            label = named.get(path.split("/")[-2].lower(), "")
            if not label or (number and names[class_number(int(number[0]) - 1, 101)] != label):
                raise ValueError(f"{line!r}: wanted CLASS/NAME.avi, and in train the number of that class")
            yield path, label
