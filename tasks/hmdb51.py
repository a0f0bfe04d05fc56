"""HMDB51: 51 human actions in clips of films and the web, in three splits (ICCV 2011)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evalkit.api import Data, Task
from evalkit.datasets import protocols
from evalkit.datasets.actions.classes import check_classes, labeled_examples
from evalkit.datasets.files import LabeledSplits, check_root, parsing_errors_at, read_lines
from evalkit.datasets.videos import find_videos, video_file
from evalkit.errors import UserError
from evalkit.mini import classes

SPLITS = "testTrainMulti_7030_splits"
PART = {"0": "", "1": "train", "2": "test"}


DATA = Data(
    source="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database",
    license="CC BY 4.0",
    files={
        "testTrainMulti_7030_splits/CLASS_test_split1.txt": "lines `NAME.avi 1`: 1 train, 2 test, 0 neither; of "
        "each class and of splits 1 to 3",
        "videos/CLASS/NAME.avi": "the clips, in any folder there",
    },
    sizes={"train": 51 * 70, "test": 51 * 30},
    disk="2.1 GB, the size of a copy on the Hugging Face hub",
)


def task(
    root: Path = Path("data/hmdb51"),
    mini: bool = False,
    protocol: protocols.Name = "videoglue",
    fold: protocols.Fold = 1,
) -> Task:
    """Classifies a human action in a short clip, in one of three official splits.

    Files as published: testTrainMulti_7030_splits/CLASS_test_split1.txt and so on, of lines `NAME.avi 1` (1 train, 2
    test, 0 neither), and the clips by these names in any folder. The published score is the mean over the three splits:
    `evalkit sweep task=hmdb51 data.fold=1,2,3 ckpt=...`, whose runs are one cell of the board, their mean. The protocol
    is Kinetics-400's.

    Args:
        root: folder with the lists and the clips.
        mini: the films of kinetics400's miniature, one class per motion; each split tests on a different third.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); the miniature
            can set only mveb.
        fold: number of the split.
    """
    protocols.check_fold(protocol, fold)
    mveb = protocol == "mveb"
    return protocols.classification(
        "hmdb51",
        classes.one_step(lambda step: step.action, fold=fold) if mini else _read(root, fold),
        protocol,
        mini,
        fold=0 if mveb else fold,
        sizes={**DATA.sizes, "train": (3_568, 51 * 70)} if mveb else DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )


def _read(root: Path, fold: int) -> LabeledSplits:
    ending = f"_test_split{fold}.txt"
    folder = next((place for place in (root / SPLITS, root) if any(place.glob(f"*{ending}"))), None)
    if folder is None:
        check_root(root, f"a folder with {SPLITS}/CLASS{ending}")
        raise UserError(f"data.root={root} has no {SPLITS}/CLASS{ending}")
    # By their names, not by those of the files, where climb_stairs_test_split1.txt stands before climb_test_split1.txt.
    names = check_classes(root, sorted(file.name.removesuffix(ending) for file in folder.glob(f"*{ending}")), 51)
    videos = find_videos(root)
    rows: dict[str, list[tuple[str, Path, int]]] = {"": [], "train": [], "test": []}
    for number, name in enumerate(names):
        for part, clip in _rows(folder / f"{name}{ending}"):
            rows[part].append((Path(clip).stem, video_file(videos, root / "hmdb51_org" / name, clip), number))
    train, test = labeled_examples(rows["train"]), labeled_examples(rows["test"])
    return LabeledSplits(train, test, names, texts=tuple(name.replace("_", " ") for name in names))


def _rows(file: Path) -> Iterator[tuple[str, str]]:
    """Train, test or nothing, and the name of each clip."""
    for where, line in read_lines(file):
        with parsing_errors_at(where):
            clip, part = line.rsplit(maxsplit=1)
            yield PART[part], clip
