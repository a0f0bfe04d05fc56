"""Mini stories as real mp4 files (H.264, yuv420p), and the boxes of what they show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.mini.world import COLORS, NOTHING, Step, Story, Thing
from evalkit.runtime.atomic import rename

SIDE = 128  # pixels, height and width

Frames = NDArray[np.float32]


def write(story: Story, path: Path, fps: int) -> None:
    """Films a story; the file appears whole or not at all, and is the same for the same story.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    try:
        with av.open(str(part), "w") as container:
            stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "20"})
            stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
            stream.time_base = Fraction(1, fps)
            stream.thread_count = 1  # one thread writes the same bytes every time
            stream.codec_context.gop_size = 8 * fps
            for images in pictures(story, fps):
                for image in images:
                    for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                        container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        rename(part, path)
    finally:
        part.unlink(missing_ok=True)


def pictures(story: Story, fps: int) -> Iterator[NDArray[np.uint8]]:
    """RGB frames of each step in turn, uint8 (frames, SIDE, SIDE, 3)."""
    for step, (start, end) in zip(story.steps, story.times(), strict=True):
        frames = np.arange(round(start * fps), round(end * fps))
        phase = ((frames / fps - start) / step.seconds * step.cycles).astype(np.float32) % 1
        canvas = np.empty((len(frames), SIDE, SIDE, 3), np.float32)
        canvas[:] = story.background
        for thing, x, y, size, opacity in _shown(step, phase):
            _draw(canvas, thing, x, y, size, opacity)
        yield canvas.round().astype(np.uint8)


def boxes(step: Step, phase: float) -> list[tuple[Thing, tuple[float, float, float, float]]]:
    """What is visible at a phase (0..1) of the motion: thing and box (x1, y1, x2, y2) in 0..1 of the frame."""
    sprites = _shown(step, np.array([phase], np.float32))
    return [
        (thing, tuple(float(np.clip(v[0], 0, 1)) for v in (x - size, y - size, x + size, y + size)))  # type: ignore[misc]
        for thing, x, y, size, opacity in sprites
        if opacity[0] > 0.5
    ]


def _shown(step: Step, phase: Frames) -> list[tuple[Thing, Frames, Frames, Frames, Frames]]:
    """What `_sprites` gives of a step, and of the one beside it, each then smaller and in its own half of the frame."""
    if step.beside is None:
        return _sprites(step, phase)
    halves = ((step, 0.05), (step.beside, 0.55))
    return [
        (thing, left + 0.4 * x, y, 0.6 * size, opacity)
        for half, left in halves
        for thing, x, y, size, opacity in _sprites(half, phase)
    ]


def _sprites(step: Step, phase: Frames) -> list[tuple[Thing, Frames, Frames, Frames, Frames]]:
    """Thing, center x and y, half size and opacity, each (frames,) in 0..1 of the frame."""
    if step.action == NOTHING:
        return []
    still = np.zeros_like(phase)
    middle, half, opaque = still + 0.5, still + 0.16, still + 1
    along = 0.1 + 0.8 * phase  # from edge to edge; a new cycle starts at the first edge again
    across = still + 0.25 + 0.5 * step.place
    thing = step.thing
    if step.action == "moves left":
        return [(thing, 1 - along, across, half, opaque)]
    if step.action == "moves right":
        return [(thing, along, across, half, opaque)]
    if step.action == "moves up":
        return [(thing, across, 1 - along, half, opaque)]
    if step.action == "moves down":
        return [(thing, across, along, half, opaque)]
    if step.action == "grows":
        return [(thing, across, middle, 0.08 + 0.26 * phase, opaque)]
    if step.action == "shrinks":
        return [(thing, across, middle, 0.34 - 0.26 * phase, opaque)]
    if step.action == "blinks":
        return [(thing, across, middle, half, (phase * 4 % 2 < 1).astype(np.float32))]
    if step.action == "turns":
        before = (phase < 0.5).astype(np.float32)
        return [(thing, across, middle, half, before), (step.partner, across, middle, half, 1 - before)]
    # hits: the thing comes from the left and stops at the partner, which is pushed to the right
    comes = np.minimum(phase / 0.5, 1) * 0.34 + 0.1
    pushed = np.maximum(phase - 0.5, 0) / 0.5 * 0.24 + 0.66
    small = still + 0.12
    return [(thing, comes, across, small, opaque), (step.partner, pushed, across, small, opaque)]


def _draw(canvas: Frames, thing: Thing, x: Frames, y: Frames, size: Frames, opacity: Frames) -> None:
    """Blends a thing into frames (n, SIDE, SIDE, 3) with edges one pixel soft."""
    grid = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    # The rest of the frames is never touched.
    columns, rows = (np.flatnonzero((np.abs(grid[:, None] - v) <= size + 1 / SIDE).any(1)) for v in (x, y))
    canvas = canvas[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    dx = grid[None, None, columns] - x[:, None, None]
    dy = grid[None, rows, None] - y[:, None, None]
    s = size[:, None, None]
    if thing.shape == "circle":
        distance = np.hypot(dx, dy) - s
    elif thing.shape == "ring":
        distance = np.abs(np.hypot(dx, dy) - 0.75 * s) - 0.25 * s
    elif thing.shape == "square":
        distance = np.maximum(np.abs(dx), np.abs(dy)) - 0.9 * s
    elif thing.shape == "triangle":
        distance = np.maximum(0.894 * np.abs(dx) - 0.447 * (dy + s), dy - s)
    else:  # cross
        wide = np.maximum(np.abs(dx) - s, np.abs(dy) - 0.34 * s)
        tall = np.maximum(np.abs(dx) - 0.34 * s, np.abs(dy) - s)
        distance = np.minimum(wide, tall)
    cover = np.clip(0.5 - distance * SIDE, 0, 1) * opacity[:, None, None]
    canvas += cover[..., None] * (np.array(COLORS[thing.color], np.float32) - canvas)
