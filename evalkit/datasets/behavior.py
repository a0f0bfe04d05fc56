"""What animals do, frame by frame: VideoPrism's protocol for it, and a clip around each labeled frame.

Learning rate, dropout, frames, loss, and that the mean leaves the background out are VideoPrism's (appendix E.1 of
https://arxiv.org/abs/2402.13217), which says no more. Where SciVid, by some of its authors and partly on its data
(https://github.com/google-deepmind/scivid), says how Fly-vs-Fly and CalMS21 were prepared, that is done for all: a clip
has the label of its middle frame, each class a sigmoid of its own, the background too, every frame of test counts, and
of train every 16th is read, since the clips between show the same frames.

What neither prints is chosen here: one view of the whole frame, squashed to the encoder's square, since a center crop
would cut animals off; the same for training, without augmentation; batch 256 and weight decay 1e-5, as VideoGLUE; 50
epochs, which on CalMS21 is near the 1.28 M training clips of SciVid; near the ends of a video the clip is its first or
last 16 frames.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.api import Example, Task, Views
from evalkit.datasets import protocols, published
from evalkit.datasets.files import LabeledRow
from evalkit.errors import UserError
from evalkit.metrics.average_precision import box_map, chance_map, foreground_map
from evalkit.metrics.classification import macro_accuracy

FRAMES = 16
# The background: class 0 of every task that has one. The parenthesis puts it first where classes are sorted.
OTHER = "(other)"
PROBE = {"batch_size": 256, "lr": 5e-5, "weight_decay": 1e-5, "dropout": 0.5, "epochs": 50}


def clips(
    name: str, video: Path, targets: Sequence[Any], fps: float, step: int, stride: int = 1, frames: int = FRAMES
) -> Iterator[Example]:
    """An example of every `step`-th frame, whose span holds the clip that has it in its middle, as `NAME/FRAME`.

    The first stands half a step into the video, so that a step as long as a clip divides the video into clips; a video
    that is shorter than a step has one example, of its middle.

    Args:
        name: of the video.
        video: path of the file.
        targets: of each frame; None where it has none, and is no example.
        fps: frames per second of the file.
        step: frames from one example to the next.
        stride: frames from one frame of a clip to the next.
        frames: of a clip.

    Raises:
        UserError: the step is less than one frame.
    """
    check_steps(step)
    n, length = len(targets), frames * stride
    for middle in range(min(step, n) // 2, n, step):
        if targets[middle] is not None:
            start = max(0, min(middle - length // 2, n - length))
            end = min(start + length, n)
            yield Example(f"{name}/{middle}", video, targets[middle], span=(start / fps, end / fps))


def check_steps(*steps: int) -> None:
    """Nothing where each is at least one frame.

    Raises:
        UserError: one is less.
    """
    if min(steps) < 1:
        raise UserError(f"{min(steps)} frames from one example to the next; the steps of data.* must be at least 1")


def converted(videos: Mapping[str, Path], wanted: Path, raw: Path, fps: float) -> Path:
    """The file of a video that is published in a form that no decoder reads; the wanted one where there is neither.

    Args:
        videos: those that are there, by name.
        wanted: where it should be, by any ending.
        raw: where its published form would be.
        fps: frames per second that its labels count in.

    Raises:
        UserError: only the published form is there.
    """
    if wanted.stem not in videos and raw.exists():
        raise UserError(
            f"{raw}: no decoder reads it; convert it and its like to {wanted}, each frame once, {fps:g} a second"
        )
    return videos.get(wanted.stem, wanted)


def counted(fps: float) -> Callable[[Sequence[Example]], None]:
    """A `Task.provide` that makes nothing: it refuses files in which frame k is not shown at k / fps."""
    return functools.partial(_check_rate, fps)


def _check_rate(fps: float, examples: Sequence[Example]) -> None:
    """Says which file has another rate; one that is missing or damaged is told when it is read."""
    for path in sorted({example.video for example in examples}):
        rate = _rate(path) if path.is_file() else None
        if rate and abs(rate / fps - 1) > 1e-5:  # half a frame in half an hour
            raise UserError(
                f"{path}: {rate:g} frames a second; its labels count {fps:g}: convert it again, each frame once"
            )


def _rate(path: Path) -> float | None:
    """Frames per second, as the file's header has it; None where it is unknown."""
    from av.error import FFmpegError

    from evalkit.video.timeline import open_file

    try:
        with open_file(path) as container:
            return float(container.streams.video[0].average_rate or 0) or None
    except (FFmpegError, IndexError):
        return None


def in_sets(found: LabeledRow) -> LabeledRow:
    """The same examples, each with the set of its one class as its target."""
    train, test = ([replace(one, target=(one.target,)) for one in split] for split in (found.train, found.test))
    return found._replace(train=train, test=test)


def behavior_task(
    benchmark: str,
    found: LabeledRow,
    mini: bool,
    stride: int = 1,
    settings: Mapping[str, Any] = PROBE,
    frames: int = FRAMES,
    **facts: Any,
) -> Task:
    """A task of what animals do: by mAP where targets are sets of classes, else by macro accuracy.

    Where examples have boxes, mAP is AVA's, over all classes, and a box is what the probe asks with; else it is without
    class 0, the background.

    Args:
        benchmark: its name.
        found: the examples.
        mini: the examples are the miniature's: no published number is about them, and no protocol was made for them.
        stride: frames from one frame of a clip to the next.
        settings: of the adapter.
        frames: of a clip.
        facts: other fields of the task, of the benchmark itself.

    Raises:
        UserError: a split has no example.
    """
    for split in ("train", "test"):
        if not getattr(found, split):
            raise UserError(f"{benchmark}: its files have no labeled frame of {split}")
    several, boxed = isinstance(found.test[0].target, tuple), found.test[0].box is not None
    if mini:
        facts |= {"split": "mini", "sizes": {}, "license": "generated (Apache-2.0)", **protocols.MINI}
    else:
        metric = "mAP" if several else "macro_accuracy"
        facts |= {
            "published": published.rows(benchmark, metric, "frozen", facts["split"]),
            "views": Views("dense", frames=frames, stride=stride, resize="squash"),
            "settings": settings,
        }
    if boxed:
        facts |= {"views": replace(facts["views"], resize="squash"), "settings": facts["settings"] | {"head": "box"}}
    counted = [[c for c in one.target if c or boxed] for one in found.test] if several else []
    return Task(
        train=found.train,
        test=found.test,
        classes=found.classes,
        prepare_videos=found.prepare_videos,
        score=box_map if boxed else foreground_map if several else macro_accuracy,
        chance=chance_map(counted) if several else 100 / len(found.classes),
        **facts,
    )
