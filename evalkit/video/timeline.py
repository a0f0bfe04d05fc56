"""When a player shows each frame of a video file, from one pass over its packets; nothing is decoded.

The packets also tell where decoding may start, and whether decord may read the file. That is not left to decord, which
does not complain: in AVI, ASF and MPEG-TS, across open GOPs (the default of x265) and with intra refresh its seeks land
on another frame and it returns that one in silence.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

# Several processes decode at once, so each keeps to one core. One thread also reports damage at the packet that holds
# it, which several do not.
THREADS = 1
# The containers in which decord's seeks were exact on every file tried, where all keyframes are clean cuts.
EXACT_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")


class DecodeError(Exception):
    """Frames that a file does not yield; the message says why in one line."""


class Timeline(NamedTuple):
    """What the packets of a video stream say about its frames.

    Attributes:
        stream: index of the video stream in the file.
        size: height and width in pixels before rotation.
        tick: seconds in one tick.
        pts: tick at which each shown frame starts, ascending.
        end: tick at which the last shown frame ends.
        cuts: keyframes from which decoding gives what decoding from the start gives: presentation to decoding tick,
            ascending; empty means that there are none but the start of the file.
        counted: frames carry no times of their own; the n-th frame that is decoded is the n-th of `pts`.
        promised: tick until which the file claims to last, where its packets end well before; else None.
        doubt: why a library that reads by frame number is not trusted with this file; empty where it is.
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


def timeline(path: Path) -> Timeline:
    """The timeline of the video in a file; of the larger stream where there are several.

    Raises:
        DecodeError: there is no such file, or no video in it that FFmpeg can read.
    """
    if not path.is_file():
        raise DecodeError(f"no such file: {path}")
    if not path.stat().st_size:
        raise DecodeError("the file is empty")
    try:
        with open_file(path) as container:
            line = _scan(container)
        return _recount(path, line) if line.counted else line
    except FFmpegError as error:
        raise DecodeError(_why_unreadable(path, error)) from error


def open_file(path: Path) -> InputContainer:
    """The file, open for reading; text in it that is not UTF-8 is let pass."""
    return av.open(str(path), metadata_errors="ignore")


def video_stream(container: InputContainer, index: int) -> VideoStream:
    """The stream with this index in the file, set to decode in one thread and to raise where a frame is damaged."""
    stream = next(stream for stream in container.streams.video if stream.index == index)
    stream.codec_context.thread_count = THREADS
    stream.codec_context.options = {"err_detect": "explode"}  # an error, not a patch from the frame before
    return stream


def _why_unreadable(path: Path, error: FFmpegError) -> str:
    with path.open("rb") as file:
        head = file.read(16)
    if not any(head):
        return "not a video file: its header is zeroed"
    if head[4:8] == b"ftyp":
        return "the mp4 index (moov) is missing or damaged: the file was cut off or never finished"
    return f"not a video file that FFmpeg can read ({error.strerror})"


