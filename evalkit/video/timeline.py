"""Presentation times of a video file's frames, from one pass over its packets; nothing is decoded.

Only where the packets do not tell when frames are shown is the file decoded once. The packets also tell where decoding
may start, and whether decord may read the file. That is not left to decord, which does not complain: in AVI, ASF and
MPEG-TS, across open GOPs (the default of x265) and with intra refresh its seeks land on another frame and it returns
that one in silence.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from evalkit.video.bitstream import Bitstream
from evalkit.video.media import locate, open_bytes, open_container
from evalkit.video.stamps import StampRestarts, mean_gap, one_after_another

# Several processes decode at once, so each keeps to one core. One thread also reports damage at the packet that holds
# it, which several do not.
THREADS = 1
# Pixels of one frame: 16K video has 133 million, and a file of some bytes can state any size.
MOST_PIXELS = 1 << 27
# The containers in which decord's seeks were exact on every file tried, where all keyframes are clean cuts.
EXACT_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# The containers in which time stamps may jump, since programs are joined or wrap; they state no duration either.
JUMPING_FORMATS = ("mpegts", "mpeg")
# Seconds of a jump forward that is a new start of the stamps and not a pause; as in the ffmpeg command.
JUMP_S = 10.0
# B frames come early in a stream that has any; so many packets are looked at.
B_FRAMES_WITHIN = 16


class DecodeError(Exception):
    """A file, or frames of it, cannot be decoded; the message says why in one line."""


class Timeline(NamedTuple):
    """Presentation times of a video stream's frames, and the places from which they can be decoded.

    Attributes:
        stream: index of the video stream in the file.
        size: height and width in pixels before rotation.
        tick: seconds in one tick.
        pts: tick at which each shown frame starts, ascending.
        end: tick at which the last shown frame ends.
        cuts: keyframes from which decoding gives what decoding from the start gives: presentation to decoding tick,
            ascending; empty means that there are none but the start of the file.
        counted: frames carry no times of their own; the n-th frame that is decoded is the n-th of `pts`.
        promised: tick of the end that the file states, if its packets end well before; else None.
        doubt: why a library that reads by frame number is not trusted with this file; empty if it is.
        checksums: CRC-32 of each keyframe's packet, by presentation tick. After a seek into MPEG-PS, packets have the
            stamps of others.
    """

    stream: int
    size: tuple[int, int]
    tick: Fraction
    pts: list[int]
    end: int
    cuts: dict[int, int]
    counted: bool
    promised: int | None
    doubt: str
    checksums: dict[int, int]


def timeline(path: Path) -> Timeline:
    """Read the timeline of the video in a file; of the larger stream if there are several.

    Raises:
        DecodeError: there is no such file, or no video in it that FFmpeg can read.
    """
    try:
        media = locate(path)
    except FileNotFoundError as error:
        raise DecodeError(str(error)) from error
    if not media.size and not (media.size is None and media.open().size):
        raise DecodeError("the file is empty")
    try:
        with open_container(path) as container:
            line = from_packets(_read_packets(container))
        return _recount(path, line) if line.counted else line
    except FFmpegError as error:
        raise DecodeError(_why_unreadable(path, error)) from error


def video_stream(container: InputContainer, index: int) -> VideoStream:
    """The stream with this index in the file, set to decode in one thread and to raise if a frame is damaged."""
    stream = next(stream for stream in container.streams.video if stream.index == index)
    stream.codec_context.thread_count = THREADS
    # An error, not a patch from the frame before; and the bound, for frames that are larger than the file states.
    stream.codec_context.options = {"err_detect": "explode", "max_pixels": str(MOST_PIXELS)}
    return stream


def _why_unreadable(path: Path, error: FFmpegError) -> str:
    with open_bytes(path) as file:
        head = file.read(16)
    if not any(head):
        return "not a video file: its header is zeroed"
    if head[4:8] == b"ftyp":
        return "the mp4 index (moov) is missing or damaged: the file was cut off or never finished"
    return f"not a video file that FFmpeg can read ({error.strerror})"


@dataclass
class Packets:
    """What one pass over a file's packets gives of its video stream.

    Attributes:
        stream: index of the video stream in the file.
        size: height and width in pixels before rotation.
        tick: seconds in one tick.
        frames: presentation tick, or None, and duration of each shown frame, in the order of storage.
        keyframes: presentation to decoding tick, in the order of storage.
        checksums: CRC-32 of each keyframe's packet, by presentation tick.
        open_gops: keyframes at which decoding does not start afresh, or across which later packets reach back.
        hidden: an edit list hides some frames.
        unclear: packets do not hold one frame each, are stamped in the order of storage, or their stamps start anew.
        damaged: a packet is corrupt, or the last one cannot be read.
        finish_s: seconds at which the last packet of any stream ends.
        stated_s: duration in seconds that the container states; 0 if it states none.
        rate: frames per second that the container states; None if it states none.
        format_name: of the container, as FFmpeg calls it.
        video_streams: number of video streams in the file, cover pictures aside.
    """

    stream: int
    size: tuple[int, int]
    tick: Fraction
    frames: list[tuple[int | None, int]] = field(default_factory=list)
    keyframes: dict[int, int] = field(default_factory=dict)
    checksums: dict[int, int] = field(default_factory=dict)
    open_gops: set[int] = field(default_factory=set)
    hidden: bool = False
    unclear: bool = False
    damaged: bool = False
    finish_s: float = 0.0
    stated_s: float = 0.0
    rate: Fraction | None = None
    format_name: str = EXACT_FORMATS[0]
    video_streams: int = 1

    @cached_property
    def counted(self) -> bool:
        """Whether the packets have no usable presentation times: they are missing, repeated, or in storage order."""
        # AVI stores no presentation times; those that FFmpeg gives are the order of storage.
        stamps = {pts for pts, _ in self.frames if pts is not None}
        return self.format_name == "avi" or self.unclear or len(stamps) < len(self.frames)

    @cached_property
    def starts(self) -> list[int]:
        """Ticks at which frames start, ascending; 0, 1, 2, ... if the packets have no usable times."""
        if self.counted:
            return list(range(len(self.frames)))
        return sorted(pts for pts, _ in self.frames if pts is not None)


def _read_packets(container: InputContainer) -> Packets:
    """The packets of the largest video stream, from one pass over all packets of the file.

    Raises:
        DecodeError: there is no video stream, or FFmpeg has no decoder for it.
    """
    cover = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not videos:
        raise DecodeError("no video stream" + (", only audio" if container.streams.audio else ""))
    for stream in videos:
        if stream.codec_context is None:
            raise DecodeError("FFmpeg has no decoder for its video")
    stream = max(videos, key=lambda stream: stream.codec_context.width * stream.codec_context.height)
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MOST_PIXELS:
        raise DecodeError(f"its frames are {width} x {height}, {width * height:,} pixels; at most {MOST_PIXELS:,}")
    format_name, tick = container.format.name, stream.time_base or Fraction(1, 90000)
    # An AVI states its number of frames, and its tick is one of them; FFmpeg takes its duration from the packets.
    frames_s, duration_s = float(stream.frames * tick), (container.duration or 0) / av.time_base
    packets = Packets(
        stream=stream.index,
        size=(stream.codec_context.height, stream.codec_context.width),
        tick=tick,
        stated_s=frames_s if format_name == "avi" else 0.0 if format_name in JUMPING_FORMATS else duration_s,
        rate=stream.average_rate or stream.guessed_rate,
        format_name=format_name,
        video_streams=len(videos),
    )
    seconds = {stream.index: float(stream.time_base or 0) for stream in container.streams}
    bitstream, bidirectional = Bitstream(stream), False
    restarts, durations = StampRestarts(_longest_pause(container, tick)), dict[int, int]()  # equal ones are one object
    keyframes = _Keyframes(packets, bitstream)
    try:
        for packet in container.demux():
            if not packet.size:
                continue
            pts, duration = packet.pts, packet.duration or 0
            if pts is not None:
                packets.finish_s = max(packets.finish_s, (pts + duration) * seconds[packet.stream_index])
            if packet.stream_index != stream.index:
                continue
            key = keyframes.latest
            if key is not None and pts is not None and pts < key:
                packets.open_gops.add(key)
            is_cut = (key is None or packet.is_keyframe) and keyframes.add(packet, pts)
            restarts.add(*((None, None, False) if packet.is_discard else (pts, packet.dts, is_cut)))
            if restarts.count < B_FRAMES_WITHIN:
                bidirectional = bidirectional or bitstream.is_bidirectional(bytes(packet))
            packets.damaged = packets.damaged or packet.is_corrupt
            shown = bitstream.frames(bytes(packet)) if bitstream.counts_frames else 1
            packets.unclear = packets.unclear or shown > 1 or (not shown and bitstream.is_packed)
            if packet.is_discard:
                packets.hidden = True
            elif shown:
                packets.frames.append((pts, durations.setdefault(duration, duration)))
    except FFmpegError:
        packets.damaged = True
    stamps = [pts for pts, _ in packets.frames if pts is not None]
    ascending = len(stamps) > 1 and stamps == sorted(stamps)
    packets.unclear = packets.unclear or bool(restarts.numbers) or (bidirectional and ascending)
    return packets


class _Keyframes:
    """Sorts the keyframes of a stream, in the order of storage, into those where decoding starts afresh and others."""

    def __init__(self, packets: Packets, bitstream: Bitstream) -> None:
        self.latest: int | None = None
        self._packets, self._bitstream = packets, bitstream
        self._settings, self._change = b"", False  # of the decoder, which keyframes bring

    def add(self, packet: Packet[Any], pts: int | None) -> bool:
        """Adds a packet that the container calls a keyframe, or any before the first; whether decoding starts there."""
        data = bytes(packet)
        starts_afresh = self._bitstream.starts_afresh(data)
        if pts is None or not (packet.is_keyframe or starts_afresh):
            return False
        self.latest = pts
        self._packets.keyframes[pts] = pts if packet.dts is None else packet.dts
        self._packets.checksums[pts] = zlib.crc32(data)
        brought = self._bitstream.headers(data)
        self._change = self._change or bool(brought and self._settings and brought != self._settings)
        self._settings = self._settings or brought
        starts_afresh = starts_afresh and (bool(brought) or not self._change)
        if not starts_afresh:
            self._packets.open_gops.add(pts)
        return starts_afresh


def _longest_pause(container: InputContainer, tick: Fraction) -> float:
    return JUMP_S / tick if container.format.name in JUMPING_FORMATS else math.inf


def from_packets(packets: Packets) -> Timeline:
    """The timeline that the packets of a video stream give.

    Raises:
        DecodeError: they hold no frame.
    """
    if packets.keyframes:  # what comes before the first keyframe cannot be decoded, and no player shows it
        first = next(iter(packets.keyframes))
        shown = [frame for frame in packets.frames if frame[0] is None or frame[0] >= first]
        packets = replace(packets, frames=shown)
    if not packets.frames:
        raise DecodeError("its video stream holds no frame")
    return Timeline(
        stream=packets.stream,
        size=packets.size,
        tick=packets.tick,
        pts=packets.starts,
        end=end_tick(packets),
        cuts=clean_cuts(packets),
        counted=packets.counted,
        promised=promised_end(packets),
        doubt=seek_doubt(packets),
        checksums=packets.checksums,
    )


def end_tick(packets: Packets) -> int:
    """The tick at which the last shown frame ends; the number of frames if the packets have no usable times."""
    if packets.counted:
        return len(packets.frames)
    _, duration = max((pts, duration) for pts, duration in packets.frames if pts is not None)
    usual = round(1 / (packets.rate * packets.tick)) if packets.rate else 1
    return packets.starts[-1] + max(1, duration or mean_gap(packets.starts, usual))


def promised_end(packets: Packets) -> int | None:
    """The tick of the stated end, if it is more than 0.5 s and 5 % after the last packet; else None."""
    if packets.counted and not packets.unclear and packets.format_name != "avi":
        return None
    missing_s = packets.stated_s - packets.finish_s
    return round(packets.stated_s / packets.tick) if missing_s > max(0.5, 0.05 * packets.stated_s) else None


def seek_doubt(packets: Packets) -> str:
    """The first reason not to trust seeks by frame number in this file; empty if there is none."""
    doubts = {
        f"seeks by frame number are not exact in {packets.format_name}": packets.format_name not in EXACT_FORMATS,
        "several video streams": packets.video_streams > 1,
        "edit list": packets.hidden,
        "frames without times of their own": packets.counted,
        "open GOPs": bool(packets.open_gops),
        "damaged or cut off": packets.damaged or promised_end(packets) is not None,
    }
    return next((reason for reason, applies in doubts.items() if applies), "")


def clean_cuts(packets: Packets) -> dict[int, int]:
    """Keyframes, presentation to decoding tick ascending, from which decoding gives what it gives from the start."""
    # Where an edit list hides frames, packets found after a seek are not told apart reliably.
    if packets.hidden or packets.counted:
        return {}
    return {pts: packets.keyframes[pts] for pts in sorted(packets.keyframes.keys() - packets.open_gops)}


def _recount(path: Path, line: Timeline) -> Timeline:
    """The timeline of a stream without usable packet times, from decoding it once.

    Raises:
        DecodeError: decoding does not tell either.
    """
    decoded = []
    whole = True
    with open_container(path) as container:
        stream = video_stream(container, line.stream)
        stream.codec_context.copy_opaque = True
        rate, bitstream = stream.average_rate or stream.guessed_rate, Bitstream(stream)
        restarts = StampRestarts(_longest_pause(container, line.tick))
        try:
            for packet in container.demux(stream):
                if packet.size:
                    is_cut = packet.is_keyframe and bitstream.starts_afresh(bytes(packet))
                    packet.opaque = [restarts.count]  # its frame has it, too; an object that two share would be lost
                    restarts.add(*((None, None, False) if packet.is_discard else (packet.pts, packet.dts, is_cut)))
                for frame in stream.codec_context.decode(packet):
                    number = frame.opaque[0] if isinstance(frame.opaque, list) else restarts.count - 1
                    decoded.append((number, frame.pts))
        except FFmpegError:
            whole = False
    usual = round(1 / (rate * line.tick)) if rate else 1
    pts = one_after_another(decoded, restarts.numbers, max(1, usual))
    if pts:
        gap = mean_gap(pts, max(1, usual))
        promised = line.promised if whole else max(line.promised or 0, pts[0] + gap * len(line.pts))
        in_order = pts == [stamp for _, stamp in decoded]
        return line._replace(pts=pts, end=pts[-1] + gap, counted=not in_order, promised=promised)
    if not rate or len(decoded) > len(line.pts) or (whole and len(decoded) < len(line.pts)):
        raise DecodeError(f"cannot tell when its frames are shown ({len(decoded)} frames in {len(line.pts)} packets)")
    return line._replace(tick=1 / rate)
