"""Frame indices of clips, computed from the times at which frames are shown."""

from __future__ import annotations

import math
import random

import numpy as np
from numpy.typing import NDArray

from evalkit.api import Views

# Seconds by which a moment may precede a frame's start and still mean that frame: what arithmetic on doubles loses, or
# a little more than what a container that rounds to milliseconds (Matroska, FLV) does to starts and duration.
EXACT, MILLISECONDS = 1e-6, 1.5e-3
# How far a span may reach beyond the end of the video: in seconds, or as a share of the span; the larger counts. A
# window is a part of a span from 0 s to its own end or later, and may lie where that may: it then shows the last frame.
OVERHANG = 1.0, 0.05
# Windows of a span at most: a day of THUMOS14's, which start 7.5 times a second, is 648,000.
MOST_WINDOWS = 1_000_000


def frame_indices(
    times: NDArray[np.float64],
    duration: float,
    views: Views,
    frames: int,
    span: tuple[float, float] | None = None,
    drawn: random.Random | None = None,
) -> list[NDArray[np.int64]]:
    """Indices into `times` of the frames of each temporal clip, as `Views` defines them.

    Args:
        times: seconds at which each frame starts, ascending from 0, (N,).
        duration: seconds until the last frame ends.
        views: how to sample; its `frames` is ignored.
        frames: frames in one clip.
        span: start and end in seconds; None means the whole video.
        drawn: random numbers for what is fixed otherwise: where in its own part of the span a clip starts (`dense`,
            `fps`; clips that are longer than their parts stay evenly spaced), which moment of each of F equal segments
            is shown (all others).

    Returns:
        `views.clips` arrays of shape (frames,), each ascending, except for `leading` frames of a short span; a frame
        may come twice.

    Raises:
        ValueError: the span is empty, without being a moment of `dense` clips, or lies outside the video.
    """
    if span and span[0] == span[1] and views.sampling == "dense":
        return [_around(times, duration, span[0], frames, views.stride)] * views.clips
    start, end = _clamped(duration, span, views.window is not None)
    clip = np.arange(views.clips)[:, None]
    step = np.arange(frames)[None]
    # the frame shown at the start of the span, and the last that begins inside it
    first = int(_shown(times, start))
    last = max(first, int(np.searchsorted(times, end - _rounding(times), "left")) - 1)
    total = views.clips * frames
    match views.sampling:
        case "linspace" if drawn is None:
            indices = first + (clip * frames + step) * (last - first) // max(1, total - 1)
        case "middle" if drawn is None:
            count = last - first + 1
            starts = np.arange(min(total, count) + 1) * count // min(total, count)
            middles = (starts[:-1] + starts[1:] - 1) // 2
            indices = first + middles[np.minimum(clip * frames + step, len(middles) - 1)]
        case "interleaved":
            parts = clip if drawn is None else _numbers(drawn, views.clips, frames) * views.clips
            indices = first + ((step * views.clips + parts) * (last - first + 1) // total).astype(np.int64)
        case "leading" if drawn is None:
            count, places = last - first + 1, clip * frames + step
            indices = first + (places * (count // total) if count >= total else places % count)
        case "uniform" | "segments" | "linspace" | "middle" | "leading":
            fixed = 0.5 if views.sampling == "segments" else 0.0
            within = fixed if drawn is None else _numbers(drawn, views.clips, frames)
            share = (clip * frames + step + within) / total
            indices = _shown(times, start + (end - start) * share)
        case "fps":
            room_s = max(0.0, end - start - frames / views.fps)
            offset_s = room_s * clip / max(1, views.clips - 1)
            part_s = (end - start) / views.clips
            if drawn is not None and (spare_s := part_s - frames / views.fps) > 0:
                offset_s = part_s * clip + spare_s * _numbers(drawn, views.clips, 1)
            indices = _shown(times, start + offset_s + step / views.fps)
        case "dense":
            count = last - first + 1
            offset = max(0, count - frames * views.stride) * clip // max(1, views.clips - 1)
            part = count // views.clips
            if drawn is not None and (spare := part - frames * views.stride) > 0:
                offset = part * clip + ((spare + 1) * _numbers(drawn, views.clips, 1)).astype(np.int64)
            indices = first + offset + step * views.stride
    return list(np.minimum(indices, last))


def windows(span: tuple[float, float], length: float, stride: float) -> list[tuple[float, float]]:
    """Start and end in seconds of each window that fits completely into a span; the span itself if none does.

    Args:
        span: start and end in seconds.
        length: of a window in seconds.
        stride: seconds from the start of one to that of the next.

    Raises:
        ValueError: there are more than `MOST_WINDOWS`.
    """
    start, end = span
    if (end - start) / stride > MOST_WINDOWS:
        raise ValueError(
            f"lasts {end - start:g} s, which are {(end - start) / stride:,.0f} windows, one every {stride:g} s; wanted "
            f"{MOST_WINDOWS:,} at most: state its duration in seconds, or raise clip.window_stride="
        )
    count = math.floor((end - start - length) / stride + EXACT) + 1
    starts = [round(start + k * stride, 6) for k in range(count)]
    return [(first, round(first + length, 6)) for first in starts] or [span]


def _around(times: NDArray[np.float64], duration: float, moment: float, frames: int, stride: int) -> NDArray[np.int64]:
    """Every so many frames around the one shown at a moment; raises ValueError if that is outside the video."""
    if not 0 <= moment <= duration + OVERHANG[0]:
        raise ValueError(f"key frame at {moment:g} s is not in the video ({duration:.2f} s)")
    around = int(_shown(times, moment)) + (np.arange(frames) - frames // 2) * stride
    return around.clip(0, len(times) - 1)


def _clamped(duration: float, span: tuple[float, float] | None, window: bool) -> tuple[float, float]:
    """Start and end of the span in seconds, clipped to the video; raises ValueError if it is outside."""
    start, end = (0.0, duration) if span is None else span
    where = f"span {start:g} .. {end:g} s"
    if not 0 <= start < end:
        raise ValueError(f"{where} is not a stretch of time that starts at 0 s or later")
    outside = end - duration > max(OVERHANG[0], OVERHANG[1] * (end if window else end - start))
    if start >= duration and (outside or not window):
        raise ValueError(f"{where} starts after the end of the video ({duration:.2f} s)")
    if outside:
        raise ValueError(f"{where} ends after the end of the video ({duration:.2f} s)")
    return start, max(start, min(end, duration))


def _numbers(drawn: random.Random, rows: int, columns: int) -> NDArray[np.float64]:
    """Uniform random numbers in [0, 1), (rows, columns)."""
    return np.array([[drawn.random() for _ in range(columns)] for _ in range(rows)])


def _rounding(times: NDArray[np.float64]) -> float:
    """MILLISECONDS if gaps between frames differ by 1 ms, as 33, 33, 34 ms; else EXACT."""
    uneven = np.ptp(np.diff(times)) if len(times) > 1 else 0.0
    return MILLISECONDS if 0.9e-3 < uneven < 1.1e-3 else EXACT


def _shown(times: NDArray[np.float64], when: float | NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the frame shown at each time: the last one that has started."""
    return np.maximum(np.searchsorted(times, when + _rounding(times), "right") - 1, 0)
