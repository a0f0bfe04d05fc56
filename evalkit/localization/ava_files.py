"""The published files of AVA and AVA-Kinetics as examples: boxes to train on, key frames to choose on and to test."""

from __future__ import annotations

import functools
import itertools
import logging
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.api import Example
from evalkit.datasets.files import find_file
from evalkit.datasets.videos import Videos, find_videos, video_file
from evalkit.errors import UserError
from evalkit.localization.key_frames import (
    ACTIONS,
    AVA_SECONDS,
    KeyFrame,
    KeyFrames,
    key_frame_name,
    read_excluded,
    read_key_frames,
    read_label_map,
    read_persons,
)
from evalkit.localization.spatiotemporal import Boxes, BoxSplits

logger = logging.getLogger("evalkit")

LABEL_MAPS = (
    "ava_action_list_v2.2_for_activitynet_2019.pbtxt",
    "ava_action_list_v2.1_for_activitynet_2018.pbtxt",
    "ava_action_list_v2.1_for_activitynet_2018.pbtxt.txt",
)
PERSONS = "ava_val_predicted_boxes.csv"  # SlowFast's name of it
_HELD_OUT = 0.1  # of the training videos
_SPARE_S = 120.0  # by which a file that is cut from a film may go on after the last key frame

Box = tuple[float, float, float, float, float]  # left, top, right, bottom, score


class Annotated(NamedTuple):
    """One file of annotations.

    Attributes:
        boxes: of each key frame, whose actions are indices of classes.
        persons: the classes of each person of each key frame, by box and name.
        place: the file of a key frame's video, and the second in that file.
        counted: key frames of its videos that are not excluded, with a box or without.
    """

    boxes: Mapping[KeyFrame, Sequence[Sequence[Any]]]
    persons: Mapping[KeyFrame, Mapping[tuple[Any, ...], Sequence[int]]]
    place: Callable[[KeyFrame], tuple[Path, float]]
    counted: int


def read(
    root: Path,
    kinetics: bool,
    boxes: Boxes,
    detections: Path | None,
    threshold: float,
    version: str,
    start: float,
) -> BoxSplits:
    """The examples of AVA, or of AVA-Kinetics, from the published files; train is empty where its files are not there.

    Args:
        root: folder with the csv files, the list of actions, and the videos.
        kinetics: read the clips of Kinetics, too.
        boxes: what the test asks about.
        detections: csv of detected persons; None for that in root, where it is there.
        threshold: the least score of a detected person.
        version: of AVA's files.
        start: second of the film at which its file starts.

    Raises:
        UserError: a file is missing or not as it should be, or a setting does not fit the others.
    """
    if start > AVA_SECONDS[0]:
        raise UserError(f"data.start={start:g} is after the first key frame, second {AVA_SECONDS[0]} of a film")
    names = read_label_map(find_file(root, *_named(*LABEL_MAPS)))
    classes = tuple(names.get(number, "") for number in range(1, max(ACTIONS, *names) + 1))
    persons = _detections_file(root, boxes, detections)
    videos = find_videos(root)
    clips = _clips(videos)
    video = functools.cache(functools.partial(video_file, videos, root / "videos"))  # a film has 900 key frames

    def files(split: str) -> list[Annotated]:
        ava = find_file(root, *_named(f"ava_{split}_{version}.csv"))
        of_split = [_read_ava(ava, classes, lambda key: (video(key[0]), key[1] - start))]
        if kinetics:
            file = find_file(root, *_named(f"kinetics_{split}_v1.0.csv"))
            frames, persons = _read(file, classes, (), None)
            of_split.append(Annotated(frames, persons, lambda key: _clip_of(video, clips, key), len(frames)))
        return of_split

    annotated = files("val")
    train = files("train") if any((root / name).is_file() for name in _named(f"ava_train_{version}.csv")) else []
    films = {of[0].place(key)[0] for of in (annotated, train) if of for key in of[0].boxes}
    return BoxSplits(
        *_split_train(train, classes),
        _key_frames(annotated, classes, boxes, persons, threshold),
        classes,
        functools.partial(_check_films, start, frozenset(films)),
        sum(file.counted for file in annotated),
    )


