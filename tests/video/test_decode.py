"""Frames by presentation time, against PyAV decoding in sequence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from evalkit.video import decode
from evalkit.video.decode import Video, open_video
from evalkit.video.timeline import DecodeError
from tests.given import DATA, real

VIDEOS = DATA / "videos"
MANIFEST = VIDEOS / "manifest.json"
FILES: dict[str, dict[str, Any]] = (
    {file["path"]: file for file in json.loads(MANIFEST.read_text())["files"]} if MANIFEST.exists() else {}
)


# What cannot be decoded, or not to its end, and the words that say so.
BROKEN = {
    "decord/tests__test_data__corrupted.mp4": "frames after 2.8 s cannot be decoded (28 of 50 decoded)",
    "derived/anim.webp": "no frame can be decoded (0 of 1 decoded)",
    "derived/audio_only.mp4": "no video stream, only audio",
    "derived/broken_bitflips.mp4": "frames after 0.3 s cannot be decoded (9 of 90 decoded)",
    "derived/broken_empty.mp4": "the file is empty",
    "derived/broken_header_zeroed.mp4": "not a video file: its header is zeroed",
    "derived/broken_random_bytes.mp4": "not a video file that FFmpeg can read",
    "derived/broken_text.mp4": "not a video file that FFmpeg can read",
    "derived/broken_truncated.avi": "the file is cut off: its frames end at 1.47 s of 3.02 s",
    "derived/broken_truncated.webm": "the file is cut off: its frames end at 1.54 s of 3.02 s",
    "derived/broken_truncated_after_moov.mp4": "the file is cut off: its frames end at 1.58 s of 3.02 s",
    "derived/broken_truncated_no_moov.mp4": "the mp4 index (moov) is missing or damaged",
    "moviepy/doc_medias__result.webm": "the file is empty",
}


def in_sequence(path: Path, moments: NDArray[np.float64]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """The frame that is shown at each moment (seconds, ascending) and its start, from one pass over the file."""
    with av.open(str(path)) as container:
        stream = max(container.streams.video, key=lambda stream: stream.codec_context.width)
        stream.thread_type = "AUTO"
        waiting = list(moments)
        first: float | None = None
        held: av.VideoFrame | None = None
        for frame in container.decode(stream):
            assert frame.time is not None
            first = frame.time if first is None else first
            while held is not None and held.time is not None and waiting and waiting[0] < frame.time - first:
                waiting.pop(0)
                yield held.time - first, upright(held)
            held = frame
            if not waiting:
                return
        assert held is not None and held.time is not None and first is not None
        for _ in waiting:
            yield held.time - first, upright(held)


def upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def number_of(frame: NDArray[np.uint8]) -> int:
    """The number that `write_video` has drawn into a frame."""
    return sum(1 << bit for bit in range(8) if frame[4:12, bit * 16 + 4 : bit * 16 + 12].mean() > 127)


def write_video(
    path: Path,
    frames: int = 60,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    times: list[int] | None = None,
    rotation: int = 0,
    height: int = 96,
    b_frames: int = 0,
) -> Path:
    """A numbered video, 128 wide, 25 fps; the number is along the top in binary. `times` are hundredths of a second."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (height // 8, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "12", **(options or {})})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, height, "yuv420p"
        stream.codec_context.max_b_frames = b_frames
        if times:
            stream.codec_context.time_base = Fraction(1, 100)
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            picture = np.roll(ground, (number * 3, number * 5), (0, 1))
            for bit in range(8):
                picture[:16, bit * 16 : bit * 16 + 16] = 255 * (number >> bit & 1)
            frame = av.VideoFrame.from_ndarray(picture)
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(video: Video, indices: list[int]) -> list[int]:
    return [number_of(frame) for frame in video.read(indices)]


