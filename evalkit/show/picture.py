"""Pixels as PNG files in the text of a page, without loss."""

from __future__ import annotations

import base64
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


def png(pixels: NDArray[np.uint8]) -> str:
    """The address of a PNG that holds its own bytes, of pixels (H, W, 3) RGB or (H, W, 4) with opacity."""
    height, width, channels = pixels.shape
    form = {3: "rgb24", 4: "rgba"}[channels]
    codec: Any = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, form, Fraction(1, 25)
    codec.options = {"pred": "mixed"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=form)
    content = b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None)))
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
