"""Clips of one sample, and of many in order."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evalkit.api import Augment, Views
from evalkit.video.augment import augmented_views, crop_box
from evalkit.video.clips import Decoded, Failure, Request, read_clip
from evalkit.video.crop import cut_crops
from evalkit.video.decode import open_video
from evalkit.video.workers import read_clips

Span = tuple[float, float] | None


def write_video(path: Path, frames: int = 30, width: int = 128, height: int = 96) -> Path:
    """A video at 10 fps whose frames are of one gray, 8 brighter from one to the next, over a fixed texture."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 16, (height, width, 1), dtype=np.uint8).repeat(3, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(texture + np.uint8(number * 8))))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "gray.mp4")


def decoded(result: Decoded | Failure) -> Decoded:
    assert isinstance(result, Decoded), result
    return result


def test_a_clip_holds_the_frames_and_times_that_were_asked_for(video: Path) -> None:
    result = decoded(read_clip(video, (1.0, 3.0), Views("uniform", clips=2), 4, 48))
    assert result.pixels.shape == (2, 4, 3, 48, 48) and result.pixels.dtype == torch.uint8
    assert result.times == ((1.0, 1.2, 1.5, 1.7), (2.0, 2.2, 2.5, 2.7))
    assert result.decoder == open_video(video).decoder and result.default_decoder
    gray = result.pixels.float().mean((2, 3, 4))
    expected = torch.tensor(result.times) * 10 * 8 + 7.5
    assert (gray - expected).abs().max() < 2


def reference(frame: Tensor, shape: tuple[int, int]) -> Tensor:
    """Antialiased bilinear in float32, rounded once."""
    scaled = interpolate(frame.permute(2, 0, 1)[None].float(), shape, mode="bilinear", antialias=True)
    return scaled[0].round().clamp(0, 255)