@real
@pytest.mark.parametrize("name", FILES)
def test_every_real_video_gives_the_frames_of_their_times_or_a_reason(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = FILES[name]
    if name in BROKEN:
        with pytest.raises(DecodeError) as caught:
            video = open_video(VIDEOS / name)
            video.read([len(video.times) - 1])
        assert BROKEN[name] in str(caught.value)
        assert "\n" not in str(caught.value)
    else:
        video = open_video(VIDEOS / name)
        assert video.times[0] == 0 and (np.diff(video.times) > 0).all()
        if name != "torchcodec/nasa_13013.mp4":  # listed by its smaller stream
            assert len(video.times) == file["decoded"]
        moments = (np.arange(6) + 0.53) / 6 * video.duration
        chosen = np.searchsorted(video.times, moments, "right") - 1
        pixels = video.read(chosen.tolist())
        expected = list(in_sequence(VIDEOS / name, moments))
        assert len(expected) == len(pixels) == 6
        for index, picture, (start, wanted) in zip(chosen, pixels, expected, strict=True):
            assert abs(video.times[index] - start) < 1e-6
            assert picture.shape == wanted.shape == (video.height, video.width, 3)
            assert np.array_equal(picture, wanted)
    assert capfd.readouterr() == ("", "")


@real
@pytest.mark.parametrize(
    ("name", "frames", "duration"),
    [
        ("derived/editlist_cut_copy.mp4", 92, 3.088),
        ("torchcodec/discard_first_keyframe.mp4", 25, 1.0),
        ("derived/vfr_gap_7s.mkv", 149, 12.0),
        ("derived/start_at_5s.mkv", 90, 3.017),
        ("torchcodec/test_non_zero_start.mp4", 12, 0.4),
        ("derived/one_frame.mp4", 1, 0.034),
        ("derived/audio_longer_than_video.mp4", 1189, 39.855),
        ("moviepy/no_duration.webm", 74, 4.94),
        ("derived/fps0.5.mp4", 20, 40.0),
        ("torchcodec/sine_stereo_mp2.mpg", 100, 4.0),
    ],
)
def test_unusual_clocks_are_those_of_a_player(name: str, frames: int, duration: float) -> None:
    video = open_video(VIDEOS / name)
    assert len(video.times) == frames and video.times[0] == 0
    assert video.duration == pytest.approx(duration, abs=0.01)


@real
@pytest.mark.parametrize(
    "name", ["nasa_13013.mp4.stream3", "nasa_13013_rotated.mp4.stream0", "test_non_zero_start.mp4.stream0"]
)
def test_times_equal_the_tables_of_torchcodec(name: str) -> None:
    table = json.loads((VIDEOS / "torchcodec" / "reference" / f"{name}.all_frames_info.json").read_text())
    starts = np.array([float(frame["pts_time"]) for frame in table])
    video = open_video(VIDEOS / "torchcodec" / name.rsplit(".", 1)[0])
    np.testing.assert_allclose(video.times, starts - starts[0], atol=2e-6)


@real
def test_frames_equal_the_reference_frames_of_torchcodec() -> None:
    reference = np.load(VIDEOS / "torchcodec" / "reference" / "nasa_13013_reference_frames.npz")
    frames = {name.split("frame")[1]: name for name in reference if name.startswith("stream3") and "rgb48" not in name}
    pixels = open_video(VIDEOS / "torchcodec" / "nasa_13013.mp4").read([int(index) for index in frames])
    for picture, name in zip(pixels, frames.values(), strict=True):
        assert np.abs(picture.astype(np.int16) - reference[name]).mean() < 0.01


@real
@pytest.mark.parametrize(("angle", "size"), [(0, (320, 568)), (90, (568, 320)), (180, (320, 568)), (270, (568, 320))])
def test_phones_held_in_any_way_show_the_same_upright_picture(angle: int, size: tuple[int, int]) -> None:
    video = open_video(VIDEOS / "decord" / f"tests__test_data__video_{angle}.mov")
    assert (video.height, video.width) == size


@real
def test_the_good_part_of_a_damaged_file_is_read_and_the_rest_refused() -> None:
    video = open_video(VIDEOS / "decord" / "tests__test_data__corrupted.mp4")
    moments = video.times[:28] + 0.05
    for picture, (_, wanted) in zip(video.read(range(28)), in_sequence(video.path, moments[:-1]), strict=False):
        assert np.array_equal(picture, wanted)
    for beyond in ([29], [49], [0, 30]):
        with pytest.raises(DecodeError, match=r"frames after 2.8 s cannot be decoded \(28 of 50 decoded\)"):
            video.read(beyond)


# Name, encoder, its options, and why a library may not read it (None where it may).
KINDS: list[tuple[str, str, dict[str, Any], str | None]] = [
    ("closed.mp4", "libx264", {}, None),
    ("closed.mkv", "libx264", {"b_frames": 2}, None),
    ("fragments.mp4", "libx264", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}, None),
    ("open.mp4", "libx264", {"options": {"x264-params": "open-gop=1:bframes=3:scenecut=0"}}, "open GOPs"),
    ("refresh.mp4", "libx264", {"options": {"x264-params": "intra-refresh=1:keyint=12"}}, "open GOPs"),
    ("open.mkv", "mpeg4", {"b_frames": 2}, "open GOPs"),
    ("storage.avi", "libx264", {"b_frames": 3}, "seeks by frame number are not exact in avi"),
    ("reordered.avi", "mpeg4", {"b_frames": 2}, "seeks by frame number are not exact in avi"),
    ("broadcast.ts", "libx264", {"b_frames": 3}, "seeks by frame number are not exact in mpegts"),
    ("raw.h264", "libx264", {"b_frames": 2}, "seeks by frame number are not exact in h264"),
    ("endless.mkv", "libx264", {"muxer": {"live": "1"}}, None),
]


