"""own_task, a benchmark of your own.

evalkit run task=./own_task.py mini=true ckpt=demo                    # on films of the mini world
evalkit check task=./own_task.py data.root=labels.csv                 # is all there, and does it decode?
evalkit run task=./own_task.py data.root=labels.csv ckpt=demo
evalkit validate results task=./own_task.py                           # needed where `score` is of this file
"""

from __future__ import annotations

import csv
from pathlib import Path

from evalkit.api import Example, Task, Views
from evalkit.errors import UserError
from evalkit.metrics import top1_top5
from evalkit.mini import language
from evalkit.mini.library import Films

# The adapter that joins encoder and task unless adapter= says otherwise: probe, knn, zero_shot, retrieval, ...
ADAPTER = "probe"
SPLITS = ("train", "val", "test")


def task(root: Path = Path("labels.csv"), mini: bool = False) -> Task:
    """Names what is in a clip.

    Args:
        root: csv with the columns path,label,split; paths are relative to its folder.
        mini: 24 films of the mini world, a class per shape, so that everything can be tried without data.
    """
    films = Films("folder", language.clips("folder", 100), fps=8) if mini else None
    rows = _mini(films) if films else _csv(root)
    # A target is an index into the classes: sorted, so that it is the same everywhere.
    classes = sorted({label for _, label, _ in rows})
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for path, label, split in rows:
        # The id is unique in its split, and says nothing of where the file lies.
        splits[split].append(Example(path.name, path, classes.index(label)))
    return Task(
        train=splits["train"],
        # Epoch and grid point are chosen on val, never on test; without val a seeded tenth of train stands in.
        val=splits["val"],
        test=splits["test"],
        # A function of (predictions, targets). Your own stands in this file: it gives one value in 0..1 for each
        # example, {"top1": [...]}, of which a prediction of None (a video that failed) has 0.
        score=top1_top5,
        classes=tuple(classes),
        # How frames are taken; the number of frames and their size are the encoder's own unless said here.
        views=Views("uniform"),
        chance=100 / len(classes),
        # Raise it when the examples or the score change, so that older results are not compared.
        version=1,
        license="your own",
        source="your own",
        prepare_videos=films.prepare_videos if films else None,
    )


def _csv(file: Path) -> list[tuple[Path, str, str]]:
    """Path, label and split of each row."""
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    for number, row in enumerate(rows, 2):
        if row.get("split") not in SPLITS or not row.get("path") or not row.get("label"):
            raise UserError(f"{file}, line {number}: wanted path, label and split, which is one of {', '.join(SPLITS)}")
    return [(file.parent / row["path"], row["label"], row["split"]) for row in rows]


def _mini(films: Films) -> list[tuple[Path, str, str]]:
    """The same of films, of which the first 16 are for training."""
    rows = zip(films.paths[:24], films.stories[:24], strict=True)
    return [(path, story.steps[0].thing.shape, "train" if k < 16 else "test") for k, (path, story) in enumerate(rows)]
