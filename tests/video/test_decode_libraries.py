"""Decoding libraries show what PyAV shows, or are replaced."""

from __future__ import annotations

import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from evalkit.errors import UserError, install
from evalkit.video import decode
from evalkit.video.decode import open_video
from tests.given import real
from tests.video.test_decode import BROKEN, FILES, KINDS, VIDEOS, numbers, write_video


def is_here(library: decode.Decoder) -> bool:
    try:
        return bool(decode.default_decoder(library))
    except UserError:
        return False


# torchcodec crashes on AV1 where decord came first
LIBRARIES: tuple[decode.Decoder, ...] = ("torchcodec", "decord")
HERE = [library for library in LIBRARIES if is_here(library)]


def tolerance(file: dict[str, Any]) -> float:
    """How far a library's colors may be from PyAV's, mean over a frame, in 0..255.

    8-bit frames are equal. Where chroma is interpolated they differ in how: frames of more than 8 bit, odd sizes,
    interlaced chroma.
    """
    if "10" in file["pix"] or "12" in file["pix"]:
        return 3.2
    if file["w"] % 2 or file["h"] % 2:
        return 4.0 if file["codec"] == "mpeg2video" else 1.0
    return 0.2 if "interlaced" in file["path"] else 0.0


@real
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_that_is_asked_for_shows_what_pyav_shows_in_real_videos(library: decode.Decoder) -> None:
    if library not in HERE:
        pytest.skip(f"{library} is not here, or has no FFmpeg: {install(library)} and apt install ffmpeg")
    read_by_it = 0
    for name in sorted(FILES.keys() - BROKEN.keys()):
        if FILES[name]["decoded"] > 150:
            continue
        video, usual = open_video(VIDEOS / name, library), open_video(VIDEOS / name)
        indices = [len(video.times) * part // 5 for part in range(5)]
        pixels, expected = video.read(indices), usual.read(indices)
        limit = tolerance(FILES[name]) if video.default_decoder else 0.0
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(np.int16) - expected).mean((1, 2, 3)).max() <= limit, name
        read_by_it += video.default_decoder
    assert read_by_it > 60


@pytest.mark.parametrize("library", HERE)
def test_a_library_reads_only_what_it_is_exact_on(library: decode.Decoder, tmp_path: Path) -> None:
    name_of_it = decode.default_decoder(library)
    for name, codec, settings, doubt in KINDS:
        video = open_video(write_video(tmp_path / name, codec=codec, **settings), library)
        indices = [30, 5, 30, *range(40, 50)]
        assert numbers(video, indices) == indices
        if doubt:
            assert video.decoder == f"{decode.PYAV} ({doubt})" and not video.default_decoder
        elif name != "endless.mkv":  # decord alone does not open it
            assert video.decoder == name_of_it and video.default_decoder


@pytest.mark.parametrize("rotation", [90, 180, -90])
@pytest.mark.parametrize("height", [64, 96])  # decord hands on the padding of rows that are 96 pixels long
@pytest.mark.parametrize("library", HERE)
def test_a_rotation_tag_turns_the_frames_alike_in_a_library(
    library: decode.Decoder, rotation: int, height: int, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "turned.mp4", 5, rotation=rotation, height=height)
    video, other = open_video(path), open_video(path, library)
    pixels = video.read([0, 3])
    assert pixels.shape[1:3] == (video.height, video.width) == ((height, 128) if rotation == 180 else (128, height))
    assert np.array_equal(other.read([0, 3]), pixels)
    if library == "decord":
        assert other.default_decoder or height == 96  # some processors' builds of decord pad these rows, some do not
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.array_equal(np.rot90(stored, rotation // 90), pixels[0])


def test_a_library_that_stumbles_or_sees_other_times_is_replaced_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "plain.mp4")
    right = open_video(path)

    def stumbling(indices: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        raise RuntimeError("more than 0 duplicate frames")

    def late(indices: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        return right.read([index + 1 for index in indices]), right.times[indices] + 0.04

    def padded(indices: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        return np.pad(right.read(indices), ((0, 0), (0, 0), (0, 4), (0, 0))), right.times[indices]

    def exact(indices: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        return right.read(indices), right.times[indices]

    def opened(count: int, library: decode.Library, *_: object) -> tuple[int, decode.Library]:
        return count, library

    monkeypatch.setattr(decode, "default_decoder", lambda decoder: "decord2 9.9")
    for count, library, why in [
        (60, exact, None),
        (60, stumbling, "decord2 9.9 stumbled"),
        (60, late, "decord2 9.9 sees other frames or times"),
        (60, padded, "decord2 9.9 sees other frames or times"),
        (59, exact, "decord2 9.9 sees other frames or times"),
    ]:
        monkeypatch.setitem(decode.LIBRARIES, "decord", partial(opened, count, library))
        video = open_video(path, "decord")
        assert numbers(video, [7, 31]) == [7, 31]
        assert video.decoder == (f"{decode.PYAV} ({why})" if why else "decord2 9.9")
        assert video.default_decoder == (why is None)


def test_a_library_that_is_not_there_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    decode.default_decoder.cache_clear()
    with pytest.raises(UserError, match=r"^decoder=torchcodec: .*: pip install 'video-evalkit\[torchcodec\]'$"):
        open_video(write_video(tmp_path / "plain.mp4", 2), "torchcodec")


@pytest.mark.parametrize("decoder", ["pyav", *HERE])
def test_a_decoder_is_named_as_it_is_installed(decoder: decode.Decoder) -> None:
    name, version = decode.default_decoder(decoder).split()
    assert metadata.version({"PyAV": "av"}.get(name, name)) == version.partition("+")[0]
