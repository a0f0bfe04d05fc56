"""What decoding processes call in place of `read_clip`, apart from its tests: each process imports this module.

The path says what is to happen.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

from evalkit.api import Views
from evalkit.video.clips import Decoded, Failure, Request

Span = tuple[float, float] | None


def answer(text: str) -> Decoded:
    return Decoded(torch.zeros(1, 1, 3, 2, 2, dtype=torch.uint8), ((0.0,),), text, True)


def named(video: Path, span: Span, views: Views, frames: int, size: int, *more: object) -> Decoded | Failure:
    match video.name.split("-")[0]:
        case "hang":
            time.sleep(1000)
        case "raise":
            raise KeyError("some\nbug")
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "die_once":
            if not video.exists():
                video.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case "touch":
            video.touch()
    return answer(f"{video.name} {os.getpid()}")


def sleeping(video: Path, span: Span, views: Views, frames: int, size: int, *more: object) -> Decoded | Failure:
    (video.parent / f"{os.getpid()}.worker").touch()
    time.sleep(1000)
    return answer("")


def requests(folder: Path, *names: str) -> list[Request]:
    return [Request(folder / name, None, Views(), 1, 2) for name in names]
