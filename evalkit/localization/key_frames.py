"""Boxes with actions in key frames: AVA's csv and label map, files of detections, and of detected persons."""

from __future__ import annotations

import csv
import heapq
import logging
import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.datasets.files import refuse_nul
from evalkit.errors import UserError, one_line
from evalkit.metrics.localization import BOXES_PER_FRAME

logger = logging.getLogger("evalkit")

AVA_SECONDS = (902, 1798)  # of the first and the last key frame
ACTIONS = 80  # of AVA; a label map names those that are scored
_WIDTHS = {2: "a key frame without a box", 7: "a box", 8: "a box with a person or a score"}

KeyFrame = tuple[str, float]  # a video's name, and the second in it
Box = list[Any]  # left, top, right and bottom as shares of width and height, action; of a detection also its score


class KeyFrames(NamedTuple):
    """The boxes of each key frame of a file, and what of it is unusual.

    Attributes:
        boxes: [left, top, right, bottom, action] of each key frame, in the order of the file; may be none. A detection
            also has its score. The action is its name in the label map.
        persons: the person of each box, where the file names them; else empty.
        unscored: boxes of actions that the label map does not have, which are left out while their key frame is kept.
        repeated: boxes that stand there more than once, which count as often, as in the official evaluation.
        excluded: key frames left out as excluded.
        beyond: detections left out because their key frame has 50 with higher scores.
    """

    boxes: dict[KeyFrame, list[Box]]
    persons: dict[KeyFrame, list[str]]
    unscored: int
    repeated: int
    excluded: int
    beyond: int = 0


class Persons(NamedTuple):
    """Detected persons, and what is left out of their file.

    Attributes:
        boxes: [left, top, right, bottom, score] of each key frame.
        below: boxes with a score below the threshold.
    """

    boxes: dict[KeyFrame, list[list[float]]]
    below: int


def read_label_map(file: Path) -> dict[int, str]:
    """Reads the names of scored actions by id: item { name: "..." id: 1 }, or label_id.

    Raises:
        UserError: the file is missing, has no item, or names an item without name or id, or an id or name twice.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {one_line(error)}") from error
    names: dict[int, str] = {}
    for item in re.finditer(r"item\s*\{(.*?)(\}|(?=item\s*\{)|\Z)", text, re.DOTALL):
        where = f"{file}, line {text.count(chr(10), 0, item.start()) + 1}"
        name = re.search(r'\bname\s*:\s*"(.*)"', item[1])
        number = re.search(r"\b(?:label_)?id\s*:\s*(\d+)", item[1])
        if not (name and number and item[2] == "}"):
            raise UserError(f'{where}: not as published: wanted item {{ name: "..." id: 1 }}')
        if int(number[1]) in names or name[1] in names.values():
            raise UserError(f"{where}: id {number[1]} or name {name[1]!r} appears twice")
        names[int(number[1])] = name[1]
    if not names:
        raise UserError(f'{file}: no action in it; wanted lines of item {{ name: "..." id: 1 }}')
    return names


def read_excluded(file: Path) -> set[KeyFrame]:
    """Reads key frames that are not scored: video,second in each row.

    Raises:
        UserError: the file is missing, or names a row that is not so.
    """
    return {_key(where, row) for where, row in _rows(file, {2: "video,second"})}


def read_key_frames(
    file: Path,
    actions: Mapping[int, str] | Mapping[int, int],
    excluded: Collection[KeyFrame] = (),
    seconds: tuple[float, float] | None = AVA_SECONDS,
) -> KeyFrames:
    """Reads annotated boxes: video, second, left, top, right, bottom, action and person in each row, without a header.

    Args:
        file: such as ava_val_v2.2.csv. A row of video and second alone is a key frame without boxes.
        actions: what stands for an action in a box, by id: its name, or the index of its class; others are left out.
        excluded: key frames to leave out.
        seconds: first and last second of a key frame; None for any.

    Raises:
        UserError: the file is missing, or names a row that is not as published: with another number of values, a second
            outside, a box outside of 0..1 or with left and right in the wrong order, an action that AVA does not have.
    """
    return _read(file, actions, excluded, seconds, scored=False)


def read_detections(file: Path, actions: Mapping[int, str]) -> KeyFrames:
    """Reads detections as AVA's challenge takes them: as `read_key_frames`, with a score in place of the person.

    Of each key frame the 50 of the highest scores are kept, in the order of the official evaluation; of equal scores
    those that its heap keeps. Boxes without an area are kept, as it reads them. A key frame may be at any second.

    Raises:
        UserError: as `read_key_frames`, and where a row has no score or one that is not a number.
    """
    return _read(file, actions, (), None, scored=True)


def read_persons(file: Path, threshold: float) -> Persons:
    """Reads detected persons as SlowFast does: as detections, the action empty, with a score in 0..1.

    Args:
        file: such as ava_val_predicted_boxes.csv.
        threshold: the least score that is kept: 0.8 of AVA's persons, 0.2 of AVA-Kinetics' (VideoGLUE).

    Raises:
        UserError: the file is missing, or names a row that is not so.
    """
    boxes: dict[KeyFrame, list[list[float]]] = {}
    seen: set[tuple[KeyFrame, tuple[float, ...]]] = set()
    below = repeated = 0
    for where, row in _rows(file, _WIDTHS):
        key = _key(where, row)
        members = boxes.setdefault(key, [])
        if len(row) == 2:
            continue
        if len(row) != 8 or row[6]:
            raise UserError(f"{where}: {','.join(row)[:80]}; wanted video,second,left,top,right,bottom,,score")
        person = [*_box(where, row), _number(where, "score", row[7])]
        if not 0 <= person[4] <= 1:
            raise UserError(f"{where}: score {row[7]}; wanted a share of 1")
        if person[4] < threshold:
            below += 1
        elif (key, tuple(person)) in seen:
            repeated += 1
        else:
            seen.add((key, tuple(person)))
            members.append(person)
    _log_counts(
        file,
        {f"boxes have scores below {threshold:g}": below, "boxes stand there more than once, and count once": repeated},
    )
    return Persons(boxes, below)


def key_frame_name(key: KeyFrame) -> str:
    """A key frame as an id: the video's name, and the second in four digits, such as -5KQ66BBWC4_0902."""
    name, second = key
    return f"{name}_{second:04.0f}" if second.is_integer() else f"{name}_{second:g}"


