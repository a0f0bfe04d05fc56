"""CRIM13: behaviors of two mice, seen from above or from the side (CVPR 2012)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from evalkit.api import Data, Task
from evalkit.datasets import behavior
from evalkit.datasets.actions.classes import as_label_sets, check_classes
from evalkit.datasets.files import LabeledSplits, parsing_errors_at, read_lines
from evalkit.datasets.videos import files_under, find_videos
from evalkit.errors import UserError
from evalkit.mini import classes

FPS = 25.0
HEADER = "Caltech Behavior Annotator - Annotation File"
SHOWN = classes.REVERSIBLE  # in the miniature


DATA = Data(
    source="https://data.caltech.edu/records/4emt5-b0t10",
    license="the data set's own",
    files={
        "CRIM13_train1/SESSION.txt": "annotations of the Caltech Behavior Annotator, as SESSION.txt, "
        "SESSION_s.txt or SESSION_t.txt; the folders of the archives: CRIM13_train1, CRIM13_train2, CRIM13_test1, "
        "CRIM13_test2",
        "CRIM13_train1/SESSION_s.mp4": "the films, converted from SESSION_s.seq and SESSION_t.seq, beside their "
        "annotations",
    },
)


def task(
    root: Path = Path("data/crim13"),
    mini: bool = False,
    view: Literal["side", "top"] = "side",
    train_step: int = 16,
    test_step: int = 1,
) -> Task:
    """Classifies twelve behaviors of two mice, frame by frame.

    Files as published, the archives unpacked in their folders, CRIM13_train1, _train2, _test1 and _test2: annotations
    as the Caltech Behavior Annotator writes them, SESSION.txt, SESSION_s.txt or SESSION_t.txt in any folder of a split;
    both views show the same frames. The first stream is read, which has one behavior at a time. The videos,
    SESSION_s.seq and SESSION_t.seq, must be converted to mp4 beside them. That VideoPrism divides as the archives do,
    and leaves CRIM13_validation out, is assumed; evalkit/datasets/behavior.py says what else is.

    Args:
        root: folder with the folders of the archives.
        mini: the films of kinetics400's miniature, six motions and all others as background.
        view: of the camera: side or top.
        train_step: distance in frames between train examples.
        test_step: distance in frames between test examples; only 1 tests all frames.
    """
    return behavior.behavior_task(
        "crim13",
        _mini() if mini else _read(root, view, {"train": train_step, "test": test_step}),
        mini,
        split=view,
        sizes=DATA.sizes,
        license=DATA.license,
        source=DATA.source,
    )


def _mini() -> LabeledSplits:
    splits = classes.one_step(lambda step: step.action if step.action in SHOWN else behavior.BACKGROUND)
    return as_label_sets(splits)


class Session(NamedTuple):
    """A recording: its name, its file in the wanted view, and the behavior of each frame, None where it has none."""

    name: str
    video: Path
    labels: Sequence[str | None]


def _read(root: Path, view: str, steps: Mapping[str, int]) -> LabeledSplits:
    sessions = {split: list(_sessions(root, split, view[0])) for split in steps}
    seen = {label for split in sessions.values() for session in split for label in session.labels if label}
    names = check_classes(root, ["other", *sorted(seen - {"other"})], 13)
    number = {label: (i,) for i, label in enumerate(names)}
    train, test = (
        [
            example
            for name, video, labels in sessions[split]
            for example in behavior.frame_clips(name, video, [label and number[label] for label in labels], FPS, step)
        ]
        for split, step in steps.items()
    )
    return LabeledSplits(train, test, (behavior.BACKGROUND, *names[1:]), behavior.frame_rate_check(FPS))


def _sessions(root: Path, split: str, view: str) -> Iterator[Session]:
    folders = [folder for folder in sorted(root.glob(f"CRIM13_{split}*")) if folder.is_dir()]
    if not folders:
        raise UserError(f"data.root={root} has no folder CRIM13_{split}1: wanted the archives, unpacked")
    videos = find_videos(*folders)
    files = [file for folder in folders for file in files_under(folder)]
    raw = {file.stem: file for file in files if file.suffix == ".seq"}
    for name, file in _annotations([file for file in files if file.suffix == ".txt"], view).items():
        recorded = raw.get(f"{name}_{view}", file.with_name(f"{name}_{view}.seq"))
        yield Session(
            name, behavior.converted_video(videos, recorded.with_suffix(".mp4"), recorded, FPS), _labels(file)
        )


def _annotations(files: Sequence[Path], view: str) -> dict[str, Path]:
    """The annotation of each session; of several, that of the view, else that without a view."""
    by_session: dict[str, dict[str, Path]] = {}
    for file in sorted(files):
        if next(read_lines(file), ("", ""))[1] == HEADER:
            name, _, of = file.stem.rpartition("_")
            name, of = (name, of) if of in ("s", "t") else (file.stem, "")
            if (other := by_session.setdefault(name, {}).setdefault(of, file)) != file:
                raise UserError(f"two annotations of {name}: {other} and {file}; leave one there")
    return {
        name: next(by_view[of] for of in (view, "", "s", "t") if of in by_view)
        for name, by_view in sorted(by_session.items())
    }


def _labels(file: Path) -> list[str | None]:
    """The behavior of each frame by the first stream: after `S1:`, lines of first and last frame, from 1, and
    behavior, up to the next stream.
    """
    labels: list[str | None] = []
    lines = itertools.dropwhile(lambda line: not line[1].startswith("S1:"), read_lines(file))
    for where, line in itertools.islice(lines, 1, None):
        if line.startswith("S2:"):
            break
        if line.strip("-"):
            with parsing_errors_at(where):
                first, last, behavior = line.split()
                if not len(labels) < int(first) <= int(last):
                    raise ValueError(f"frames {first} to {last} after frame {len(labels)}")
                labels += [None] * (int(first) - 1 - len(labels)) + [behavior] * (int(last) - int(first) + 1)
    return labels