def _scan(container: InputContainer) -> Timeline:
    """The timeline of the largest video stream, from all packets of the file."""
    cover = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not videos:
        raise DecodeError("no video stream" + (", only audio" if container.streams.audio else ""))
    for stream in videos:
        if stream.codec_context is None:
            raise DecodeError("FFmpeg has no decoder for its video")
    stream = max(videos, key=lambda stream: stream.codec_context.width * stream.codec_context.height)
    tick = stream.time_base or Fraction(1, 90000)
    seconds = {stream.index: float(stream.time_base or 0) for stream in container.streams}

    shown: list[tuple[int | None, int]] = []
    keys: dict[int, int] = {}  # presentation to decoding tick, as they lie in the file
    key: int | None = None  # the latest of them
    opened: set[int] = set()  # those that later packets reach back across
    hidden = damaged = False
    finish = 0.0  # seconds, of any stream
    try:
        for packet in container.demux():
            if not packet.size:
                continue
            pts, length = packet.pts, packet.duration or 0
            if pts is not None:
                finish = max(finish, (pts + length) * seconds[packet.stream_index])
            if packet.stream_index != stream.index:
                continue
            if pts is not None and packet.is_keyframe:
                key = pts
                keys[key] = pts if packet.dts is None else packet.dts
                if not _starts_afresh(stream, bytes(packet)):
                    opened.add(key)
            elif pts is not None and key is not None and pts < key:
                opened.add(key)
            damaged = damaged or packet.is_corrupt
            if packet.is_discard:
                hidden = True
            else:
                shown.append((pts, length))
    except FFmpegError:
        damaged = True
    if keys:  # what comes before the first keyframe cannot be decoded, and no player shows it
        first = next(iter(keys))
        shown = [(pts, length) for pts, length in shown if pts is None or pts >= first]
    if not shown:
        raise DecodeError("its video stream holds no frame")

    format_name = container.format.name
    known = sorted((pts, length) for pts, length in shown if pts is not None)
    stamps = [pts for pts, _ in known]
    # AVI stores no presentation times, what FFmpeg gives for them is the order of storage
    counted = format_name == "avi" or len(set(stamps)) < len(shown)
    if counted:
        stamps, end = list(range(len(shown))), len(shown)
    else:
        rate = stream.average_rate or stream.guessed_rate
        usual = round(1 / (rate * tick)) if rate else 1
        end = stamps[-1] + max(1, known[-1][1] or _mean_gap(stamps, usual))
    # an AVI states its frames, and its tick is one of them; FFmpeg takes its duration from the packets that are there
    stated = float(stream.frames * tick) if format_name == "avi" else (container.duration or 0) / av.time_base
    promised = None
    if (not counted or format_name == "avi") and stated - finish > max(0.5, 0.05 * stated):
        promised = round(stated / tick)
    doubts = {
        f"seeks by frame number are not exact in {format_name}": format_name not in EXACT_FORMATS,
        "several video streams": len(videos) > 1,
        "edit list": hidden,
        "frames without times of their own": counted,
        "open GOPs": bool(opened),
        "damaged or cut off": damaged or promised is not None,
    }
    doubt = next((why for why, true in doubts.items() if true), "")
    # where an edit list hides frames, packets found after a seek are not told apart reliably
    cuts = {} if hidden or counted else {pts: keys[pts] for pts in sorted(keys.keys() - opened)}
    size = (stream.codec_context.height, stream.codec_context.width)
    return Timeline(stream.index, size, tick, stamps, end, cuts, counted, promised, doubt)


def _starts_afresh(stream: VideoStream, packet: bytes) -> bool:
    """Whether a keyframe forgets all before it; H.264 marks recovery points (intra refresh, open GOPs) as keys too."""
    return stream.codec_context.name != "h264" or any(head & 31 == 5 for head in _unit_heads(stream, packet))


def leads_nowhere(stream: VideoStream, packet: bytes) -> bool:
    """Whether no other frame is made from this packet's one, so that it may be left out; told of H.264 alone."""
    if stream.codec_context.name != "h264":
        return False
    heads = list(_unit_heads(stream, packet))
    return any(head & 31 == 1 for head in heads) and not any(head & 0x60 for head in heads)


def _unit_heads(stream: VideoStream, packet: bytes) -> Iterator[int]:
    """The first byte of each unit of an H.264 packet: whether others lean on it (2 bits), and its type (5 bits)."""
    extra = stream.codec_context.extradata
    if not extra or extra[0] != 1:  # start codes
        yield from (found[1][0] for found in re.finditer(rb"\x00\x00\x01(.)", packet, re.DOTALL))
        return
    width, at = (extra[4] & 3) + 1, 0
    while at + width < len(packet):
        yield packet[at + width]
        at += width + int.from_bytes(packet[at : at + width])


def _recount(path: Path, line: Timeline) -> Timeline:
    """The timeline of a stream whose packets do not tell when frames are shown, from decoding it once."""
    found: list[int | None] = []
    whole = True
    with open_file(path) as container:
        stream = video_stream(container, line.stream)
        rate = stream.average_rate or stream.guessed_rate
        try:
            for frame in container.decode(stream):
                found.append(frame.pts)
        except FFmpegError:
            whole = False
    stamps = [pts for pts in found if pts is not None]
    if len(stamps) == len(found) > 0 and all(a < b for a, b in itertools.pairwise(stamps)):
        gap = _mean_gap(stamps, 1)
        promised = line.promised if whole else max(line.promised or 0, stamps[0] + gap * len(line.pts))
        return line._replace(pts=stamps, end=stamps[-1] + gap, counted=False, promised=promised)
    if not rate or len(found) > len(line.pts) or (whole and len(found) < len(line.pts)):
        raise DecodeError(f"no telling when its frames are shown ({len(found)} frames in {len(line.pts)} packets)")
    return line._replace(tick=1 / rate)


def _mean_gap(stamps: list[int], alone: int) -> int:
    """Ticks from one frame to the next on average; `alone` where there is one frame only."""
    return (stamps[-1] - stamps[0]) // (len(stamps) - 1) if len(stamps) > 1 else alone