def _named(*names: str) -> list[str]:
    """Paths under which files are looked for: as they are, or in the folder that AVA-Kinetics' archive has."""
    return [path for name in names for path in (name, f"ava_kinetics_v1_0/{name}")]


def _read_ava(file: Path, classes: Sequence[str], place: Callable[[KeyFrame], tuple[Path, float]]) -> Annotated:
    """AVA's boxes, without the key frames that the file of excluded ones beside it names."""
    split, _, version = file.name.rpartition("_")
    listed = file.with_name(f"{split}_excluded_timestamps_{version}")
    excluded = read_excluded(listed) if listed.is_file() else set()
    frames, persons = _read(file, classes, excluded, AVA_SECONDS)
    films = {name for name, _ in frames}
    seconds = AVA_SECONDS[1] - AVA_SECONDS[0] + 1
    return Annotated(frames, persons, place, len(films) * seconds - sum(name in films for name, _ in excluded))


def _clips(videos: Videos) -> dict[str, list[tuple[int, int, str]]]:
    """Start, end and name of the clips of each video by its id."""
    clips: dict[str, list[tuple[int, int, str]]] = {}
    for name in videos:
        if parts := re.fullmatch(r"(.+)_(\d{6})_(\d{6})", name):
            clips.setdefault(parts[1], []).append((int(parts[2]), int(parts[3]), name))
    return clips


def _clip_of(
    video: Callable[[str], Path], clips: Mapping[str, Sequence[tuple[int, int, str]]], key: KeyFrame
) -> tuple[Path, float]:
    name, second = key
    start, _, file = next((clip for clip in clips.get(name, ()) if clip[0] <= second <= clip[1]), (0, 0, name))
    return video(file), second - start


def _read(
    file: Path, classes: Sequence[str], excluded: Iterable[KeyFrame], seconds: tuple[float, float] | None
) -> tuple[dict[KeyFrame, list[Any]], dict[KeyFrame, dict[tuple[Any, ...], list[int]]]]:
    """The boxes of a file with class indices and persons; logs their number."""
    frames = read_key_frames(file, {number + 1: number for number in range(len(classes))}, {*excluded}, seconds)
    if not frames.boxes:
        raise UserError(f"{file}: no key frame in it")
    unscored = sum(not classes[box[4]] for boxes in frames.boxes.values() for box in boxes)
    persons = {key: _persons(frames, key) for key in frames.boxes}
    logger.info(
        f"{file}: {len({name for name, _ in frames.boxes}):,} videos, {len(frames.boxes):,} annotated key frames, "
        f"boxes of {sum(map(len, persons.values())):,} persons; {unscored:,} of their actions are not scored"
    )
    return frames.boxes, persons


def _persons(frames: KeyFrames, key: KeyFrame) -> dict[tuple[Any, ...], list[int]]:
    """The classes of each person of a key frame, by box and name."""
    boxes = frames.boxes[key]
    classes: dict[tuple[Any, ...], list[int]] = {}
    for box, person in zip(boxes, frames.persons.get(key, [""] * len(boxes)), strict=True):
        classes.setdefault((*box[:4], person), []).append(box[4])
    return classes


def _split_train(annotated: Sequence[Annotated], classes: Sequence[str]) -> tuple[list[Example], list[Example]]:
    """An example per annotated box of nine tenths of the videos, and the key frames of the others, drawn by seed 0.

    Of videos that are not there, none is held out while there are others.

    Args:
        annotated: the files of train.
        classes: by id less one.
    """
    places = [{key: file.place(key) for key in file.boxes} for file in annotated]
    paths = sorted({path for of_file in places for path, _ in of_file.values()})
    random.Random(0).shuffle(paths)
    count = max(1, round(_HELD_OUT * len(paths))) if len(paths) > 1 else 0
    held_out = {*itertools.islice(filter(Path.is_file, paths), count)}
    train, val = [], []
    for file, of_file in zip(annotated, places, strict=True):
        for key, (path, second) in of_file.items():
            persons = file.persons[key]
            if path in held_out:
                val.append(_key_frame(file, key, classes, _given(persons)))
                continue
            for n, (person, actions) in enumerate(persons.items()):
                left, top, right, bottom = person[:4]
                train.append(
                    Example(
                        f"{key_frame_name(key)}/{n}",
                        path,
                        tuple(sorted({*actions})),
                        span=(second, second),
                        box=(left, top, right, bottom),
                    )
                )
    return train, val


