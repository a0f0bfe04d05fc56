"""From video files to the uint8 clips that an encoder takes, in worker processes.

A file that cannot be decoded gives a `Failure` with its reason: no exception comes out of a worker, and no other frame
or sample takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.api import Clip, Views
from evalkit.errors import in_line
from evalkit.runtime import shared
from evalkit.video.augment import AugmentedView
from evalkit.video.crop import augmented_crop, cut_crops
from evalkit.video.decode import Decoder, open_video
from evalkit.video.randaugment import rand_augment
from evalkit.video.sampling import frame_indices
from evalkit.video.timeline import DecodeError

_PLAIN = Clip()


@dataclass(frozen=True)
class Decoded:
    """The clips of one sample.

    Attributes:
        pixels: uint8 RGB (V, T, C, H, W) with V = temporal clips x crops; all crops of the first clip come first.
        times: for each temporal clip, the seconds at which its frames start in the video.
        decoder: name and version of what decoded them, and in brackets why, where it is not the default.
        default_decoder: whether that is the default decoder.
    """

    pixels: Tensor
    times: tuple[tuple[float, ...], ...]
    decoder: str
    default_decoder: bool

    def __reduce__(self) -> tuple[Any, ...]:
        # a numpy array goes from process to process without being copied into the pickle
        return _decoded, (self.pixels.contiguous().numpy(), self.times, self.decoder, self.default_decoder)


def _decoded(pixels: NDArray[np.uint8], *rest: Any) -> Decoded:
    return Decoded(torch.from_numpy(pixels), *rest)


@dataclass(frozen=True)
class Failure:
    """A sample that could not be decoded, and the reason in one line."""

    reason: str


Span = tuple[float, float]


class Request(NamedTuple):
    """A sample to read: the arguments of `read_clip`."""

    video: Path
    span: Span | None
    views: Views
    frames: int
    size: int
    looks: tuple[AugmentedView, ...] = ()
    decoder: Decoder = "pyav"
    clip: Clip = Clip()
    windows: tuple[Span, ...] = ()


Read = Callable[
    [Path, "Span | None", Views, int, int, tuple[AugmentedView, ...], Decoder, Clip, tuple[Span, ...]],
    "Decoded | Failure",
]


def read_clip(
    video: Path,
    span: Span | None,
    views: Views,
    frames: int,
    size: int,
    looks: tuple[AugmentedView, ...] = (),
    decoder: Decoder = "pyav",
    clip: Clip = _PLAIN,
    windows: tuple[Span, ...] = (),
) -> Decoded | Failure:
    """The clips of one sample, decoded in this process; a `Failure` if anything is wrong with the file or span.

    Args:
        video: path of the file.
        span: start and end in seconds; None means the whole video.
        views: which frames and crops; its own `frames` and `size` are not looked at.
        frames: frames in one clip.
        size: height and width of the clips in pixels.
        looks: augmented views, which differ in their number only, in place of the plain ones.
        decoder: what reads the frames where it is exact.
        clip: the encoder's, for its `interpolation` and `center`; the rest of it is not looked at.
        windows: start and end in seconds of parts that are read in place of the span; the clips of each follow those of
            the one before.
    """
    if looks:
        views = looks[0].cut(views)
    each = [look._replace(clip=number) for look in looks for number in range(views.clips)]
    streams = [partial(look.stream, video=video, span=span) for look in each]
    try:
        source = open_video(video, decoder)
        starts = [look.stream("time", video, span) if look.augment.time else None for look in looks]
        clips = [
            indices
            for part in windows or (span,)
            for start in starts or [None]
            for indices in frame_indices(source.times, source.duration, views, frames, part, start)
        ]
        places: dict[int, list[tuple[int, int]]] = {}
        for number, indices in enumerate(clips):
            for step, index in enumerate(indices):
                places.setdefault(int(index), []).append((number, step))
        shape = len(clips), views.crops, frames, 3, size, size
        pixels = torch.from_numpy(shared.empty(math.prod(shape))).view(shape)
        # frame by frame, so that only the small ones are ever all in memory
        for index, frame in source.frames(places):
            whole, resize, share = torch.from_numpy(frame), views.resize or "crop", views.share
            scaling = (clip.interpolation, clip.center)
            crops = None if looks else cut_crops(whole, size, resize, views.crops, share, *scaling)
            for number, step in places[index]:
                if crops is None:
                    augment, stream = each[number].augment, streams[number]
                    pixels[number, :, step] = augmented_crop(whole, size, resize, share, augment, stream, *scaling)
                else:
                    pixels[number, :, step] = crops
        for view, look, stream in zip(pixels[:, 0], each, streams, strict=False):
            if look.augment.randaugment:
                view.copy_(rand_augment(view, *look.augment.randaugment, stream("operations")))
    except (DecodeError, ValueError, OSError) as error:
        return Failure(in_line(error))
    times = tuple(tuple(source.times[indices].tolist()) for indices in clips)
    return Decoded(pixels.flatten(0, 1), times, source.decoder, source.default_decoder)
