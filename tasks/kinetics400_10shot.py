"""Kinetics-400 from ten clips of each class, by VideoPrism's lists (https://github.com/google-deepmind/videoprism)."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Task, Views
from evalkit.datasets.fewshot import few_shot
from evalkit.datasets.files import (
    LabeledRow,
    check_classes,
    error_context,
    find_videos,
    first_existing,
    labeled_examples,
    read_json,
)
from evalkit.metrics.classification import top1_top5
from evalkit.mini import classes


def task(root: Path = Path("data/kinetics400"), mini: bool = False) -> Task:
    """Names the human action in a clip after ten examples of each, as VideoPrism's demonstration does.

    Files: k400_train_10shot.json and k400_test_10shot.json, ten clips of each class in both, as VideoPrism's repository
    has them; the clips in train/ and test/, flat or in class folders. The test is of Kinetics' own test split, so that
    its scores are not those of `kinetics400`. Frames, learning rate, batch and epochs are the demonstration's; frames
    are as large as the encoder takes them, in place of 180 pixels, and the learning rate falls as the probe has it. As
    always without a val split, a tenth of the training clips only chooses the epoch, where the demonstration learns
    from all and keeps the last. Any other number of shots, drawn by the seed, is `task=kinetics400 trainer.shots=`.

    Args:
        root: folder with the lists and the clips.
        mini: ten of each class of the films of kinetics400's miniature.
    """
    found = _mini() if mini else _read(root)
    return Task(
        train=found.train,
        test=found.test,
        score=top1_top5,
        classes=found.classes,
        views=Views("uniform", frames=None if mini else 16),
        settings={"epochs": 60, "lr": 1e-3}
        if mini
        else {"epochs": 5, "batch_size": 16, "lr": 1e-4, "weight_decay": 0.0},
        controls=("shuffled",),
        chance=100 / len(found.classes),
        split="mini" if mini else "test",
        sizes={} if mini else {"train": 4_000, "test": 4_000},
        license="generated (Apache-2.0)" if mini else "CC BY 4.0 (annotations)",
        source="https://github.com/google-deepmind/videoprism/tree/main/videoprism/colabs",
        prepare_videos=found.prepare_videos,
    )


def _mini() -> LabeledRow:
    found = classes.one_step(lambda step: step.action)
    return found._replace(train=few_shot(found.train, found.classes, 10, seed=0))


def _read(root: Path) -> LabeledRow:
    rows: dict[str, list[tuple[Path, str]]] = {"train": [], "test": []}
    for split, own in rows.items():
        file = first_existing(root, f"k400_{split}_10shot.json")
        for i, entry in enumerate(read_json(file, list), 1):
            with error_context(f"{file}, entry {i}"):
                own.append((Path(split, Path(entry["file"]).name), str(entry["label"])))
    names = check_classes(root, sorted({label for own in rows.values() for _, label in own}), 400)
    number = {name: i for i, name in enumerate(names)}
    train, test = (
        labeled_examples((path.stem, videos.get(path.stem, root / path), number[label]) for path, label in own)
        for split, own in rows.items()
        for videos in [find_videos(root / split)]
    )
    return LabeledRow(train, test, names)
