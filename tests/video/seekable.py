"""Tiny videos of many codecs and containers, and what decoding in sequence shows of them."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from evalkit.video.decode import open_video

FRAMES, FPS, WIDTH, HEIGHT = 26, 25, 64, 48
START_CODE, PLANE = b"\0\0\1", b"\0\0\1\xb6"


class Kind(NamedTuple):
    """How a video is written: encoder, its options, container (by the file's ending), and what is done to it."""

    codec: str
    suffix: str
    gop: int = 12
    b_frames: int = 0
    options: str = ""  # of the encoder, name=value, with blanks between
    muxer: str = ""
    start: int = 0  # frames by which the first is late
    lost: int = 0  # packets that are missing at the start

    @property
    def name(self) -> str:
        """A file name."""
        words = [self.codec, f"gop{self.gop}", f"b{self.b_frames}", self.options, self.muxer]
        text = "-".join(word for word in words if word) + f"-start{self.start}-lost{self.lost}"
        return "".join(letter if letter.isalnum() else "-" for letter in text) + self.suffix


X264 = "preset=ultrafast x264-params=scenecut=0:keyint={gop}:min-keyint=1:"
X265 = (
    "preset=ultrafast x265-params=log-level=none:frame-threads=1:pools=none:keyint={gop}:min-keyint={gop}:bframes={b}:"
)
VPX = "deadline=realtime cpu-used=8 auto-alt-ref=1 lag-in-frames=8"
MPEG = "sc_threshold=1000000000"  # no keyframes where the scene changes
AV1 = "preset=13 svtav1-params=lp=1:"
# Codec, options, containers, and numbers of B frames.
CODECS: list[tuple[str, str, str, tuple[int, ...]]] = [
    ("libx264", X264, ".mp4 .mkv .mov .ts .m2ts .avi .flv .nut .mpg .h264 .3gp .wmv", (0, 2)),
    ("libx264", X264 + "open-gop=1", ".mp4 .mkv .ts .flv", (3,)),
    ("libx264", X264 + "intra-refresh=1", ".mp4 .mkv .ts", (0,)),
    ("libx265", X265 + "open-gop=0", ".mp4 .mkv .ts .hevc", (0, 3)),
    ("libx265", X265 + "open-gop=1", ".mp4 .mkv .ts", (3,)),
    ("mpeg4", MPEG, ".mp4 .mkv .mov .avi .ts .m4v .nut .wmv", (0, 2)),
    ("mpeg2video", MPEG, ".mpg .vob .ts .mkv .mp4 .avi .m2v .nut", (0, 2)),
    ("mpeg1video", MPEG, ".mpg .ts .mkv .mp4 .avi", (0, 2)),
    ("libvpx", VPX, ".webm .mkv .ivf .avi .nut", (0,)),
    ("libvpx-vp9", VPX, ".webm .mp4 .ivf .mkv", (0,)),
    ("libsvtav1", AV1 + "irefresh-type=2", ".webm .mp4 .ivf .obu", (0,)),
    ("libsvtav1", AV1 + "irefresh-type=1", ".webm .mp4", (0,)),
    ("mjpeg", "", ".avi .mov .mkv .mp4", (0,)),
    ("ffv1", "", ".mkv .avi .nut", (0,)),
    ("wmv1", "", ".wmv .avi", (0,)),
    ("wmv2", "", ".wmv .avi", (0,)),
    ("msmpeg4", "", ".avi .wmv .mkv", (0,)),
    ("msmpeg4v2", "", ".avi", (0,)),
    ("flv", "", ".flv", (0,)),
    ("h263p", "", ".avi", (0,)),
    ("rv10", "", ".rm", (0,)),
    ("gif", "", ".gif", (0,)),
    ("apng", "", ".apng", (0,)),
    ("prores_ks", "", ".mov .mkv", (0,)),
    ("qtrle", "", ".mov", (0,)),
    ("cinepak", "", ".avi .mov", (0,)),
    ("svq1", "", ".mov", (0,)),
    ("flashsv", "", ".flv", (0,)),
    ("snow", "", ".nut", (0,)),
    ("png", "", ".mov", (0,)),
    ("huffyuv", "", ".avi", (0,)),
    ("msvideo1", "", ".avi", (0,)),
]
# A start that is late or before zero, packets that are missing at the start, fragments, edit lists.
CHANGES: list[dict[str, Any]] = [
    {"start": 125},
    {"start": -7},
    {"lost": 5},
    {"lost": 13},
    {"muxer": "movflags=frag_keyframe+empty_moov"},
    {"muxer": "movflags=negative_cts_offsets"},
    {"muxer": "avoid_negative_ts=disabled", "start": -7},  # an edit list hides the first frames
]
CHANGED = [
    Kind("libx264", ".mp4", b_frames=2, options=X264),
    Kind("libx264", ".mkv", b_frames=2, options=X264),
    Kind("libx264", ".ts", b_frames=2, options=X264),
    Kind("libx264", ".flv", b_frames=2, options=X264),
    Kind("libx265", ".mp4", b_frames=3, options=X265 + "open-gop=1"),
    Kind("mpeg4", ".mp4", b_frames=2, options=MPEG),
    Kind("mpeg4", ".mkv", options=MPEG),
    Kind("mpeg2video", ".ts", b_frames=2, options=MPEG),
    Kind("mpeg2video", ".mpg", b_frames=2, options=MPEG),
    Kind("mpeg2video", ".mov", b_frames=2, options=MPEG),
    Kind("libvpx-vp9", ".webm", options=VPX),
]
MOV, BROADCAST = (".mp4", ".mov"), (".ts", ".mpg")


def matrix(gops: Sequence[int] = (1, 5, 12, 250)) -> Iterator[Kind]:
    """Every codec in every container, with these distances of keyframes, and some with changes."""
    for codec, options, suffixes, b_frames in CODECS:
        for suffix, gop, b in itertools.product(suffixes.split(), gops, b_frames):
            if gop > b:
                yield Kind(codec, suffix, gop, b, options)
    for kind, change in itertools.product(CHANGED, CHANGES):
        if ("muxer" not in change or kind.suffix in MOV) and ("lost" not in change or kind.suffix in BROADCAST):
            yield kind._replace(**change)


def picture(number: int) -> NDArray[np.uint8]:
    """Noise that moves, (HEIGHT, WIDTH, 3)."""
    ground = np.random.default_rng(0).integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    return np.roll(ground.repeat(4, 0).repeat(4, 1), (number * 3, number * 5), (0, 1))


def settings(words: str, kind: Kind) -> dict[str, str]:
    """Options by name."""
    pairs = (word.split("=", 1) for word in words.split())
    return {name: value.format(gop=kind.gop, b=kind.b_frames).rstrip(":") for name, value in pairs}


def write(path: Path, kind: Kind, frames: int = FRAMES, first: int = 0) -> Path:
    """A video of this kind, of `frames` frames; `first` is the number of the first picture."""
    with av.open(str(path), "w", options=settings(kind.muxer, kind)) as container:
        options = {"g": str(kind.gop), **settings(kind.options, kind)}
        stream = container.add_stream(kind.codec, rate=FPS, options=options)
        assert isinstance(stream, av.VideoStream)
        formats = [entry.name for entry in stream.codec_context.codec.video_formats or ()]
        stream.width, stream.height = (176, 144) if kind.codec == "h263p" else (WIDTH, HEIGHT)
        usual = "yuvj420p" if kind.codec == "mjpeg" else "yuv420p"
        stream.pix_fmt = usual if usual in formats else formats[0]
        stream.codec_context.max_b_frames = kind.b_frames
        for number, packet in enumerate(encoded(stream, frames, first, kind.start)):
            if number >= kind.lost:
                container.mux(packet)
    return path


def encoded(stream: Any, frames: int, first: int = 0, start: int = 0) -> Iterator[av.Packet[Any]]:
    """The packets of these pictures, by a stream or a codec's context."""
    for number in range(frames):
        frame = av.VideoFrame.from_ndarray(picture(first + number))
        frame.pts, frame.time_base = start + number, Fraction(1, FPS)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def write_packed(path: Path, frames: int = FRAMES, flags: bool = True) -> Path:
    """MPEG-4 with packed B frames, as DivX and Xvid write it: B with the frame before, then a placeholder.

    Args:
        path: of the file.
        frames: how many.
        flags: keyframes are flagged as they are; if not, placeholders are, as after `ffmpeg -c copy` into mp4.
    """
    context = av.CodecContext.create("mpeg4", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base, context.framerate = Fraction(1, FPS), Fraction(FPS)
    context.max_b_frames, context.options = 2, {"g": "12"}
    chunks: list[bytes] = []
    planes = [bytes(packet) for packet in encoded(context, frames)]
    head, rest = planes[0].split(PLANE, 1)
    planes[0] = head + START_CODE + b"\xb2DivX503b1393p" + PLANE + rest  # what names the stream packed
    last = b""  # I or P
    for b_frames, run in itertools.groupby(planes, lambda plane: plane.split(PLANE)[1][0] >> 6 == 2):
        group = list(run)
        if b_frames:
            chunks[-1] += group[0]
            chunks += [*group[1:], placeholder(last)]
        else:
            chunks += group
            last = group[-1]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, chunk in enumerate(chunks):
            packet = av.Packet(chunk)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, FPS), stream
            intra = chunk.split(PLANE)[1][0] >> 6 == 0
            packet.is_keyframe = number == 0 or (intra if flags else len(chunk) < 20)
            container.mux(packet)
    return path


def placeholder(plane: bytes) -> bytes:
    """A plane that is not coded, with the time of this one."""
    bits = "".join(f"{byte:08b}" for byte in plane.split(PLANE)[1][:8])[2:]
    mark = bits.index("0")
    time = bits[mark + 1 : mark + 7]  # a marker and five bits, enough for 25 per second
    bits = f"010{time}100"  # P, the same second, its time, a marker, not coded, and what fills a byte up
    bits += "1" * (-len(bits) % 8)
    return PLANE + int(bits, 2).to_bytes(len(bits) // 8)


def in_sequence(path: Path) -> tuple[list[float | None], list[int]]:
    """Seconds at which each frame starts, from the first one's, and checksums of the frames, from one pass."""
    cover = av.stream.Disposition.attached_pic
    times: list[float | None] = []
    sums = []
    with av.open(str(path), metadata_errors="ignore") as container:
        videos = [stream for stream in container.streams.video if not stream.disposition & cover]
        for frame in container.decode(max(videos, key=lambda stream: stream.codec_context.width)):
            times.append(frame.time)
            sums.append(checksum(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))))
    first = times[0] if times else None
    return [None if time is None or first is None else time - first for time in times], sums


def checksum(frame: NDArray[np.uint8]) -> int:
    """Of its pixels."""
    return zlib.crc32(frame.tobytes())


def difference(path: Path, alone: int = 5) -> str:
    """What frames that are sought differ in from decoding in sequence, in words; empty if in nothing.

    Args:
        path: of the file.
        alone: how many frames are read by themselves, too.
    """
    times, frames = in_sequence(path)
    video = open_video(path)
    if len(video.times) != len(frames):
        return f"{len(video.times)} frames for {len(frames)}"
    told = [time for time in times if time is not None]
    if len(told) == len(times) and all(a < b for a, b in itertools.pairwise(told)):
        late = np.abs(video.times - told).max()
        if late > 2e-3:
            return f"times differ by {late:.3f} s"
    order = np.random.default_rng(0).permutation(len(frames))
    tries = [sorted(order.tolist()), *([int(index)] for index in order[:alone]), order[: len(order) // 3].tolist()]
    wrong = set()
    for indices in tries:
        for index, frame in video.frames(indices):
            if checksum(frame) != frames[index]:
                wrong.add(index)
    return f"frames {sorted(wrong)[:8]} of {len(frames)} differ" if wrong else ""