@pytest.mark.parametrize(("width", "height"), [(128, 96), (96, 128), (640, 360), (50, 50), (322, 64)])
@pytest.mark.parametrize("size", [32, 64, 112])
def test_crops_are_cut_from_a_frame_that_is_scaled_once(width: int, height: int, size: int) -> None:
    rng = np.random.default_rng(0)
    frame = torch.from_numpy(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    scale = size / min(width, height)
    shape = (int(height * scale + 1e-9), int(width * scale + 1e-9))
    whole = reference(frame, shape)
    long = max(shape) - size
    three = cut_crops(frame, size, "crop", 3)
    assert three.shape == (3, 3, size, size)
    for crop, corner in zip(three, (0, round(long / 2), long), strict=True):
        wanted = whole[:, :, corner : corner + size] if width > height else whole[:, corner : corner + size]
        assert (crop.float() - wanted).abs().max() <= 1
    assert torch.equal(cut_crops(frame, size, "crop", 1)[0], three[1])
    (squashed,) = cut_crops(frame, size, "squash", 1)
    assert (squashed.float() - reference(frame, (size, size))).abs().max() <= 1


@pytest.mark.parametrize(("width", "height", "shape"), [(320, 240, (256, 341)), (240, 320, (341, 256))])
def test_a_share_cuts_224_pixels_of_a_frame_whose_shorter_side_is_scaled_to_256(
    width: int, height: int, shape: tuple[int, int]
) -> None:
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    whole = interpolate(frame.permute(2, 0, 1)[None], shape, mode="bilinear", antialias=True)
    downs, rights = ((0, round((side - 224) / 2), side - 224) for side in shape)
    found = cut_crops(frame, 224, "crop", 3, 0.875)
    for crop, down, right in zip(found, downs, rights, strict=True):
        assert torch.equal(crop, whole[0, :, down : down + 224, right : right + 224])
    assert torch.equal(cut_crops(frame, 224, "crop", 1, 0.875)[0], found[1])
    assert torch.equal(cut_crops(frame, 224, "squash", 1, 0.875), cut_crops(frame, 224, "squash", 1))


def test_a_frame_of_the_right_size_is_left_as_it_is() -> None:
    frame = torch.arange(8 * 8 * 3, dtype=torch.uint8).view(8, 8, 3)
    assert torch.equal(cut_crops(frame, 8, "crop", 1)[0], frame.permute(2, 0, 1))


def test_views_are_all_crops_of_the_first_clip_then_of_the_next(video: Path) -> None:
    three = decoded(read_clip(video, None, Views("segments", clips=2, crops=3), 2, 48)).pixels
    one = decoded(read_clip(video, None, Views("segments", clips=2), 2, 48)).pixels
    assert three.shape == (6, 2, 3, 48, 48)
    assert torch.equal(three[[1, 4]], one)
    assert not torch.equal(three[0], three[1])


@pytest.mark.parametrize(
    ("content", "span", "reason"),
    [
        (None, None, "no such file"),
        (b"", None, "the file is empty"),
        (b"words\n" * 99, None, "not a video file that FFmpeg can read"),
        ("video", (2.9, 2.1), "not a stretch of time"),
        ("video", (5.0, 6.0), "starts after the end of the video (3.00 s)"),
    ],
)
def test_what_cannot_be_read_is_a_failure_with_one_line(
    content: bytes | str | None, span: Span, reason: str, tmp_path: Path, video: Path
) -> None:
    path = tmp_path / "some.mp4"
    if content is not None:
        path.write_bytes(video.read_bytes() if isinstance(content, str) else content)
    result = read_clip(path, span, Views(), 4, 32)
    assert isinstance(result, Failure)
    assert reason in result.reason and "\n" not in result.reason


# --- augmented views -------------------------------------------------------------------------------------------------


def test_an_augmented_view_is_one_box_of_all_its_frames_scaled_once_and_maybe_mirrored(video: Path) -> None:
    views, source = Views("dense", stride=2), open_video(video)
    plain = source.read(range(len(source.times)))
    flips, seen = [], set()
    for look in augmented_views(Augment(views=8), seed=3):
        found = decoded(read_clip(video, None, views, 4, 48, (look,)))
        assert found.pixels.shape == (1, 4, 3, 48, 48)
        shown = [round(time * 10) for time in found.times[0]]
        top, left, tall, wide = crop_box(96, 128, look.augment, look.stream("crop", video, None))
        flips.append(look.stream("flip", video, None).random() < 0.5)
        for index, frame in zip(shown, found.pixels[0], strict=True):
            part = torch.from_numpy(plain[index][top : top + tall, left : left + wide])
            expected = reference(part, (48, 48))
            expected = expected.flip(-1) if flips[-1] else expected
            assert (frame.float() - expected).abs().max() <= 1
        assert shown == list(range(shown[0], shown[0] + 8, 2))
        seen.add((shown[0], top, left, tall, wide))
    assert len(seen) == 8 and len(set(flips)) == 2


def test_a_view_is_the_same_alone_with_others_and_in_any_folder(tmp_path: Path, video: Path) -> None:
    views, several = Views("segments", clips=3, crops=3, resize="crop"), augmented_views(Augment(views=3), seed=0)
    together = decoded(read_clip(video, (0.5, 2.5), views, 4, 32, several))
    assert together.pixels.shape == (3, 4, 3, 32, 32) and len(together.times) == 3
    copy = Path(shutil.copy(video, tmp_path))
    for number in (2, 0, 1):
        alone = decoded(read_clip(copy, (0.5, 2.5), Views("segments"), 4, 32, several[number : number + 1]))
        assert torch.equal(alone.pixels[0], together.pixels[number])
        assert alone.times[0] == together.times[number]
    other = decoded(read_clip(video, (0.5, 2.5), views, 4, 32, augmented_views(Augment(views=3), seed=1)))
    assert not any(torch.equal(one, two) for one in other.pixels for two in together.pixels)


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_where_nothing_is_drawn_a_view_is_the_first_one_of_the_test_with_one_crop(video: Path, resize: str) -> None:
    still = augmented_views(Augment(area=(1, 1), flip=False, time=False), 0)
    views = Views("dense", stride=2, resize=resize, share=0.8)  # type: ignore[arg-type]
    plain = decoded(read_clip(video, None, views, 4, 48))
    assert torch.equal(decoded(read_clip(video, None, views, 4, 48, still)).pixels, plain.pixels)
    mirrored = augmented_views(Augment(views=9, area=(1, 1), time=False), 0)
    pixels = decoded(read_clip(video, None, views, 4, 48, mirrored)).pixels
    kinds = {(torch.equal(one, plain.pixels[0]), torch.equal(one.flip(-1), plain.pixels[0])) for one in pixels}
    assert kinds == {(True, False), (False, True)}


def test_order_and_pixels_do_not_depend_on_the_number_of_workers(tmp_path: Path, video: Path) -> None:
    wide = write_video(tmp_path / "wide.mp4", 20, 160, 64)
    asked = [
        Request(path, span, views, 4, 32, augmented)
        for augmented in ((), augmented_views(Augment(views=2), 0))
        for views in (Views("segments"), Views("dense", stride=2, clips=2, crops=3, resize="crop"))
        for span in (None, (0.5, 1.5), (7.0, 8.0))
        for path in (video, wide, tmp_path / "missing.mp4")
    ]
    expected = [read_clip(*request) for request in asked]
    for count in (1, 2, 3):
        results = list(read_clips(asked, workers=count))
        for result, wanted in zip(results, expected, strict=True):
            if isinstance(wanted, Failure):
                assert result == wanted
            else:
                assert torch.equal(decoded(result).pixels, wanted.pixels)
                assert decoded(result).times == wanted.times
                assert decoded(result).decoder == wanted.decoder
