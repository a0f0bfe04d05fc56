"""The frames of one video file, by the time at which a player shows them.

One pass over the packets (nothing is decoded) tells when each frame is shown. decord reads the frames of the files on
which it is exact; everything else goes through PyAV. What decord may read is decided by what the packets say and not by
whether it complains: in AVI, ASF and MPEG-TS, across open GOPs (the default of x265) and with intra refresh its seeks
land on another frame and it returns that one in silence.
"""

from __future__ import annotations

import functools
import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

# Several processes decode at once, so each keeps to one core. One thread also reports damage at the packet that holds
# it, which several do not.
THREADS = 1
# The containers in which decord's seeks were exact on every file tried, where all keyframes are clean cuts.
DECORD_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# A seek costs about as much as decoding this many frames.
SEEK_FRAMES = 16
# How many bytes of frames decord hands over at once; more is slower as well as larger.
BATCH_BYTES = 8 << 20

Frame = NDArray[np.uint8]
_PYAV = f"PyAV {av.__version__}"


class DecodeError(Exception):
    """Frames that a file does not yield; the message says why in one line."""


class Cut(NamedTuple):
    """A keyframe from which decoding gives what decoding from the start of the file gives; in ticks."""

    pts: int
    dts: int


class Timeline(NamedTuple):
    """What the packets of a video stream say about its frames.

    Attributes:
        stream: index of the video stream in the file.
        size: height and width in pixels before rotation.
        tick: seconds in one tick.
        pts: tick at which each shown frame starts, ascending.
        end: tick at which the last shown frame ends.
        cuts: where decoding may start, ascending; empty means at the start of the file only.
        counted: frames carry no times of their own; the n-th frame that is decoded is the n-th of `pts`.
        promised: tick until which the file claims to last, where its packets end well before; else None.
        doubt: why decord is not trusted with this file; empty where it is.
    """

    stream: int
    size: tuple[int, int]
    tick: Fraction
    pts: list[int]
    end: int
    cuts: list[Cut]
    counted: bool
    promised: int | None
    doubt: str


