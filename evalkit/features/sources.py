"""The distinct parts of videos that a task's examples need, each decoded and encoded once."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from evalkit.api import Clip, Example, Views
from evalkit.errors import UserError
from evalkit.video.augment import AugmentedView
from evalkit.video.sampling import windows

_ONE_CLIP = Views()


class Source(NamedTuple):
    """A part of a video that is decoded and encoded once, however many examples use it.

    Attributes:
        look: an augmented view of it; None means the task's plain views.
    """

    video: Path
    span: tuple[float, float] | None
    look: AugmentedView | None = None


def resolve_views(views: Views, clip: Clip, overrides: Mapping[str, object], words: Collection[str] = ()) -> Views:
    """The task's views with the user's `clip.*` options, and the encoder's own clip where none are given.

    Args:
        views: of the task.
        clip: of the encoder.
        overrides: the values of `clip.*`.
        words: as typed. An option of a file may have no effect: earlier records hold such, and must run again.

    Raises:
        UserError: no square has such a share of the frame, windows have a stride and no length, or a word has no effect
            on how frames are sampled.
    """
    own_stride = {} if "window" not in overrides else {"window_stride": None}  # a task's stride is of its own window
    views = replace(views, **{**own_stride, **overrides})  # type: ignore[arg-type]
    for name, sampling in (("fps", "fps"), ("stride", "dense")):
        is_typed = any(word.startswith(f"clip.{name}=") for word in words)
        if is_typed and views.sampling != sampling:
            raise UserError(
                f"clip.{name}={overrides[name]:g} has no effect with clip.sampling={views.sampling}: add "
                f"clip.sampling={sampling}"
            )
    if views.window_stride and not views.window:
        raise UserError(f"clip.window_stride={views.window_stride:g} has no effect without clip.window")
    stated = views.resize or views.share != 1 or "share" in overrides
    share = views.share if stated else clip.share
    if not 0 < share <= 1:
        raise UserError(f"clip.share={share:g}: wanted above 0 and up to 1")
    return replace(
        views,
        frames=views.frames or clip.frames,
        size=views.size or clip.size,
        resize=views.resize or clip.resize,
        share=share,
    )


def parts(example: Example, views: Views) -> tuple[Source, ...]:
    """The parts of a video that an example needs: one, or its windows.

    Raises:
        UserError: there are windows, and the example has no span for them, or one of too many.
    """
    if views.window is None:
        return (Source(example.video, example.span),)
    if example.span is None:
        raise UserError(f"example {example.id!r} has no span, which clip.window={views.window:g} divides into windows")
    try:
        spans = windows(example.span, views.window, views.window_stride or views.window)
    except ValueError as error:
        raise UserError(f"example {example.id!r} {error}") from error
    return tuple(Source(example.video, span) for span in spans)


def sources(examples: Iterable[Example], views: Views = _ONE_CLIP) -> list[Source]:
    """The distinct parts of videos that examples need, in order of first appearance."""
    return list(dict.fromkeys(source for example in examples for source in parts(example, views)))


def seed(source: Source) -> int:
    """A random seed derived from the source's name and span."""
    return zlib.crc32(f"{source.video.name} {source.span}".encode("utf-8", "surrogateescape"))
