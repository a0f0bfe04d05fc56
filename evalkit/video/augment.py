"""Augmented views of training clips: random crops, flips and times, by random numbers of each view's own."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from evalkit.api import Augment, Views

# Crops that are drawn before the center crop is taken, as torchvision's RandomResizedCrop documents.
TRIES = 10


class AugmentedView(NamedTuple):
    """One augmented view. Its pixels are a function of these fields, of the video's name and of the span.

    Attributes:
        augment: how views differ; its number of views is 1.
        number: of the view, from 0.
        seed: of the run.
        clip: which of the view's clips, from 0.
    """

    augment: Augment
    number: int
    seed: int
    clip: int = 0

    def cut(self, views: Views) -> Views:
        """The task's views with one crop, of one clip or of each."""
        return replace(views, clips=views.clips if self.augment.all_clips else 1, crops=1)

    def of(self, video: Path, span: tuple[float, float] | None) -> str:
        """The view as text for its feature key: the random draws and their bounds, without the video's folder."""
        return f"{self._name(video, span)}, {self.augment}"

    def stream(
        self, part: Literal["crop", "flip", "time", "operations"], video: Path, span: tuple[float, float] | None
    ) -> random.Random:
        """Random numbers for one part of the view. Call `random()` only, which is the same in every Python."""
        return random.Random(f"{part} of {self._name(video, span)}")

    def _name(self, video: Path, span: tuple[float, float] | None) -> str:
        seconds = None if span is None else tuple(map(float, span))
        clip = f", clip {self.clip}" if self.clip else ""
        return f"view {self.number} of {video.name} {seconds} by seed {self.seed}{clip}"


def augmented_views(augment: Augment, seed: int) -> tuple[AugmentedView, ...]:
    """The augmented views of each clip; the first n do not depend on how many there are."""
    return tuple(AugmentedView(replace(augment, views=1), number, seed) for number in range(augment.views))


def crop_box(height: int, width: int, augment: Augment, stream: random.Random) -> tuple[int, int, int, int]:
    """Draw a random crop (top, left, height, width) in pixels, as torchvision's RandomResizedCrop does.

    Area and aspect are drawn until the crop fits into the frame, at most TRIES times; then it is the largest center
    crop of an allowed aspect.

    Args:
        height: of the frame.
        width: of the frame.
        augment: with the bounds of `area`, a share of the frame's, and `aspect`, width by height.
        stream: source of randomness; only `random()` is called.
    """
    low, high = map(math.log, augment.aspect)
    for _ in range(TRIES):
        area = height * width * _between(*augment.area, stream)
        aspect = math.exp(_between(low, high, stream))
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            return int(stream.random() * (height - tall + 1)), int(stream.random() * (width - wide + 1)), tall, wide
    wide = min(width, max(1, round(height * augment.aspect[1])))
    tall = min(height, max(1, round(width / augment.aspect[0])))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def _between(low: float, high: float, stream: random.Random) -> float:
    return low + (high - low) * stream.random()
