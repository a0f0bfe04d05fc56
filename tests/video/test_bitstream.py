"""Bits of packets against what encoders wrote; that nothing strange in a packet is an error."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from evalkit.video.bitstream import Bitstream
from tests.video.seekable import FPS, HEIGHT, WIDTH, encoded

ANNEX_B = b"\0\0\0\1"


def bitstream(codec: str, extradata: bytes = b"", intra_only: bool = False) -> Bitstream:
    kind = SimpleNamespace(canonical_name=codec, intra_only=intra_only)
    stream: Any = SimpleNamespace(codec_context=SimpleNamespace(codec=kind, extradata=extradata))
    return Bitstream(stream)


@pytest.mark.parametrize(
    ("codec", "afresh", "not_afresh"),
    [
        ("h264", ANNEX_B + b"\x65", ANNEX_B + b"\x06\x01" + ANNEX_B + b"\x41"),  # IDR; recovery point
        ("hevc", ANNEX_B + b"\x40\x01" + ANNEX_B + b"\x26\x01", ANNEX_B + b"\x02\x01"),  # VPS, IDR; trailing
        ("vvc", ANNEX_B + b"\0\x39", ANNEX_B + b"\0\x51"),  # IDR; gradual refresh
        ("vp8", b"\x10", b"\x11"),
        ("vp9", b"\x82", b"\x86"),
        ("vp9", b"\x82", b"\x88"),  # a frame that is shown again
        ("vp9", b"\xb1", b"\xb3"),  # profile 3
        ("av1", b"\x12\0\x0a\1\0\x32\1\x10", b"\x12\0\x32\1\x30"),
        ("av1", b"\x32\1\x10", b"\x32\1\0"),  # a key frame that is shown later
        ("mpeg4", b"\0\0\1\xb6\x10", b"\0\0\1\xb6\x50"),
        ("mpeg2video", b"\0\0\1\0\0\x08", b"\0\0\1\0\0\x10"),
        ("theora", b"\x3f", b"\x7f"),
        ("ffv1", b"\x80\0", b"\x10\0"),
        ("wmv2", b"\x10", b"\x90"),
        ("wmv1", b"\x10", b"\x50"),
        ("h263", b"\0\0\x80\x02\x0c", b"\0\0\x80\x02\x0e"),
        ("flv1", b"\0\0\x84\1\0", b"\0\0\x84\1\x20"),
    ],
)
def test_decoding_starts_afresh_where_the_bits_say_so(codec: str, afresh: bytes, not_afresh: bytes) -> None:
    assert bitstream(codec).starts_afresh(afresh) and not bitstream(codec).starts_afresh(not_afresh)


def test_what_is_not_known_of_a_codec_is_no_start() -> None:
    assert not bitstream("cinepak").starts_afresh(b"\0") and bitstream("mjpeg", intra_only=True).starts_afresh(b"\0")


@pytest.mark.parametrize(
    ("codec", "packet", "frames"),
    [
        ("vp8", b"\x10", 1),
        ("vp8", b"\x01", 0),
        ("vp9", b"\x82", 1),
        ("vp9", b"\x84", 0),
        ("vp9", b"\x84\x86\xc1\1\1\xc1", 1),  # a superframe: one hidden, one shown
        ("av1", b"\x12\0\x32\1\0", 0),
        ("av1", b"\x12\0\x32\1\0\x1a\1\x80", 1),  # one that is stored before is shown
        ("mpeg4", b"\0\0\1\xb6\x10" + bytes(30), 1),
        ("mpeg4", b"\0\0\1\xb6\x50" + bytes(30) + b"\0\0\1\xb6\x90", 2),  # packed
        ("mpeg4", b"\0\0\1\xb6\x53\x7f", 0),
        ("h264", ANNEX_B + b"\x41", 1),
    ],
)
def test_packets_show_as_many_frames_as_their_bits_say(codec: str, packet: bytes, frames: int) -> None:
    assert bitstream(codec).frames(packet) == frames


@pytest.mark.parametrize(("codec", "b_frames"), [("libx264", 2), ("libx265", 3), ("mpeg4", 2), ("mpeg2video", 2)])
def test_b_frames_and_settings_are_found_in_what_encoders_write(codec: str, b_frames: int) -> None:
    found = {}
    for count in (0, b_frames):
        context = av.CodecContext.create(codec, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt, context.framerate = WIDTH, HEIGHT, "yuv420p", Fraction(FPS)
        context.time_base = Fraction(1, FPS)
        context.options = {"g": "12", "preset": "ultrafast", "bf": str(count)}
        if codec == "mpeg2video":
            context.options = {**context.options, "sc_threshold": "1000000000"}  # no keyframes where the scene changes
        if codec == "libx265":
            context.options = {"x265-params": f"log-level=none:bframes={count}"}
        packets = [bytes(packet) for packet in encoded(context, 20)]
        reader = bitstream({"libx264": "h264", "libx265": "hevc"}.get(codec, codec))
        found[count] = [reader.is_bidirectional(packet) for packet in packets]
        assert reader.starts_afresh(packets[0]) and not reader.starts_afresh(packets[1])
        assert reader.headers(packets[0]) and not reader.headers(packets[1])
    assert any(found[b_frames]) and not any(found[0])


CODECS = ["h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg4", "mpeg2video", "theora", "ffv1", "wmv1", "h263", "flv1"]


@pytest.mark.parametrize("codec", CODECS)
def test_noise_is_read_without_an_error(codec: str) -> None:
    rng = np.random.default_rng(0)
    for extradata in (b"", b"\1" + bytes(22)):
        reader = bitstream(codec, extradata)
        ask: list[Callable[[bytes], Any]] = [reader.starts_afresh, reader.frames, reader.is_bidirectional]
        ask += [reader.headers, reader.leads_nowhere]
        for length in (1, 2, 3, 5, 30):
            for _ in range(60):
                packet = rng.integers(0, 256, length, np.uint8).tobytes()
                for noise in (packet, b"\0\0\1" + packet, b"\0\0\0\1" + packet):
                    for question in ask:
                        question(noise)
