"""Pictures of the samples' videos, as base64 JPEGs for the page: thumbnails, and key frames to draw boxes on."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av

from evalkit.api import Views
from evalkit.errors import UserError
from evalkit.video import media
from evalkit.video.decode import Video, open_video
from evalkit.video.sampling import frame_indices
from evalkit.video.timeline import DecodeError

THUMBNAIL_WIDTH = 96  # pixels
KEY_FRAME_WIDTH = 240  # pixels
_MOMENT = Views("dense", stride=1)


class Picture(NamedTuple):
    """A frame of a video that the page shows.

    Attributes:
        key: by which the page finds it: the video's name, or the id of a key frame's sample.
        video: the video's name in the result.
        file: the task's own path of it; None where that is not known.
        second: of the key frame; None for the middle frame.
    """

    key: str
    video: str
    file: Path | None = None
    second: float | None = None


def add_pictures(
    samples: Mapping[str, dict[str, Any]], wanted: Mapping[str, Sequence[Picture]], folder: Path, room: int
) -> dict[str, str]:
    """Puts the name of its pictures into each task's samples, with a note if some are missing.

    Where they are key frames, `aspects` holds width over height of each of their videos.

    Args:
        samples: of each task; changed in place.
        wanted: pictures of each task.
        folder: searched for the videos.
        room: characters that all pictures may take.

    Returns:
        JSON {key: base64 JPEG} by the name that the samples hold.
    """
    by_name: dict[str, list[Path]] = {}
    containers: list[Path] = []
    for path in folder.rglob("*"):
        by_name.setdefault(path.name, []).append(path)
        if media.is_container(path):
            containers.append(path)
    packed_by_name: dict[str, list[Path]] = {}
    for container in containers:
        with contextlib.suppress(OSError, UserError):  # one that cannot be read has no pictures
            for name in media.members(container)[0]:
                packed_by_name.setdefault(name.rpartition("/")[2], []).append(container / name)
    by_name = packed_by_name | by_name

    def find(video: str, known: Path | None) -> Path | None:
        """The task's own file, else the only file of that name; None if that is ambiguous."""
        same = [path for path in by_name.get(Path(video).name, ()) if path.match(video)]
        if known is not None:
            same = [path for path in same if path.resolve() == known.resolve()]
        return same[0] if len(same) == 1 else None

    packed = {}
    for tasks_left, (name, task_samples) in zip(range(len(samples), 0, -1), samples.items(), strict=True):
        pictures: dict[str, str] = {}
        aspects: dict[str, float] = {}
        share, full = room // tasks_left, False
        distinct = list(dict.fromkeys(wanted[name]))
        key_frames = task_samples.get("regions") == "boxes"
        for key, video, known, second in distinct:
            file = find(video, known)
            encoded = file and _encode(file, second, KEY_FRAME_WIDTH if key_frames else THUMBNAIL_WIDTH)
            if encoded:
                jpeg, aspect = encoded
                share -= len(jpeg) + len(to_json(key)) + 4
                if key_frames and video not in aspects:
                    share -= len(to_json(video)) + 10
                full = share < 0
                if full:
                    break
                pictures[key] = jpeg
                if key_frames:
                    aspects[video] = aspect
        if pictures:
            task_samples["pictures"] = f"pictures-{name}"
            packed[task_samples["pictures"]] = to_json(pictures)
            room -= len(packed[task_samples["pictures"]])
        if aspects:
            task_samples["aspects"] = aspects
            room -= len(to_json(aspects))
        if len(pictures) < len(distinct):
            what = "key frames" if key_frames else "videos"
            missing = "the video of no other" if key_frames else "no other"
            why = "there is no room for more" if full else f"{missing} was found by its name alone, or decodes"
            task_samples["note"] = f"{len(pictures):,} of {len(distinct):,} {what} have a picture: {why}."
        elif key_frames and not distinct:
            task_samples["note"] = (
                "No key frame has a picture: the annotations that the run read, which say at which second each is, are "
                "not there, or have changed."
            )
    return packed


@functools.cache
def _encode(path: Path, second: float | None, width: int) -> tuple[str, float] | None:
    """A frame as a small JPEG in base64, and width over height; None if it does not decode.

    The middle frame of the video, or the one that is shown at a second of it.
    """
    video = _opened(path)
    if video is None:
        return None
    try:
        if second is None:
            index = len(video.times) // 2
        else:  # the frame around which the run's clip lies
            ((index,),) = frame_indices(video.times, video.duration, _MOMENT, 1, (second, second))
        (pixels,) = video.read([index])
    except (DecodeError, OSError, ValueError):
        return None
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    height = max(2, round(width * frame.height / frame.width))
    out = io.BytesIO()
    with av.open(out, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=1, options={"qmin": "6", "qmax": "6"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        small = frame.reformat(width, height, "yuvj420p")
        for packet in (*stream.encode(small), *stream.encode(None)):
            container.mux(packet)
    return base64.b64encode(out.getvalue()).decode(), round(frame.width / frame.height, 4)


@functools.lru_cache(maxsize=1)  # a film has 900 key frames, one after another
def _opened(path: Path) -> Video | None:
    try:
        return open_video(path)
    except (DecodeError, OSError):
        return None


def to_json(value: Any) -> str:
    """JSON that is safe in a script element: nothing in it can end the element or open another."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
