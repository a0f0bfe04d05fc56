"""CalMS21: interactions of two mice, seen from above (https://arxiv.org/abs/2104.02710)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from evalkit.api import Data, Example, Task
from evalkit.datasets import behavior
from evalkit.datasets.actions.classes import as_label_sets
from evalkit.datasets.files import LabeledSplits, find_file, parsing_errors_at, read_json
from evalkit.datasets.videos import find_videos
from evalkit.mini import classes, world

FPS = 30.0  # of the published mp4 files, whatever the camera's was
NAMES = ("other", "attack", "investigation", "mount")
SHOWN = ("red", "green", "blue")  # in the miniature


DATA = Data(
    source="https://data.caltech.edu/records/s0vdx-0k302",
    license="CC BY 4.0",
    files={
        "task1_classic_classification/calms21_task1_train.json": "{annotator: {sequence: {annotations, metadata: "
        "{vocab}}}}; also in data.root= itself",
        "task1_classic_classification/calms21_task1_test.json": "the same",
        "task1_videos_mp4/NAME.mp4": "the videos, in any folder there, NAME as the sequence",
    },
    sizes={"test": 262_107},
)


def task(root: Path = Path("data/calms21"), mini: bool = False, train_step: int = 16, test_step: int = 1) -> Task:
    """Classifies attack, investigation and mounting of two mice, frame by frame.

    Files as published, of task 1, which alone has videos: task1_classic_classification/calms21_task1_train.json and
    _test.json, and the mp4 files of task1_videos_mp4, in any folder there. Each frame has one behavior, or none; all
    70 videos of train are trained on. Test is 262,107 clips, one around each frame; evalkit/datasets/behavior.py says
    what of this is VideoPrism's.

    Args:
        root: folder with the json files and the videos.
        mini: the films of kinetics400's miniature, three colors and all others as background.
        train_step: distance in frames between train examples.
        test_step: distance in frames between test examples; only 1 tests all frames, as the papers do.
    """
    return behavior.behavior_task(
        "calms21",
        _mini() if mini else _read(root, {"train": train_step, "test": test_step}),
        mini,
        split="test",
        sizes=DATA.sizes if test_step == 1 else {},
        license=DATA.license,
        source=DATA.source,
    )


def _mini() -> LabeledSplits:
    def label(step: world.Step) -> str:
        return step.thing.color if step.thing.color in SHOWN else behavior.BACKGROUND

    return as_label_sets(classes.one_step(label))


def _read(root: Path, steps: Mapping[str, int]) -> LabeledSplits:
    train, test = (list(_examples(root, split, step)) for split, step in steps.items())
    return LabeledSplits(train, test, (behavior.BACKGROUND, *NAMES[1:]), behavior.frame_rate_check(FPS))


def _examples(root: Path, split: str, step: int) -> Iterator[Example]:
    published = f"calms21_task1_{split}.json"
    file = find_file(root, f"task1_classic_classification/{published}", published)
    videos = find_videos(root)
    for annotator, annotated in read_json(file, dict).items():
        with parsing_errors_at(f"{file}, {annotator}"):
            sequences = list(annotated.items())
        for key, sequence in sequences:
            with parsing_errors_at(f"{file}, {key}"):
                number = {n: NAMES.index(behavior) for behavior, n in sequence["metadata"]["vocab"].items()}
                targets = [(number[n],) for n in sequence["annotations"]]
            stem = key.rpartition("/")[2]
            wanted, raw = root / "task1_videos_mp4" / split / stem, root / "task1_videos_seq" / split / stem
            video = behavior.converted_video(videos, wanted.with_suffix(".mp4"), raw.with_suffix(".seq"), FPS)
            yield from behavior.frame_clips(stem, video, targets, FPS, step)
