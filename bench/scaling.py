"""What scaling frames on the encoder's device would save in decoding processes' time, and cost in bytes.

    OMP_NUM_THREADS=1 PYTHONPATH=. python bench/scaling.py FOLDER

Of each video below the folder that can be decoded, 16 frames from start to end are scaled to 224 x 224 in integers, as
the decoding processes do, and in floats, as a GPU would. Frames that are not scaled would be passed on as their middle
square.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evalkit.video.crop import cut_crops
from evalkit.video.decode import open_video
from evalkit.video.timeline import DecodeError

FRAMES, SIZE = 16, 224
SHORT_SIDES = (0, 240, 360, 480, 720, 1 << 30)


def in_floats(frame: Tensor, interpolation: Literal["bilinear", "bicubic"]) -> Tensor:
    """The same crop (1, 3, 224, 224), uint8, of a frame (H, W, 3), scaled in float32, width first, each to whole steps.

    Without steps between the two, bicubic's overshoot at edges, which integers cut off, would reach other pixels.
    """
    height, width = frame.shape[:2]
    short = min(height, width)
    shape = (max(SIZE, height * SIZE // short), max(SIZE, width * SIZE // short))
    scaled = frame.permute(2, 0, 1)[None].float()
    for target in ((height, shape[1]), shape):
        scaled = interpolate(scaled, target, mode=interpolation, antialias=True).round().clamp(0, 255)
    top, left = round((shape[0] - SIZE) / 2), round((shape[1] - SIZE) / 2)
    return scaled[..., top : top + SIZE, left : left + SIZE].byte()


def timed(work: Callable[[], list[Tensor]]) -> tuple[float, list[Tensor]]:
    """Seconds of processor time, and what was made."""
    started = time.process_time()
    made = work()
    return time.process_time() - started, made


def decoded(path: Path) -> list[Tensor]:
    """Frames (H, W, 3) from start to end."""
    video = open_video(path)
    return [torch.from_numpy(frame) for _, frame in video.frames(np.linspace(0, len(video.times) - 1, FRAMES).round())]


def main(folder: Path) -> None:
    """Prints a row for each range of sizes."""
    torch.set_num_threads(1)
    rows: dict[int, list[tuple[float, float, float, int, int]]] = {}
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        try:
            decode_s, frames = timed(lambda path=path: decoded(path))  # type: ignore[misc]
        except (DecodeError, ValueError, OSError):
            continue
        scale_s, crops = timed(lambda frames=frames: [cut_crops(frame, SIZE, "crop", 1) for frame in frames])  # type: ignore[misc]
        short = min(frames[0].shape[:2])
        apart = {
            kind: max(
                int((cut_crops(frame, SIZE, "crop", 1, 1.0, kind).short() - in_floats(frame, kind)).abs().max())
                for frame in frames
            )
            for kind in ("bilinear", "bicubic")
        }
        row = decode_s / len(crops), scale_s / len(crops), short**2 / SIZE**2, apart["bilinear"], apart["bicubic"]
        rows.setdefault(next(side for side in SHORT_SIDES[1:] if short <= side), []).append(row)
    print("| shorter side | videos | decode a frame, ms | scale it, ms | share | bytes / scaled | bilinear | bicubic |")
    print("|---|---|---|---|---|---|---|---|")
    for side, of_side in sorted(rows.items()):
        decode_s, scale_s, times = (sum(row[k] for row in of_side) / len(of_side) for k in range(3))
        bilinear, bicubic = (max(row[k] for row in of_side) for k in (3, 4))
        name = f"to {side}" if side < SHORT_SIDES[-1] else f"above {SHORT_SIDES[-2]}"
        milliseconds = f"{1e3 * decode_s:.2f} | {1e3 * scale_s:.2f} | {scale_s / (decode_s + scale_s):.2f}"
        print(f"| {name} | {len(of_side)} | {milliseconds} | {times:.1f} | {bilinear} | {bicubic} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
