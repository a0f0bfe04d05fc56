"""Animal behavior, frame by frame: VideoPrism's protocol, with a clip around each labeled frame.

Learning rate, dropout, frames, loss, and the exclusion of the background class from the mean are VideoPrism's (appendix
E.1 of https://arxiv.org/abs/2402.13217), which states nothing else. SciVid, by some of the same authors and partly on
the same data (https://github.com/google-deepmind/scivid), describes how Fly-vs-Fly and CalMS21 were prepared; all tasks
follow it here: a clip has the label of its middle frame, each class including the background has a sigmoid, every test
frame counts, and every 16th train frame is used, since the clips in between show the same frames.

Choices made here, where neither paper is explicit: one view of the whole frame, squashed to the encoder's square, since
a center crop would cut animals off; the same view for training, without augmentation; batch size 256 and weight decay
1e-5, as in VideoGLUE; 50 epochs, which on CalMS21 is close to SciVid's 1.28 M training clips; near the ends of a video,
the clip is its first or last 16 frames.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.api import Example, Task, Views
from evalkit.datasets import protocols, published
from evalkit.datasets.files import LabeledSplits
from evalkit.datasets.miniature import miniature
from evalkit.datasets.videos import Videos, video_file
from evalkit.errors import UserError
from evalkit.metrics.average_precision import box_map, chance_map, foreground_map
from evalkit.metrics.classification import macro_accuracy

CLIP_FRAMES = 16
# Class 0 of every task that has a background. The parenthesis puts it first where classes are sorted.
BACKGROUND = "(other)"
PROBE = {"batch_size": 256, "lr": 5e-5, "weight_decay": 1e-5, "dropout": 0.5, "epochs": 50}


def frame_clips(
    name: str, video: Path, targets: Sequence[Any], fps: float, step: int, stride: int = 1, frames: int = CLIP_FRAMES
) -> Iterator[Example]:
    """Yields an example of every `step`-th frame, with id NAME/FRAME; its span is the clip centered on the frame.

    The first frame is half a step into the video, so that a step as long as a clip divides the video into clips. A
    video that is shorter than a step has one example, of its middle.

    Args:
        name: of the video.
        video: path of the file.
        targets: of each frame; None for a frame without target, which is no example.
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
    """Checks that each step is at least one frame.

    Raises:
        UserError: a step is less.
    """
    if min(steps) < 1:
        raise UserError(f"{min(steps)} frames from one example to the next; the steps of data.* must be at least 1")


def converted_video(videos: Videos, wanted: Path, raw: Path, fps: float) -> Path:
    """The converted file of a video whose published form no decoder reads; its expected path if it is missing.

    Args:
        videos: existing videos by name.
        wanted: the expected path, with any ending.
        raw: the path of the published form.
        fps: frames per second that the labels count in.

    Raises:
        UserError: only the published form exists.
    """
    if wanted.stem not in videos and raw.exists():
        raise UserError(
            f"{raw}: no decoder reads it; convert all such files to {wanted}, each frame once, {fps:g} a second"
        )
    return video_file(videos, wanted.parent, wanted.stem)


def frame_rate_check(fps: float) -> Callable[[Sequence[Example]], None]:
    """A `Task.prepare_videos` that refuses files of another frame rate, where frame k is not at k / fps."""
    return functools.partial(_check_rate, fps)


def _check_rate(fps: float, examples: Sequence[Example]) -> None:
    """Raises for a file of another rate; a missing or damaged file fails later, when it is decoded."""
    for path in sorted({example.video for example in examples}):
        rate = _rate(path)
        if rate and abs(rate / fps - 1) > 1e-5:  # half a frame in half an hour
            raise UserError(
                f"{path}: {rate:g} frames a second; its labels count {fps:g}: convert it again, each frame once"
            )


def _rate(path: Path) -> float | None:
    """Frames per second in the file's header; None if unknown."""
    from av.error import FFmpegError

    from evalkit.video.media import open_container

    try:
        with open_container(path) as container:
            return float(container.streams.video[0].average_rate or 0) or None
    except (FFmpegError, OSError, IndexError):
        return None


def behavior_task(
    benchmark: str,
    splits: LabeledSplits,
    mini: bool,
    stride: int = 1,
    settings: Mapping[str, Any] = PROBE,
    frames: int = CLIP_FRAMES,
    **facts: Any,
) -> Task:
    """An animal behavior task, scored by mAP if targets are sets of classes, else by macro accuracy.

    If examples have boxes, mAP is AVA's, over all classes, and the probe has a box head; else it is without class 0,
    the background.

    Args:
        benchmark: its name.
        splits: the examples.
        mini: they are the miniature's, whose protocol is `protocols.MINI`.
        stride: frames from one frame of a clip to the next.
        settings: of the adapter.
        frames: of a clip.
        facts: other fields of `evalkit.api.Task`.

    Raises:
        UserError: a split has no example.
    """
    for split in ("train", "test"):
        if not getattr(splits, split):
            raise UserError(f"{benchmark}: its files have no labeled frame of {split}")
    several, boxed = isinstance(splits.test[0].target, tuple), splits.test[0].box is not None
    if mini:
        facts = miniature(facts) | protocols.MINI
    else:
        metric = "mAP" if several else "macro_accuracy"
        facts |= {
            "published": published.rows(benchmark, metric, "frozen", facts["split"]),
            "views": Views("dense", frames=frames, stride=stride, resize="squash"),
            "settings": settings,
        }
    if boxed:
        facts |= {"views": replace(facts["views"], resize="squash"), "settings": facts["settings"] | {"head": "box"}}
    scored = [[c for c in example.target if c or boxed] for example in splits.test] if several else []
    return Task(
        train=splits.train,
        test=splits.test,
        classes=splits.classes,
        prepare_videos=splits.prepare_videos,
        score=box_map if boxed else foreground_map if several else macro_accuracy,
        chance=chance_map(scored) if several else 100 / len(splits.classes),
        **facts,
    )