class Video:
    """The shown frames of one file; made by `open_video`.

    Attributes:
        path: the file.
        times: seconds at which each shown frame starts, float64 (N,), strictly increasing, the first 0. Of a file that
            is cut off, the last entry stands for the missing rest: reading it raises DecodeError.
        duration: seconds until the last frame ends, as the file states it where it is cut off.
        decoder: name and version of the decoder, and in brackets why it is not the default one.
    """

    def __init__(self, path: Path, timeline: Timeline) -> None:
        self.path = path
        self.decoder = default_decoder()
        self._line = timeline
        self._index = {pts: index for index, pts in enumerate(timeline.pts)}
        stamps = [*timeline.pts, timeline.end] if timeline.promised is not None else timeline.pts
        ticks = np.array(stamps, dtype=np.int64) - stamps[0]
        self.times = ticks * timeline.tick.numerator / timeline.tick.denominator
        end = timeline.end if timeline.promised is None else timeline.promised
        self.duration = float((end - stamps[0]) * timeline.tick)
        self._decord = None if timeline.doubt else _open_decord(path)
        if self._decord is None:
            self._use_pyav(timeline.doubt or "decord does not open it")
        elif not self._decord_agrees():
            self._use_pyav("decord sees other frames or times")

    @property
    def default_decoder(self) -> bool:
        """Whether the frames read so far all came from the default decoder."""
        return self.decoder == default_decoder()

    @property
    def width(self) -> int:
        """Width in pixels as shown, after rotation. Raises DecodeError where the first frame does not decode."""
        return self._size[1]

    @property
    def height(self) -> int:
        """Height in pixels as shown, after rotation. Raises DecodeError where the first frame does not decode."""
        return self._size[0]

    def read(self, indices: Sequence[int]) -> Frame:
        """The frames at these indices, in this order, uint8 RGB (n, H, W, 3); an index may come twice.

        Raises:
            DecodeError: one of them does not decode.
            IndexError: an index is outside 0 .. len(times) - 1.
        """
        found = dict(self.frames(indices))
        return np.stack([found[int(index)] for index in indices]) if found else np.empty((0, *self._size, 3), np.uint8)

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, Frame]]:
        """Each of these frames once, with its index, ascending; uint8 RGB (H, W, 3). Holds only a few at a time.

        Raises:
            DecodeError: one of them does not decode.
            IndexError: an index is outside 0 .. len(times) - 1.
        """
        wanted = sorted({int(index) for index in indices})
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self.times):
            raise IndexError(f"frames {wanted[0]} .. {wanted[-1]} of a video with {len(self.times)} frames")
        if wanted and wanted[-1] >= len(self._line.pts):
            raise DecodeError(
                f"the file is cut off: its frames end at {self.times[-1]:.2f} s of {self.duration:.2f} s"
                f" ({len(self._line.pts)} frames are there)"
            )
        while wanted and self._decord is not None:
            batch = wanted[: max(1, BATCH_BYTES // (3 * self._line.size[0] * self._line.size[1]))]
            try:
                pixels = self._decord.get_batch(batch).asnumpy()
            except Exception:
                self._use_pyav("decord stumbled")
            else:
                yield from zip(batch, pixels, strict=True)
                wanted = wanted[len(batch) :]
        yield from self._pyav_frames(wanted)

    @functools.cached_property
    def _size(self) -> tuple[int, int]:
        height, width, _ = next(self.frames([0]))[1].shape
        return height, width

    def _use_pyav(self, why: str) -> None:
        self._decord = None
        if default_decoder() != _PYAV:
            self.decoder = f"{_PYAV} ({why})"

    def _decord_agrees(self) -> bool:
        """Whether decord sees the same frames at the same times, in the size that the stream states."""
        reader = self._decord
        try:
            if reader is None or len(reader) != len(self.times):
                return False
            starts = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
            *size, channels = reader[0].shape  # short rows may come with their padding
        except Exception:  # decord has many kinds; PyAV finds out whether the file is to blame
            return False
        # decord keeps seconds as float32
        tolerance = 2e-3 + 1e-6 * self.duration
        same_times = bool(np.abs(starts - starts[0] - self.times).max() < tolerance)
        return same_times and channels == 3 and sorted(size) == sorted(self._line.size)

    def _pyav_frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        with _open(self.path) as container:
            for cut, run in self._runs(wanted):
                missing = set(run)
                for start in dict.fromkeys(
                    [cut, None]
                ):  # what a seek does not give may come from the start of the file
                    for index, frame in self._decode(container, start, run[-1]) if missing else ():
                        if index in missing:
                            missing.remove(index)
                            yield index, _picture(frame)
                            if not missing:
                                break
                if missing:
                    raise DecodeError(self._damage)

    def _runs(self, wanted: Sequence[int]) -> Iterator[tuple[Cut | None, list[int]]]:
        """The wanted frames in groups to be decoded in one go, each with the cut to seek to (None: from the start)."""
        line, start, run = self._line, None, list[int]()
        stamps = [cut.pts for cut in line.cuts]
        for index in wanted:
            nearest = bisect_right(stamps, line.pts[index]) - 1
            if nearest >= 0:
                skipped = bisect_left(line.pts, stamps[nearest]) - (run[-1] if run else 0)
                if skipped > SEEK_FRAMES:
                    if run:
                        yield start, run
                    start, run = line.cuts[nearest], []
            run.append(index)
        if run:
            yield start, run

    def _decode(self, container: InputContainer, cut: Cut | None, last: int) -> Iterator[tuple[int, VideoFrame]]:
        """Shown frames with their indices from a cut, or from the start, to `last`; damaged ones are left out."""
        if cut is None:
            with _open(self.path) as fresh:
                stream = _configured(fresh, self._line.stream)
                yield from self._shown(stream, fresh.demux(stream), last)
        else:
            stream = _configured(container, self._line.stream)
            packets = _seek(container, stream, cut, {cut.pts for cut in self._line.cuts})
            yield from self._shown(stream, packets, last)

    def _shown(
        self, stream: VideoStream, packets: Iterable[Packet[VideoStream]], last: int
    ) -> Iterator[tuple[int, VideoFrame]]:
        cuts = {cut.pts for cut in self._line.cuts}
        count = itertools.count()
        for frame in _frames(stream, packets, cuts):
            index = next(count) if self._line.counted else self._index.get(frame.pts)  # type: ignore[arg-type]
            if index is not None:
                yield index, frame
                if index >= last:
                    return

    @functools.cached_property
    def _damage(self) -> str:
        """Which frames do not decode, in one line; decodes the whole file to tell."""
        count = len(self._line.pts)
        with _open(self.path) as container:
            good = {index for index, _ in self._decode(container, None, count)}
        tally = f"({len(good)} of {count} decoded)"
        if not good:
            return f"no frame can be decoded {tally}"
        first = next((index for index in range(count) if index not in good), 0)
        again = next((index for index in range(first, count) if index in good), None)
        if again is None:
            return f"frames after {self.times[first].round(2)} s cannot be decoded {tally}"
        return f"frames from {self.times[first].round(2)} s to {self.times[again].round(2)} s cannot be decoded {tally}"


def open_video(path: Path) -> Video:
    """The video in a file, ready to be read by frame index; the larger stream where there are several.

    Raises:
        DecodeError: there is no such file, or no video in it that FFmpeg can read.
    """
    path = Path(path).absolute()  # a leading slash cannot be taken for a protocol
    if not path.is_file():
        raise DecodeError(f"no such file: {path}")
    if not path.stat().st_size:
        raise DecodeError("the file is empty")
    try:
        with _open(path) as container:
            timeline = _scan(container)
        if timeline.counted:
            timeline = _recount(path, timeline)
    except FFmpegError as error:
        raise DecodeError(_why_unreadable(path, error)) from error
    return Video(path, timeline)


@functools.cache
def default_decoder() -> str:
    """Name and version of the decoder that is used where it is exact: decord, or PyAV where that is not installed."""
    try:
        import decord
    except (ImportError, OSError):
        return _PYAV
    for name in ("decord2", "decord"):  # two distributions of one module
        try:
            if metadata.version(name) == decord.__version__:
                return f"{name} {decord.__version__}"
        except metadata.PackageNotFoundError:
            continue
    return f"decord {decord.__version__}"


def _open(path: Path) -> InputContainer:
    return av.open(str(path), metadata_errors="ignore")


def _open_decord(path: Path) -> Any:
    """A decord reader that raises where it would repeat a frame to hide damage; None where it does not open."""
    try:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        return decord.VideoReader(str(path), num_threads=THREADS, fault_tol=1e-9)
    except Exception:
        return None


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
    keys: list[Cut] = []
    opened: set[int] = set()  # keyframes that later packets reach back across
    hidden = damaged = False
    finish = 0.0  # seconds, of any stream
    try:
        for packet in container.demux():
            if not packet.size:
                continue
            if packet.pts is not None:
                finish = max(finish, (packet.pts + (packet.duration or 0)) * seconds[packet.stream_index])
            if packet.stream_index != stream.index:
                continue
            if packet.is_keyframe:
                if packet.pts is not None:
                    keys.append(Cut(packet.pts, packet.pts if packet.dts is None else packet.dts))
                    if not _starts_afresh(stream, bytes(packet)):
                        opened.add(packet.pts)
            elif keys and packet.pts is not None and packet.pts < keys[-1].pts:
                opened.add(keys[-1].pts)
            damaged = damaged or packet.is_corrupt
            if packet.is_discard:
                hidden = True
            else:
                shown.append((packet.pts, packet.duration or 0))
    except FFmpegError:
        damaged = True
    if keys:  # what comes before the first keyframe cannot be decoded, and no player shows it
        shown = [(pts, length) for pts, length in shown if pts is None or pts >= keys[0].pts]
    if not shown:
        raise DecodeError("its video stream holds no frame")

    format_name = container.format.name
    known = sorted((pts, length) for pts, length in shown if pts is not None)
    pts = [stamp for stamp, _ in known]
    # AVI stores no presentation times, what FFmpeg gives for them is the order of storage
    counted = format_name == "avi" or len(set(pts)) < len(shown)
    if counted:
        pts, end = list(range(len(shown))), len(shown)
    else:
        rate = stream.average_rate or stream.guessed_rate
        usual = round(1 / (rate * tick)) if rate else 1
        gap = (pts[-1] - pts[0]) // (len(pts) - 1) if len(pts) > 1 else usual
        end = pts[-1] + max(1, known[-1][1] or gap)
    # an AVI states its frames, and its tick is one of them; FFmpeg takes its duration from the packets that are there
    stated = float(stream.frames * tick) if format_name == "avi" else (container.duration or 0) / av.time_base
    promised = None
    if (not counted or format_name == "avi") and stated - finish > max(0.5, 0.05 * stated):
        promised = round(stated / tick)
    doubt = (
        f"decord's seeks are not exact in {format_name}"
        if format_name not in DECORD_FORMATS
        else "several video streams"
        if len(videos) > 1
        else "edit list"
        if hidden
        else "frames without times of their own"
        if counted
        else "open GOPs"
        if opened
        else "damaged or cut off"
        if damaged or promised is not None
        else ""
    )
    # where an edit list hides frames, packets found after a seek are not told apart reliably
    cuts = [] if hidden or counted else sorted({cut for cut in keys if cut.pts not in opened})
    size = (stream.codec_context.height, stream.codec_context.width)
    return Timeline(stream.index, size, tick, pts, end, cuts, counted, promised, doubt)


def _starts_afresh(stream: VideoStream, data: bytes) -> bool:
    """Whether a keyframe forgets all before it; H.264 marks recovery points (intra refresh, open GOPs) as keys too."""
    if stream.codec_context.name != "h264":
        return True
    extra = stream.codec_context.extradata
    if not extra or extra[0] != 1:  # start codes
        return re.search(b"\x00\x00\x01[\x25\x45\x65]", data) is not None
    width, at = (extra[4] & 3) + 1, 0
    while at + width < len(data):
        if data[at + width] & 31 == 5:
            return True
        at += width + int.from_bytes(data[at : at + width])
    return False


def _recount(path: Path, line: Timeline) -> Timeline:
    """The timeline of a stream whose packets do not tell when frames are shown, from decoding it once."""
    pts: list[int | None] = []
    whole = True
    with _open(path) as container:
        stream = _configured(container, line.stream)
        rate = stream.average_rate or stream.guessed_rate
        try:
            for frame in container.decode(stream):
                pts.append(frame.pts)
        except FFmpegError:
            whole = False
    stamps = [stamp for stamp in pts if stamp is not None]
    if len(stamps) == len(pts) > 0 and all(a < b for a, b in itertools.pairwise(stamps)):
        gap = (stamps[-1] - stamps[0]) // (len(stamps) - 1) if len(stamps) > 1 else 1
        promised = line.promised if whole else max(line.promised or 0, stamps[0] + gap * len(line.pts))
        return line._replace(pts=stamps, end=stamps[-1] + gap, counted=False, promised=promised)
    if not rate or len(pts) > len(line.pts) or (whole and len(pts) < len(line.pts)):
        raise DecodeError(f"no telling when its frames are shown ({len(pts)} frames in {len(line.pts)} packets)")
    return line._replace(tick=1 / rate)


def _configured(container: InputContainer, index: int) -> VideoStream:
    stream = container.streams[index]
    assert isinstance(stream, VideoStream)
    if not stream.codec_context.is_open:
        stream.codec_context.thread_count = THREADS
        stream.codec_context.options = {"err_detect": "explode"}  # an error, not a patch from the frame before
    return stream


def _seek(container: InputContainer, stream: VideoStream, cut: Cut, cuts: set[int]) -> Iterator[Packet[VideoStream]]:
    """Packets from a cut, or from one before it; none where the container does not take us to one."""
    for stamp in (cut.pts, cut.dts):
        try:
            container.seek(stamp, stream=stream)
            packets = container.demux(stream)
            first = next(packets)
        except (FFmpegError, StopIteration):
            continue
        if first.pts in cuts and first.pts <= cut.pts:
            return itertools.chain([first], packets)
    return iter(())


def _frames(stream: VideoStream, packets: Iterable[Packet[VideoStream]], cuts: set[int]) -> Iterator[VideoFrame]:
    """Decoded frames; after damage, none until the next cut, for they would be made from what is missing."""
    broken = False
    try:
        for packet in packets:
            if broken and packet.pts not in cuts:
                continue
            if broken:
                stream.codec_context.flush_buffers()
            try:
                frames = stream.codec_context.decode(packet)
                broken = False
            except FFmpegError:
                broken = True
                continue
            for frame in frames:
                broken = broken or frame.is_corrupt
                if not broken:
                    yield frame
    except FFmpegError:  # the container itself ends in damage
        return


def _picture(frame: VideoFrame) -> Frame:
    pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
