"""Thumbnails of the samples' videos, as base64 JPEGs for the page."""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

from evalkit.video.decode import open_video
from evalkit.video.timeline import DecodeError

THUMBNAIL_WIDTH = 96  # pixels


def add_thumbnails(
    samples: Mapping[str, dict[str, Any]], files: Mapping[str, Mapping[str, Path]], folder: Path, room: int
) -> dict[str, str]:
    """Puts the name of its thumbnails into each task's samples, with a note if some are missing.

    Args:
        samples: of each task; changed in place.
        files: path by video name for each task; may lack tasks.
        folder: searched for the videos.
        room: characters that all thumbnails may take.

    Returns:
        JSON {video: base64 JPEG} by the name that the samples hold.
    """
    by_name: dict[str, list[Path]] = {}
    for path in folder.rglob("*"):
        by_name.setdefault(path.name, []).append(path)

    def find(video: str, known: Path | None) -> Path | None:
        """The task's own file, else the only file of that name; None if that is ambiguous."""
        same = [path for path in by_name.get(Path(video).name, ()) if path.match(video)]
        if known is not None:
            same = [path for path in same if path.resolve() == known.resolve()]
        return same[0] if len(same) == 1 else None

    packed = {}
    for tasks_left, (name, task_samples) in zip(range(len(samples), 0, -1), samples.items(), strict=True):
        pictures: dict[str, str] = {}
        share, full = room // tasks_left, False
        names = list(dict.fromkeys(task_samples["videos"]))
        for video in names:
            file = find(video, files.get(name, {}).get(video))
            picture = file and _thumbnail(file)
            if picture:
                share -= len(picture) + len(to_json(video)) + 4
                full = share < 0
                if full:
                    break
                pictures[video] = picture
        if pictures:
            task_samples["pictures"] = f"pictures-{name}"
            packed[task_samples["pictures"]] = to_json(pictures)
            room -= len(packed[task_samples["pictures"]])
        if len(pictures) < len(names):
            why = "there is no room for more" if full else "no other was found by its name alone, or decodes"
            task_samples["note"] = f"{len(pictures):,} of {len(names):,} videos have a picture: {why}."
    return packed


@functools.cache
def _thumbnail(path: Path) -> str | None:
    """The middle frame as a small JPEG in base64; None if it does not decode."""
    try:
        video = open_video(path)
        (pixels,) = video.read([len(video.times) // 2])
    except DecodeError:
        return None
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    height = max(2, round(THUMBNAIL_WIDTH * frame.height / frame.width))
    out = io.BytesIO()
    with av.open(out, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=1, options={"qmin": "6", "qmax": "6"})
        stream.width, stream.height, stream.pix_fmt = THUMBNAIL_WIDTH, height, "yuvj420p"
        small = frame.reformat(THUMBNAIL_WIDTH, height, "yuvj420p")
        for packet in (*stream.encode(small), *stream.encode(None)):
            container.mux(packet)
    return base64.b64encode(out.getvalue()).decode()


def to_json(value: Any) -> str:
    """JSON that is safe in a script element: nothing in it can end the element or open another."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
