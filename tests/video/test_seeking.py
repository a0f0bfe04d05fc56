"""Frames that are sought are the frames of decoding in sequence, whatever the codec and the container."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from evalkit.video.decode import open_video
from evalkit.video.timeline import DecodeError
from tests.video.seekable import (
    FPS,
    FRAMES,
    X265,
    Kind,
    checksum,
    difference,
    in_sequence,
    matrix,
    picture,
    write,
    write_packed,
)

X264 = "preset=ultrafast x264-params=scenecut=0"
FLAGGED = [Kind("libx264", ".mp4", 12, 2, X264), Kind("mpeg4", ".mp4"), Kind("libvpx-vp9", ".mkv")]
TRANSPORTS = [Kind("libx264", ".ts", 12, 2, X264), Kind("mpeg2video", ".ts", 12, 2)]
PROGRAMS = [Kind("mpeg2video", ".mpg", 12, 2), Kind("mpeg1video", ".mpg"), Kind("mpeg2video", ".vob")]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVT_LOG", "-1")


# Every second kind with a keyframe each twelve frames; bench/seeking.py tries all, and real videos.
@pytest.mark.parametrize("kind", [*matrix(gops=(12,))][::2], ids=lambda kind: kind.name[:24] + kind.suffix)
def test_frames_by_seeking_equal_frames_in_sequence(kind: Kind, tmp_path: Path) -> None:
    assert difference(write(tmp_path / f"video{kind.suffix}", kind)) == ""


def remuxed(
    source: Path,
    target: Path,
    change: Callable[[int, av.Packet[Any]], av.Packet[Any]],
    muxer: dict[str, str] | None = None,
) -> Path:
    """A copy of a video, packet by packet, each as `change` gives it."""
    with av.open(str(source)) as video, av.open(str(target), "w", options=muxer or {}) as copy:
        stream = copy.add_stream_from_template(video.streams.video[0])
        for number, packet in enumerate(packet for packet in video.demux(video=0) if packet.size):
            changed = change(number, packet)
            changed.stream = stream
            copy.mux(changed)
    return target


@pytest.mark.parametrize("flags", [True, False])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
def test_packed_b_frames_are_decoded_as_in_sequence(suffix: str, flags: bool, tmp_path: Path) -> None:
    path = write_packed(tmp_path / f"packed{suffix}", flags=flags)
    _, frames = in_sequence(path)
    video = open_video(path)
    assert len(frames) > 20 and difference(path) == ""
    assert np.diff(video.times) == pytest.approx(1 / FPS, abs=2e-3)
    for index in (0, 12, 13, 20):
        frame = video.read([index])[0].astype(int)
        off = [np.abs(frame - picture(number)).mean() for number in range(FRAMES)]
        assert off.index(min(off)) == index  # neither gray nor out of order


def test_packed_b_frames_are_not_read_by_decord(tmp_path: Path) -> None:
    video = open_video(write_packed(tmp_path / "packed.mp4", flags=False))
    assert video._line.doubt == "frames without times of their own"


@pytest.mark.parametrize("kind", FLAGGED)
def test_keyframes_that_a_container_makes_up_are_no_cuts(kind: Kind, tmp_path: Path) -> None:
    def flagged(number: int, packet: av.Packet[Any]) -> av.Packet[Any]:
        packet.is_keyframe = True
        return packet

    path = remuxed(write(tmp_path / f"right{kind.suffix}", kind), tmp_path / f"wrong{kind.suffix}", flagged)
    assert difference(path) == ""
    assert 0 < len(open_video(path)._line.cuts) < 5


def test_decoding_does_not_start_where_settings_of_another_keyframe_are_needed(tmp_path: Path) -> None:
    # one raw stream after another, whose parameter sets come with its first frame only
    parts = []
    for name, size in (("a", "preset=ultrafast"), ("b", "preset=ultrafast x264-params=cabac=1:ref=3:8x8dct=1")):
        part = write(tmp_path / f"{name}.h264", Kind("libx264", ".h264", 6, 0, size))
        parts.append(part.read_bytes())
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    assert difference(tmp_path / "both.h264") == ""


@pytest.mark.parametrize("suffix", [".webm", ".mkv", ".ivf", ".avi"])
def test_packets_that_are_never_shown_are_no_frames(suffix: str, tmp_path: Path) -> None:
    def hidden(number: int, packet: av.Packet[Any]) -> av.Packet[Any]:
        head, *rest = bytes(packet)
        # alternate references, each with a time of its own, one of them last
        changed = av.Packet(bytes([head & ~16 if number % 7 == 4 else head, *rest]))
        changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
        changed.duration, changed.is_keyframe = packet.duration, packet.is_keyframe
        return changed

    path = write(tmp_path / f"shown{suffix}", Kind("libvpx", suffix, options="deadline=realtime cpu-used=8"))
    assert len(open_video(path).times) == FRAMES
    path = remuxed(path, tmp_path / f"hidden{suffix}", hidden)
    assert len(in_sequence(path)[1]) == len(open_video(path).times) == FRAMES - 4
    assert difference(path) == ""


def test_frames_that_are_not_coded_are_no_frames_and_a_file_that_is_cut_off_fails(tmp_path: Path) -> None:
    source = write(tmp_path / "whole.avi", Kind("mpeg4", ".avi"), frames=60)
    # a plane that is not coded: P, its second, a time of five bits, not coded
    skipped = av.Packet(b"\0\0\1\xb6" + int("0101000001001111", 2).to_bytes(2))

    def not_coded(number: int, packet: av.Packet[Any]) -> av.Packet[Any]:
        if number % 12 != 5:
            return packet
        skipped.pts, skipped.dts, skipped.time_base = packet.pts, packet.dts, packet.time_base
        return skipped

    path = remuxed(source, tmp_path / "skipped.mp4", not_coded)
    assert len(open_video(path).times) == 55 and difference(path) == ""
    remuxed(path, tmp_path / "index.mp4", lambda _, packet: packet, {"movflags": "faststart"})
    data = (tmp_path / "index.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    video = open_video(tmp_path / "cut.mp4")
    with pytest.raises(DecodeError, match="cut off"):
        video.read([len(video.times) - 1])


def shifted(source: Path, target: Path, ticks: int) -> Path:
    """A transport stream whose stamps start at this tick of 1/90000 s."""
    with av.open(str(source)) as video, av.open(str(target), "w", options={"mpegts_copyts": "1"}) as copy:
        stream = copy.add_stream_from_template(video.streams.video[0])
        for packet in (packet for packet in video.demux(video=0) if packet.size):
            assert packet.pts is not None and packet.dts is not None and packet.time_base is not None
            pts, dts = (int(stamp * packet.time_base * 90000) + ticks for stamp in (packet.pts, packet.dts))
            packet.pts, packet.dts, packet.time_base, packet.stream = pts, dts, Fraction(1, 90000), stream
            copy.mux(packet)
    return target


def parts(folder: Path, kind: Kind) -> Iterator[Path]:
    for name, first in (("a", 0), ("b", 100)):
        yield write(folder / f"{name}{kind.suffix}", kind, first=first)


@pytest.mark.parametrize("late", [0, 45_000, 90_000 * 3600])
@pytest.mark.parametrize("kind", TRANSPORTS)
def test_joined_transport_streams_are_shown_one_after_the_other(kind: Kind, late: int, tmp_path: Path) -> None:
    first, second = parts(tmp_path, kind)
    moved = shifted(second, tmp_path / "moved.ts", late) if late else second
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + moved.read_bytes())
    assert_one_after_the_other(both, [first, second])


@pytest.mark.parametrize("kind", PROGRAMS)
def test_joined_program_streams_are_shown_one_after_the_other(kind: Kind, tmp_path: Path) -> None:
    first, second = parts(tmp_path, kind)
    both = tmp_path / f"both{kind.suffix}"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    assert_one_after_the_other(both, [first, second])


def assert_one_after_the_other(both: Path, alone: list[Path]) -> None:
    video, frames = open_video(both), [frame for path in alone for frame in in_sequence(path)[1]]
    assert len(video.times) == len(frames) == 2 * FRAMES
    assert video.times == pytest.approx(np.arange(2 * FRAMES) / FPS, abs=1e-3)
    assert video.duration == pytest.approx(2 * FRAMES / FPS, abs=1e-3)
    for index in (0, 7, FRAMES - 1, FRAMES, FRAMES + 1, 2 * FRAMES - 1):
        assert checksum(video.read([index])[0]) == frames[index]


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_joined_matroska_files_are_shown_one_after_the_other(suffix: str, tmp_path: Path) -> None:
    kind = Kind("libx264", suffix, 12, 2, X264) if suffix == ".mkv" else Kind("libvpx", suffix)
    first, second = parts(tmp_path, kind)
    both = tmp_path / f"both{suffix}"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    assert_one_after_the_other(both, [first, second])


@pytest.mark.parametrize("kind", [Kind("libx264", ".mp4", 12, 2, X264), Kind("libx265", ".mkv", 12, 3, X265)])
def test_stamps_in_the_order_of_storage_do_not_put_b_frames_out_of_order(kind: Kind, tmp_path: Path) -> None:
    def stored(number: int, packet: av.Packet[Any]) -> av.Packet[Any]:
        packet.pts, packet.dts, packet.time_base = number, number, Fraction(1, FPS)
        return packet

    path = remuxed(write(tmp_path / f"right{kind.suffix}", kind), tmp_path / f"stored{kind.suffix}", stored)
    assert difference(path) == ""
    assert np.diff(open_video(path).times) == pytest.approx(1 / FPS, abs=2e-3)


@pytest.mark.parametrize("before_s", [0.5, 2, 100])
@pytest.mark.parametrize("kind", TRANSPORTS)
def test_a_transport_stream_across_the_wrap_of_its_clock_is_whole(kind: Kind, before_s: float, tmp_path: Path) -> None:
    source = write(tmp_path / "source.ts", kind)
    path = shifted(source, tmp_path / "wrap.ts", (1 << 33) - round((before_s + 1.4) * 90000))
    assert difference(path) == ""
    video = open_video(path)
    assert video.times == pytest.approx(np.arange(FRAMES) / FPS, abs=1e-3)
    assert video.duration == pytest.approx(FRAMES / FPS, abs=1e-3)