def _key_frames(
    annotated: Sequence[Annotated], classes: Sequence[str], boxes: Boxes, detections: Path | None, threshold: float
) -> list[Example]:
    """The key frames of test with the boxes that are asked about; with none where no file has them.

    Args:
        annotated: the files of the split.
        classes: by id less one.
        boxes: detected, or those that are annotated.
        detections: the file of detected ones; None where it is not known.
        threshold: the least score of a detected box.

    Raises:
        UserError: the file is missing, not as it should be, or of other key frames.
    """
    detected: Mapping[KeyFrame, Sequence[Sequence[float]]] | None = None
    if detections:
        detected = read_persons(detections, threshold).boxes
        known = {key for file in annotated for key in file.boxes}
        if not known & detected.keys():
            raise UserError(
                f"{detections}: none of its {len(detected):,} key frames is one of the {len(known):,} of the task, "
                f"which are like {key_frame_name(next(iter(known)))}"
            )
        logger.info(
            f"{detections}: {sum(not detected.get(key) for key in known):,} of {len(known):,} key frames have no box; "
            f"{len(detected.keys() - known):,} key frames of the file are not annotated, and left out"
        )

    def asked(file: Annotated, key: KeyFrame) -> tuple[Box, ...] | None:
        if boxes == "truth":
            return _given(file.persons[key])
        if detected is None:
            return None
        return tuple((b[0], b[1], b[2], b[3], b[4]) for b in detected.get(key, ()))

    return [_key_frame(file, key, classes, asked(file, key)) for file in annotated for key in file.boxes]


def _given(persons: Iterable[tuple[Any, ...]]) -> tuple[Box, ...]:
    """Boxes as they are annotated, each once."""
    return tuple((*corners, 1.0) for corners in dict.fromkeys((p[0], p[1], p[2], p[3]) for p in persons))


def _key_frame(
    file: Annotated,
    key: KeyFrame,
    classes: Sequence[str],
    boxes: tuple[Box, ...] | None,
) -> Example:
    path, second = file.place(key)
    target = [[*box[:4], classes[box[4]]] for box in file.boxes[key] if classes[box[4]]]
    return Example(key_frame_name(key), path, target, span=(second, second), boxes=boxes)


def _detections_file(root: Path, boxes: Boxes, given: Path | None) -> Path | None:
    """The given file of detected persons, or the one with the usual name in the folder; else None.

    Raises:
        UserError: one is given that is not there, or where the annotated boxes are asked for.
    """
    if boxes == "truth":
        if given:
            raise UserError(f"data.detections={given} has no effect with data.boxes=truth; leave one of them out")
        return None
    if given and not given.is_file():
        raise UserError(f"data.detections={given}: there is no such file")
    usual = root / PERSONS
    return given or (usual if usual.is_file() else None)


def _check_films(start: float, films: frozenset[Path], examples: Sequence[Example]) -> None:
    whole: list[Path] = []
    for path in sorted({example.video for example in examples} & films):
        seconds = _seconds(path)
        if seconds and seconds < AVA_SECONDS[0] - start:
            raise UserError(
                f"{path} lasts {seconds:,.0f} s, and its first key frame is second {AVA_SECONDS[0]} of the film: of "
                "files that are cut from a film, data.start= is the second at which they start, mostly 900"
            )
        if seconds and start and seconds > AVA_SECONDS[1] - start + _SPARE_S:
            whole.append(path)
    if whole:
        logger.warning(
            f"data.start={start:g}, and {len(whole)} files last longer than files that are cut from there to second "
            f"1,800, first {whole[0]}: of whole films leave data.start out"
        )


def _seconds(path: Path) -> float | None:
    """Length in the file's header; None if unknown. A damaged file fails later, when it is decoded."""
    import av
    from av.error import FFmpegError

    from evalkit.video.media import open_container

    try:
        with open_container(path) as container:
            return float(container.duration or 0) / av.time_base or None
    except (FFmpegError, OSError):
        return None
