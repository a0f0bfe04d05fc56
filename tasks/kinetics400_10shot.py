"""Kinetics-400 with ten training clips per class, by VideoPrism's lists (https://github.com/google-deepmind/videoprism)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evalkit.api import Data, Task, Views
from evalkit.datasets.actions.classes import check_classes, labeled_examples
from evalkit.datasets.actions.kinetics import refuse_unlike
from evalkit.datasets.fewshot import few_shot
from evalkit.datasets.files import LabeledSplits, find_file, parsing_errors_at, read_json
from evalkit.datasets.miniature import miniature
from evalkit.datasets.videos import find_videos, video_file
from evalkit.metrics import top1_top5
from evalkit.mini import classes

DATA = Data(
    source="https://github.com/google-deepmind/videoprism/tree/main/videoprism/colabs",
    license="CC BY 4.0 (annotations)",
    files={
        "k400_train_10shot.json": "[{...}]: ten clips of each class, as VideoPrism's repository has it",
        "k400_test_10shot.json": "the same, of Kinetics' test",
        "train/NAME.mp4": "the clips, flat or in class folders",
        "test/NAME.mp4": "the same",
    },
    sizes={"train": 4_000, "test": 4_000},
)


def task(root: Path = Path("data/kinetics400"), mini: bool = False) -> Task:
    """Classifies a human action after training on ten examples per class, as VideoPrism's demonstration.

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
    splits = _mini() if mini else _read(root)
    facts: dict[str, Any] = {
        "split": "test",
        "sizes": DATA.sizes,
        "license": DATA.license,
    }
    return Task(
        train=splits.train,
        test=splits.test,
        score=top1_top5,
        classes=splits.classes,
        views=Views("uniform", frames=None if mini else 16),
        settings={"epochs": 60, "lr": 1e-3}
        if mini
        else {"epochs": 5, "batch_size": 16, "lr": 1e-4, "weight_decay": 0.0},
        controls=("shuffled",),
        chance=100 / len(splits.classes),
        source=DATA.source,
        prepare_videos=splits.prepare_videos,
        **(miniature(facts) if mini else facts),
    )


def _mini() -> LabeledSplits:
    splits = classes.one_step(lambda step: step.action)
    return splits._replace(train=few_shot(splits.train, splits.classes, 10, seed=0))


def _read(root: Path) -> LabeledSplits:
    rows: dict[str, list[tuple[Path, str]]] = {"train": [], "test": []}
    labels: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for split, clips in rows.items():
        file = find_file(root, f"k400_{split}_10shot.json")
        for i, entry in enumerate(read_json(file, list), 1):
            with parsing_errors_at(where := f"{file}, entry {i}"):
                clips.append((Path(split, Path(entry["file"]).name), str(entry["label"]).strip()))
            labels[split].setdefault(clips[-1][1], where)
    if len(labels["train"] | labels["test"]) > 400:
        refuse_unlike(labels)
    names = check_classes(root, sorted(labels["train"] | labels["test"]), 400)
    number = {name: i for i, name in enumerate(names)}
    train, test = (
        labeled_examples(
            (path.stem, video_file(videos, (root / path).parent, path.name), number[label]) for path, label in clips
        )
        for split, clips in rows.items()
        for videos in [find_videos(root / split)]
    )
    return LabeledSplits(train, test, names)
