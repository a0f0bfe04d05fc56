"""What a page draws: pixels as PNG without loss, weights as pictures to lay over frames, points of a plane as svg."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from fractions import Fraction
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from evalkit.errors import counted
from evalkit.results.rows import Row
from evalkit.show.opened import Opened

if TYPE_CHECKING:
    from torch import Tensor

    from evalkit.show.feature_map import FeatureMap

ORANGE = (213, 94, 0)
MOST_OPAQUE = 0.8
# Okabe and Ito's colors, each with a shape of its own; the last is of all other groups.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f")
OTHERS = "#9aa3ab"
WIDTH, HEIGHT, EDGE = 640, 480, 16


def escaped(text: object) -> str:
    """Text as html, in which surrogates, which no file of UTF-8 holds, are question marks."""
    return escape(str(text).encode("utf-8", "replace").decode())


def png(pixels: npt.NDArray[np.uint8]) -> str:
    """The address of a PNG that holds its own bytes, of pixels (H, W, 3) RGB or (H, W, 4) with opacity."""
    height, width, channels = pixels.shape
    form = {3: "rgb24", 4: "rgba"}[channels]
    codec: Any = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, form, Fraction(1, 25)
    codec.options = {"pred": "mixed"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=form)
    content = b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None)))
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


class HeatMaps(NamedTuple):
    """Where a head looks.

    Attributes:
        pictures: of each view and each time step of its tokens, the address of a picture to lay over frames.
        shares: of all attention that is read together, what each time step of each view gets, 0..1.
        most: the largest weight, in even shares.
    """

    pictures: Sequence[Sequence[str]]
    shares: Sequence[Sequence[float]]
    most: float


def heat_maps(weights: Tensor) -> HeatMaps | None:
    """Weights (V, layers, T', S) of tokens as pictures; None where the S tokens of a time step are no square of them.

    The mean over the layers. What gets an even share, or less, stays as it is; above that, opacity grows with the
    weight, up to the largest of all.
    """
    of_views = weights.mean(1).double().numpy()
    side = math.isqrt(of_views.shape[-1])
    if side**2 != of_views.shape[-1]:
        return None
    times_even = of_views / max(of_views.mean(), 1e-12)
    most = max(float(times_even.max()), 1 + 1e-6)
    pictures = []
    for view in (times_even.clip(1) - 1) / (most - 1):
        opaque = np.round(255 * MOST_OPAQUE * view).astype(np.uint8).reshape(-1, side, side, 1)
        color = np.broadcast_to(np.array(ORANGE, np.uint8), (*opaque.shape[:-1], 3))
        pictures.append([png(step) for step in np.concatenate([color, opaque], -1)])
    return HeatMaps(pictures, of_views.sum(-1).tolist(), most)


def scatter(opened: Opened, found: FeatureMap, own: Row) -> str:
    """The points as svg, each with its id and class as its title, and one of them ringed."""
    spots = []
    for id, (x, y), group in zip(found.ids, found.points.tolist(), found.groups, strict=True):
        at = EDGE + x * (WIDTH - 2 * EDGE), HEIGHT - EDGE - y * (HEIGHT - 2 * EDGE)
        row = opened.rows[opened.place[id]]
        hollow = row.prediction is None or opened.is_right(row) is False
        title = f"<title>{escaped(f'{id}: {group}' if group else id)}</title>"
        spots.append((id == own.id, f"{_marker(_number(found, group), *at, hollow, title)}"))
        if id == own.id:
            spots.append((True, f'<circle class="own" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="10"/>'))
    drawn = "".join(spot for _, spot in sorted(spots, key=lambda spot: spot[0]))
    frame = f'<rect class="edge" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}"/>'
    samples = counted(len(found.ids), "sample")
    label = f'role="img" aria-label="features of {samples} in two dimensions"'
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" {label}>{frame}{drawn}</svg>'


def legend(found: FeatureMap) -> str:
    """The groups with their marks, and the ring of the sample itself."""
    entries = [
        f'<li><svg viewBox="0 0 14 14">{_marker(number, 7, 7, False)}</svg>{escaped(name)}</li>'
        for number, name in enumerate(found.shown)
    ]
    if any(group not in found.shown for group in found.groups):
        name = "other classes" if found.shown else "samples"
        entries.append(f'<li><svg viewBox="0 0 14 14">{_marker(None, 7, 7, False)}</svg>{name}</li>')
    ring = '<svg viewBox="0 0 14 14"><circle class="own" cx="7" cy="7" r="5.5"/></svg>'
    return f'<ul class="legend">{"".join(entries)}<li>{ring}this sample</li></ul>'


def _number(found: FeatureMap, group: str) -> int | None:
    return found.shown.index(group) if group in found.shown else None


def _marker(number: int | None, x: float, y: float, hollow: bool, title: str = "") -> str:
    """The mark of a group at a place: a shape and a color of its own, and a small dot for all others."""
    color = OTHERS if number is None else COLORS[number]
    paint = f'fill="none" style="stroke: {color}; stroke-width: 1.6"' if hollow else f'fill="{color}"'
    if number is None or number == 0:
        radius = 3.5 if number is None else 4.5
        return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {paint}>{title}</circle>'
    corners = {  # in units of a mark
        1: ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        2: ((0, -1.2), (1.2, 1), (-1.2, 1)),
        3: ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
        4: ((-1.2, -1), (1.2, -1), (0, 1.2)),
        5: ((-0.4, -1.3), (0.4, -1.3), (0.4, 1.3), (-0.4, 1.3)),
        6: ((-1.3, -0.4), (1.3, -0.4), (1.3, 0.4), (-1.3, 0.4)),
    }[number]
    points = " ".join(f"{x + 4 * dx:.1f},{y + 4 * dy:.1f}" for dx, dy in corners)
    return f'<polygon class="dot" points="{points}" {paint}>{title}</polygon>'
