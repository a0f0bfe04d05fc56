"""The frames of one video file, by the time at which a player shows them.

decord reads the frames of the files on which it is exact, PyAV those of all others; the timeline tells which.
"""

from __future__ import annotations

import functools
import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from evalkit.timeline import THREADS, DecodeError, Timeline, open_file, timeline, video_stream

# A seek costs about as much as decoding this many frames.
SEEK_FRAMES = 16
# How many bytes of frames decord hands over at once; more is slower as well as larger.
BATCH_BYTES = 8 << 20

Frame = NDArray[np.uint8]
PYAV = f"PyAV {av.__version__}"


class Video:
    """The shown frames of one file; made by `open_video`.

    Attributes:
        path: the file.
        times: seconds at which each shown frame starts, float64 (N,), strictly increasing, the first 0. Of a file that
            is cut off, the last entry stands for the missing rest: reading it raises DecodeError.
        duration: seconds until the last frame ends, as the file states it where it is cut off.
        decoder: name and version of the decoder, and in brackets why it is not the default one.
    """

    def __init__(self, path: Path, line: Timeline) -> None:
        self.path = path
        self.decoder = default_decoder()
        self._line = line
        self._index: dict[int | None, int] = {pts: index for index, pts in enumerate(line.pts)}
        stamps = line.pts if line.promised is None else [*line.pts, line.end]
        ticks = np.array(stamps, dtype=np.int64) - stamps[0]
        self.times = ticks * line.tick.numerator / line.tick.denominator
        end = line.end if line.promised is None else line.promised
        self.duration = float((end - stamps[0]) * line.tick)
        self._decord: Any = None if line.doubt else _open_decord(path)
        if self._decord is None:
            self._use_pyav(line.doubt or "decord does not open it")
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
        """Each of these frames once, with its index, in any order; uint8 RGB (H, W, 3). Holds only a few at a time.

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
            batch = wanted[: max(1, BATCH_BYTES // (3 * math.prod(self._line.size)))]
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
        if default_decoder() != PYAV:
            self.decoder = f"{PYAV} ({why})"

    def _decord_agrees(self) -> bool:
        """Whether decord sees the same frames at the same times, in the size that the stream states."""
        reader = self._decord
        try:
            if len(reader) != len(self.times):
                return False
            starts = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
            *size, channels = reader[0].shape  # short rows may come with their padding
        except Exception:  # decord has many kinds; PyAV finds out whether the file is to blame
            return False
        tolerance = 2e-3 + 1e-6 * self.duration  # decord keeps seconds as float32
        same_times = bool(np.abs(starts - starts[0] - self.times).max() < tolerance)
        return same_times and channels == 3 and sorted(size) == sorted(self._line.size)

    def _pyav_frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        left = set(wanted)
        for read in (self._from_cuts, self._from_start):  # the start also gives what no seek has found
            for index, frame in read(sorted(left)) if left else ():
                if index in left:
                    left.remove(index)
                    yield index, _picture(frame)
        if left:
            raise DecodeError(self._damage)

    def _from_cuts(self, indices: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Shown frames from the cuts before these indices (ascending), where a seek is cheaper than reading on."""
        line, stamps = self._line, list(self._line.cuts)
        last: dict[int, int] = {}  # frame to be read from each cut
        cut, before = None, 0
        for index in indices:
            nearest = bisect_right(stamps, line.pts[index]) - 1
            if nearest >= 0 and bisect_left(line.pts, stamps[nearest]) - before > SEEK_FRAMES:
                cut = stamps[nearest]
            if cut is not None:
                last[cut] = index
            before = index
        if last:
            with open_file(self.path) as container:
                stream = video_stream(container, line.stream)
                for cut, index in last.items():
                    yield from self._shown(stream, _seek(container, stream, cut, line.cuts), index)

    def _from_start(self, indices: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Shown frames from the start of the file to the last of these indices."""
        with open_file(self.path) as container:
            stream = video_stream(container, self._line.stream)
            yield from self._shown(stream, container.demux(stream), indices[-1])

    def _shown(
        self, stream: VideoStream, packets: Iterable[Packet[VideoStream]], last: int
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Shown frames with their indices, to `last`; damaged ones are left out."""
        for number, frame in enumerate(_frames(stream, packets, self._line.cuts)):
            index = number if self._line.counted else self._index.get(frame.pts)
            if index is not None:
                yield index, frame
                if index >= last:
                    return

    @functools.cached_property
    def _damage(self) -> str:
        """Which frames do not decode, in one line; decodes the whole file to tell."""
        count = len(self._line.pts)
        good = {index for index, _ in self._from_start(range(count))}
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
    return Video(path, timeline(path))


@functools.cache
def default_decoder() -> str:
    """Name and version of the decoder that is used where it is exact: decord, or PyAV where that is not installed."""
    try:
        import decord
    except (ImportError, OSError):
        return PYAV
    for name in ("decord2", "decord"):  # two distributions of one module
        try:
            if metadata.version(name) == decord.__version__:
                return f"{name} {decord.__version__}"
        except metadata.PackageNotFoundError:
            continue
    return f"decord {decord.__version__}"


def _open_decord(path: Path) -> Any:
    """A decord reader that raises where it would repeat a frame to hide damage; None where it does not open."""
    try:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        return decord.VideoReader(str(path), num_threads=THREADS, fault_tol=1e-9)
    except Exception:
        return None


def _seek(
    container: InputContainer, stream: VideoStream, cut: int, cuts: Mapping[int, int]
) -> Iterator[Packet[VideoStream]]:
    """Packets from a cut, or from one before it; none where the container does not take us to one."""
    for stamp in (cut, cuts[cut]):
        try:
            container.seek(stamp, stream=stream)
            packets = container.demux(stream)
            first = next(packets)
        except (FFmpegError, StopIteration):
            continue
        if first.pts is not None and first.pts in cuts and first.pts <= cut:
            return itertools.chain([first], packets)
    return iter(())


def _frames(
    stream: VideoStream, packets: Iterable[Packet[VideoStream]], cuts: Mapping[int, int]
) -> Iterator[VideoFrame]:
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