def _read(
    file: Path,
    actions: Mapping[int, str] | Mapping[int, int],
    excluded: Collection[KeyFrame],
    seconds: tuple[float, float] | None,
    scored: bool,
) -> KeyFrames:
    boxes: dict[KeyFrame, list[Box]] = {}
    persons: dict[KeyFrame, list[str]] = {}
    left_out: set[KeyFrame] = set()
    seen: set[tuple[KeyFrame, tuple[Any, ...]]] = set()
    heaps: dict[KeyFrame, list[Any]] = {}
    unscored = repeated = beyond = 0
    first_repeated = ""
    for where, row in _rows(file, _WIDTHS):
        key = _key(where, row, seconds)
        if key in excluded:
            left_out.add(key)
            continue
        members = boxes.setdefault(key, [])
        if len(row) == 2 or not any(row[2:]):  # AVA-Kinetics leaves the values of such a key frame empty
            continue
        if scored and len(row) != 8:
            raise UserError(f"{where}: no score; wanted video,second,left,top,right,bottom,action,score")
        box: Box = _box(where, row, ordered=not scored)
        action = _action(where, row[6])
        if action not in actions:
            unscored += 1
            continue
        box.append(actions[action])
        if (key, tuple(box)) in seen:
            repeated += 1
            first_repeated = first_repeated or where
        seen.add((key, tuple(box)))
        if scored:
            box.append(_number(where, "score", row[7]))
            beyond += not _keep(heaps.setdefault(key, []), (box[5], action, box[1], box[0], box[3], box[2]), box)
            continue
        if len(row) == 8:
            persons.setdefault(key, []).append(row[7])
        members.append(box)
    for key, heap in heaps.items():
        boxes[key] = [box for *_, box in sorted(heap, key=lambda item: -item[0][0])]
    _log_counts(
        file,
        {
            "boxes have actions that are not scored": unscored,
            f"boxes stand there more than once, first {first_repeated}": repeated,
            "key frames are excluded": len(left_out),
            f"boxes are beyond the {BOXES_PER_FRAME} that count in a key frame": beyond,
        },
    )
    return KeyFrames(boxes, persons, unscored, repeated, len(left_out), beyond)


def _log_counts(file: Path, counts: Mapping[str, int]) -> None:
    """Logs what is unusual in a file, in one line, without what there is none of."""
    if unusual := [f"{count:,} {what}" for what, count in counts.items() if count]:
        logger.info(f"{file}: {'; '.join(unusual)}")


def _keep(heap: list[Any], rank: tuple[float, ...], box: Box) -> bool:
    """Puts a detection on a heap of as many as count, if it is among them; whether none had to go for it."""
    if len(heap) < BOXES_PER_FRAME:
        heapq.heappush(heap, (rank, box))
        return True
    if rank[0] > heap[0][0][0]:
        heapq.heapreplace(heap, (rank, box))
    return False


def _rows(file: Path, widths: Mapping[int, str]) -> Iterator[tuple[str, list[str]]]:
    """Yields file and line of each row, and its values; all rows with a box have as many."""
    width = 0
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            for row in reader:
                where = f"{file}, line {reader.line_num}"
                if not row:
                    continue
                refuse_nul(where, row)
                if len(row) not in widths or (len(row) > 2 and width and len(row) != width):
                    wanted = f"{width} as above" if width else " or ".join(map(str, widths))
                    raise UserError(f"{where}: {len(row)} values; wanted {wanted}")
                width = len(row) if len(row) > 2 else width
                yield where, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {file} as a table: {one_line(error)}") from error


def _key(where: str, row: list[str], seconds: tuple[float, float] | None = None) -> KeyFrame:
    second = _number(where, "second", row[1])
    if not row[0]:
        raise UserError(f"{where}: no video")
    if second < 0 or (seconds and not seconds[0] <= second <= seconds[1]):
        wanted = f"{seconds[0]:g} to {seconds[1]:g}" if seconds else "0 or more"
        raise UserError(f"{where}: second {row[1]}; wanted {wanted}")
    return row[0], second


def _box(where: str, row: list[str], ordered: bool = True) -> Box:
    left, top, right, bottom = box = [_number(where, "box", value) for value in row[2:6]]
    if not (min(box) >= 0 and max(box) <= 1):
        raise UserError(f"{where}: box {', '.join(row[2:6])}; wanted shares of width and height, 0 to 1")
    if ordered and not (left <= right and top <= bottom):
        raise UserError(f"{where}: box {', '.join(row[2:6])}; wanted left <= right and top <= bottom")
    return box


def _action(where: str, text: str) -> int:
    if not text.strip().isascii() or not text.strip().isdigit() or not 1 <= int(text) <= ACTIONS:
        raise UserError(f"{where}: action {text!r}; wanted a number from 1 to {ACTIONS}")
    return int(text)


def _number(where: str, what: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {what} {text!r}; wanted a number")
    return number