@pytest.mark.parametrize(("name", "codec", "settings", "doubt"), KINDS, ids=[kind[0] for kind in KINDS])
def test_each_frame_is_the_one_asked_for_in_any_order(
    name: str, codec: str, settings: dict[str, Any], doubt: str | None, tmp_path: Path
) -> None:
    path = write_video(tmp_path / name, codec=codec, **settings)
    rng = np.random.default_rng(0)
    orders = [list(range(60)), rng.permutation(60).tolist(), [59], [30, 5, 30], [47, 13], [12], [11, 23, 24, 36]]
    for indices in orders:
        video = open_video(path)
        assert video.times == pytest.approx(np.arange(60) / 25, abs=1e-3)
        assert video.duration == pytest.approx(2.4, abs=2e-3)
        assert video.decoder == decode.PYAV
        assert numbers(video, indices) == indices


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts"])
def test_few_frames_of_a_long_file_are_found_without_decoding_more_than_they_are_made_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / name, frames=250, b_frames=2)
    decoded: list[int] = []
    whole = decode.Video._shown

    def counting(self: Video, *arguments: Any) -> Iterator[tuple[int, av.VideoFrame]]:
        for index, frame in whole(self, *arguments):
            decoded.append(index)
            yield index, frame

    monkeypatch.setattr(decode.Video, "_shown", counting)
    assert numbers(open_video(path), [240, 100, 101]) == [240, 100, 101]
    assert set(decoded) >= {240, 100, 101} and len(decoded) < 8  # of the twelve from each cut, not all lead to others
    assert numbers(open_video(path), list(range(0, 250, 3))) == list(range(0, 250, 3))


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [0, 4, 30, 31, 700]
    video = open_video(write_video(tmp_path / "uneven.mkv", 5, times=times))
    assert video.times.tolist() == [time / 100 for time in times]
    assert numbers(video, [4, 2, 0]) == [4, 2, 0]


def test_a_file_that_is_cut_off_says_how_far_it_goes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "whole.mp4", 100, muxer={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    video = open_video(path)
    good = len(video.times) - 1
    assert 20 < good < 80 and video.duration == pytest.approx(4.0)
    assert numbers(video, [0, 10]) == [0, 10]
    with pytest.raises(DecodeError, match=rf"the file is cut off: its frames end at \d.\d\d s of 4.00 s \({good} "):
        video.read([good])


def test_damage_in_the_middle_costs_the_frames_until_the_next_keyframe(tmp_path: Path) -> None:
    path = write_video(tmp_path / "damaged.mp4")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    assert packets[15].pos is not None
    data[packets[15].pos + 8 : packets[15].pos + packets[15].size] = bytes(packets[15].size - 8)
    path.write_bytes(data)
    video = open_video(path)
    assert numbers(video, [*range(15), *range(24, 60)]) == [*range(15), *range(24, 60)]
    for lost in (15, 20, 23):
        with pytest.raises(DecodeError, match=r"frames from 0.6 s to 0.96 s cannot be decoded \(51 of 60 decoded\)"):
            video.read([0, lost])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file: "),
        (b"", "the file is empty"),
        (b"not a video\n" * 50, "not a video file that FFmpeg can read"),
        (bytes(4096), "its header is zeroed"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(2000), "the mp4 index (moov) is missing or damaged"),
    ],
)
def test_a_file_without_video_says_why_in_one_line(
    content: bytes | None, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DecodeError) as caught:
        open_video(path)
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_index_that_no_frame_has_is_refused(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "short.mp4", 5))
    for indices in ([5], [-1], [0, 9]):
        with pytest.raises(IndexError, match="5 frames"):
            video.read(indices)
    assert video.read([]).shape == (0, 96, 128, 3)
