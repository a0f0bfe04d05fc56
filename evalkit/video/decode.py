"""Decoded frames of one video file by index, in the order of presentation.

PyAV decodes them, so that damage is an error and not a concealed picture. It is given only the packets that the
requested frames depend on, which also makes it the fastest (bench/decode.py). decord or torchcodec decode if they are
requested and the timeline says that their seeks are exact.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import math
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from evalkit.errors import UserError, install, one_line
from evalkit.video.bitstream import Bitstream
from evalkit.video.media import locate, open_container
from evalkit.video.timeline import THREADS, DecodeError, Timeline, timeline, video_stream

# A seek costs about as much as passing over this many packets.
SEEK_PACKETS = 16
# How many bytes of frames a library hands over at once; more is slower as well as larger.
BATCH_BYTES = 8 << 20

Frame = NDArray[np.uint8]
Decoder = Literal["pyav", "decord", "torchcodec"]
# Frames by index, uint8 RGB (n, H, W, 3), and the seconds at which each starts, from the first one's.
Library = Callable[[list[int]], tuple[Frame, NDArray[np.float64]]]
PYAV = f"PyAV {av.__version__}"


class Video:
    """The shown frames of one file; made by `open_video`.

    Attributes:
        path: the file.
        times: seconds at which each shown frame starts, float64 (N,), strictly increasing, the first 0. Of a file that
            is cut off, the last entry stands for the missing rest: reading it raises DecodeError.
        duration: seconds until the last frame ends; of a file that is cut off, as the file states it.
        decoder: name and version of the decoder, and in brackets why it is not the requested one.
    """

    def __init__(self, path: Path, line: Timeline, decoder: Decoder, inside: str = "") -> None:
        self.path = path
        self._requested_decoder = self.decoder = default_decoder(decoder)
        self._line = line
        stamps = line.pts if line.promised is None else [*line.pts, line.end]
        ticks = np.array(stamps, dtype=np.int64) - stamps[0]
        self.times = ticks * line.tick.numerator / line.tick.denominator
        end = line.end if line.promised is None else line.promised
        self.duration = float((end - stamps[0]) * line.tick)
        self._library: Library | None = None
        if decoder != "pyav" and (doubt := line.doubt or inside):
            self._use_pyav(doubt)
        elif decoder != "pyav":
            self._open(LIBRARIES[decoder])

    @property
    def default_decoder(self) -> bool:
        """Whether the frames read so far all came from the requested decoder."""
        return self.decoder == self._requested_decoder

    @property
    def width(self) -> int:
        """Width in pixels as shown, after rotation. Raises DecodeError if the first frame does not decode."""
        return self._size[1]

    @property
    def height(self) -> int:
        """Height in pixels as shown, after rotation. Raises DecodeError if the first frame does not decode."""
        return self._size[0]

    def read(self, indices: Sequence[int]) -> Frame:
        """Decode the frames at these indices, in this order, uint8 RGB (n, H, W, 3); an index may come twice.

        Raises:
            DecodeError: one of them does not decode.
            IndexError: an index is outside 0 .. len(times) - 1.
        """
        order, pixels = np.array(indices), None
        for index, frame in self.frames(indices):
            if pixels is None:
                pixels = np.empty((len(indices), *frame.shape), np.uint8)
            pixels[order == index] = frame
        return np.empty((0, *self._size, 3), np.uint8) if pixels is None else pixels

    def frames(self, indices: Iterable[int]) -> Iterator[tuple[int, Frame]]:
        """Decode each of these frames once, in any order: index and uint8 RGB (H, W, 3). Holds only a few at a time.

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
        while wanted and self._library is not None:
            batch = wanted[: max(1, BATCH_BYTES // (3 * math.prod(self._line.size)))]
            pixels = self._from_library(self._library, batch)
            if pixels is not None:
                yield from zip(batch, pixels, strict=True)
                wanted = wanted[len(batch) :]
        yield from self._pyav_frames(wanted)

    @functools.cached_property
    def _size(self) -> tuple[int, int]:
        height, width, _ = next(self.frames([0]))[1].shape
        return height, width

    def _use_pyav(self, why: str) -> None:
        self._library = None
        self.decoder = f"{PYAV} ({why})"

    def _open(self, library: Callable[[Path, Timeline], tuple[int, Library]]) -> None:
        try:
            count, self._library = library(self.path, self._line)
        except Exception:  # each has many kinds; PyAV finds out whether the file is to blame
            self._use_pyav(f"{self.decoder} does not open it")
        else:
            if count != len(self.times):
                self._use_pyav(f"{self.decoder} sees other frames or times")

    def _from_library(self, read: Library, indices: list[int]) -> Frame | None:
        """These frames; None, and PyAV from now on, if the library fails or gives frames of other times or sizes."""
        try:
            pixels, starts = read(indices)
        except Exception:
            self._use_pyav(f"{self.decoder} stumbled")
            return None
        tolerance = 2e-3 + 1e-6 * self.duration  # decord keeps seconds as float32
        height, width, channels = pixels.shape[1:]  # short rows may come with their padding
        same_size = channels == 3 and sorted((height, width)) == sorted(self._line.size)
        if same_size and bool(np.abs(starts - self.times[indices]).max() < tolerance):
            return pixels
        self._use_pyav(f"{self.decoder} sees other frames or times")
        return None

    def _pyav_frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        left, reformatter = set(wanted), VideoReformatter()
        for read in (self._from_cuts, self._from_start):  # the start also gives what no seek has found
            for index, frame in read(sorted(left)) if left else ():
                if index in left:
                    left.remove(index)
                    yield index, _picture(frame, reformatter)
        if left:
            raise DecodeError(self._damage)

    def _from_cuts(self, indices: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Shown frames, each from the last cut before it; packets that none of them depends on are skipped."""
        line, stamps = self._line, list(self._line.cuts)
        runs: dict[int, list[int]] = {}  # frames to be read from each cut
        for index in indices:
            if before := bisect_right(stamps, line.pts[index]):
                runs.setdefault(stamps[before - 1], []).append(index)
        if runs:
            with open_container(self.path) as container:
                stream = video_stream(container, line.stream)
                yield from self._shown(stream, self._needed(container, stream, runs), indices[-1])

    def _needed(
        self, container: InputContainer, stream: VideoStream, runs: Mapping[int, Sequence[int]]
    ) -> Iterator[Packet[Any]]:
        """The packets that these frames depend on, by cut; after each cut's an empty one, which flushes the decoder."""
        line, packets, at = self._line, container.demux(stream), 0
        bitstream = Bitstream(stream)
        for cut, run in runs.items():
            if bisect_left(line.pts, cut) - at > SEEK_PACKETS:
                packets = _seek(container, stream, cut, line.cuts[cut])
            wanted, at = {line.pts[index] for index in run}, run[-1]
            started = False
            for packet in packets:
                if not started and packet.pts is not None and packet.pts >= cut:
                    if packet.pts > cut and packet.is_keyframe:
                        break  # it was not where the seek led
                    started = packet.pts == cut and zlib.crc32(packet) == line.checksums[cut]
                if started and (packet.pts in wanted or not bitstream.leads_nowhere(bytes(packet))):
                    yield packet
                    wanted.discard(packet.pts)
                    if not wanted:
                        break
            yield Packet()

    def _from_start(self, indices: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Shown frames from the start of the file to the last of these indices."""
        with open_container(self.path) as container:
            stream = video_stream(container, self._line.stream)
            yield from self._shown(stream, container.demux(stream), indices[-1])

    def _shown(
        self, stream: VideoStream, packets: Iterable[Packet[Any]], last: int
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Shown frames with their indices, to `last`; damaged ones are left out."""
        for number, frame in enumerate(_frames(stream, packets, self._line.cuts)):
            index = number if self._line.counted else self._index_of(frame.pts)
            if index is not None:
                yield index, frame
                if index >= last:
                    return

    def _index_of(self, pts: int | None) -> int | None:
        """The index of the frame that is shown from a tick on; None where none is."""
        if pts is None:
            return None
        stamps = self._line.pts  # long ones: a table of them would be made for each part that is read
        place = bisect_left(stamps, pts)
        return place if place < len(stamps) and stamps[place] == pts else None

    @functools.cached_property
    def _damage(self) -> str:
        """Describes the frames that do not decode, in one line, by decoding the whole file."""
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


def open_video(path: Path, decoder: Decoder = "pyav") -> Video:
    """Open a video file to read it by frame index; the larger stream if there are several.

    Args:
        path: the file.
        decoder: library that decodes the frames of files whose seeks it finds exactly, to match another pipeline; PyAV
            decodes all others.

    Raises:
        DecodeError: there is no such file, or no video in it that FFmpeg can read.
        UserError: the decoder is not installed.
    """
    path = Path(path).absolute()  # a leading slash cannot be taken for a protocol
    try:
        media = locate(path)
    except OSError:
        return Video(path, timeline(path), decoder)  # which says why
    return Video(path, _last_timeline(path, media.size, media.version), decoder, media.inside)


@functools.lru_cache(maxsize=1)
def _last_timeline(path: Path, size: int | None, version: str) -> Timeline:
    """The timeline of a file, kept while parts of it are read one after another."""
    return timeline(path)


@functools.cache
def default_decoder(decoder: Decoder = "pyav") -> str:
    """Name and version of a decoder.

    Raises:
        UserError: the decoder is not installed, or cannot be imported.
    """
    if decoder == "pyav":
        return PYAV
    try:
        version = importlib.import_module(decoder).__version__
    except Exception as error:  # torchcodec raises RuntimeError where there is no FFmpeg
        raise UserError(
            f"decoder={decoder}: it cannot be imported ({one_line(error, 200)}): {install(decoder)}"
        ) from error
    with contextlib.suppress(metadata.PackageNotFoundError):  # two distributions have the module decord
        if decoder == "decord" and metadata.version("decord2") == version:
            return f"decord2 {version}"
    return f"{decoder} {version}"


def _decord(path: Path, line: Timeline) -> tuple[int, Library]:
    """The number of frames, and a reader of them, which raises rather than repeat a frame to hide damage."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(str(path), num_threads=THREADS, fault_tol=1e-9)

    def read(indices: list[int]) -> tuple[Frame, NDArray[np.float64]]:
        starts = reader.get_frame_timestamp([0, *indices])[:, 0].astype(np.float64)
        return reader.get_batch(indices).asnumpy(), starts[1:] - starts[0]

    return len(reader), read


def _torchcodec(path: Path, line: Timeline) -> tuple[int, Library]:
    """The number of frames, and a reader of them."""
    from torchcodec.decoders import VideoDecoder  # type: ignore[import-not-found, unused-ignore]  # an extra

    reader = VideoDecoder(path, stream_index=line.stream, dimension_order="NHWC", num_ffmpeg_threads=THREADS)

    def read(indices: list[int]) -> tuple[Frame, NDArray[np.float64]]:
        batch = reader.get_frames_at(indices)
        return batch.data.numpy(), batch.pts_seconds.numpy() - float(line.pts[0] * line.tick)

    return len(reader), read


LIBRARIES = {"decord": _decord, "torchcodec": _torchcodec}


def _seek(container: InputContainer, stream: VideoStream, cut: int, dts: int) -> Iterator[Packet[VideoStream]]:
    """Packets from a cut, or from before it; none if the container cannot seek there."""
    for stamp in (cut, dts):
        try:
            container.seek(stamp, stream=stream)
            packets = container.demux(stream)
            first = next(packets)
        except (FFmpegError, StopIteration):
            continue
        if first.pts is not None and first.pts <= cut:
            return itertools.chain([first], packets)
    return iter(())


def _frames(stream: VideoStream, packets: Iterable[Packet[Any]], cuts: Mapping[int, int]) -> Iterator[VideoFrame]:
    """Decoded frames; after damage, none until the next clean cut, because they would depend on missing frames."""
    resume = False  # at the next cut
    try:
        for packet in packets:
            if resume and packet.pts not in cuts:
                continue
            if resume:
                stream.codec_context.flush_buffers()
            try:
                frames = stream.codec_context.decode(packet)
                resume = not packet.size
            except FFmpegError:
                resume = True
                continue
            damaged = False
            for frame in frames:
                damaged = damaged or frame.is_corrupt
                if not damaged:
                    yield frame
            resume = resume or damaged
    except FFmpegError:  # the container itself ends in damage
        return


def _picture(frame: VideoFrame, reformatter: VideoReformatter) -> Frame:
    pixels = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    turns = round(frame.rotation / 90)
    return np.ascontiguousarray(np.rot90(pixels, turns) if turns else pixels)
