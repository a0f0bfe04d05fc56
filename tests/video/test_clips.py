"""Clips of one sample, and of many through worker processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evalkit.api import Augment, Views
from evalkit.runtime import processes, worker
from evalkit.runtime.processes import AHEAD
from evalkit.runtime.worker import Template, Worker
from evalkit.video.augment import augmented_views, crop_box
from evalkit.video.clips import Decoded, Failure, Request, read_clip
from evalkit.video.crop import cut_crops
from evalkit.video.decode import open_video
from evalkit.video.workers import DecodePool, read_clips
from tests.patience import patience, wait_until

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


def answer(text: str) -> Decoded:
    return Decoded(torch.zeros(1, 1, 3, 2, 2, dtype=torch.uint8), ((0.0,),), text, True)


# What workers call in place of read_clip; the path says what is to happen.


def named(video: Path, span: Span, views: Views, frames: int, size: int, *more: object) -> Decoded | Failure:
    match video.name.split("-")[0]:
        case "hang":
            time.sleep(1000)
        case "raise":
            raise KeyError("some\nbug")
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "die_once":
            if not video.exists():
                video.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case "touch":
            video.touch()
    return answer(f"{video.name} {os.getpid()}")


def sleeping(video: Path, span: Span, views: Views, frames: int, size: int, *more: object) -> Decoded | Failure:
    (video.parent / f"{os.getpid()}.worker").touch()
    time.sleep(1000)
    return answer("")


def requests(folder: Path, *names: str) -> list[Request]:
    return [Request(folder / name, None, Views(), 1, 2) for name in names]


def alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended and waits for its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"


def gone(pids: list[int], seconds: float = 10.0) -> bool:
    return wait_until(lambda: not any(alive(pid) for pid in pids), seconds)


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


def test_a_decoder_that_hangs_or_dies_costs_its_own_sample_only(tmp_path: Path) -> None:
    names = ["a", "hang", "b", "die", "die_once", "raise", "c"]
    start = time.monotonic()
    results = list(read_clips(requests(tmp_path, *names), workers=2, time_limit=5.0, read=named))
    assert time.monotonic() - start < patience(60)
    for name, result in zip(names, results, strict=True):
        if name in ("a", "b", "c", "die_once"):
            assert decoded(result).decoder.startswith(f"{name} ")
    assert results[1] == Failure("decoding took longer than 5 s")
    assert results[3] == Failure("the decoding process died twice (signal 11, SIGSEGV)")
    assert results[5] == Failure("KeyError: 'some\\nbug'")


def test_clips_are_decoded_ahead_but_not_without_end(tmp_path: Path) -> None:
    names = [f"touch-{number}" for number in range(40)]
    iterator = read_clips(requests(tmp_path, *names), workers=2, read=named)
    next(iterator)
    assert wait_until(lambda: len(list(tmp_path.iterdir())) > 2, 10)
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) <= 1 + 2 * AHEAD
    assert len(list(iterator)) == 39
    assert len(list(tmp_path.iterdir())) == 40


def test_leaving_early_ends_the_workers_at_once(tmp_path: Path) -> None:
    iterator = read_clips(requests(tmp_path, "a", "b", *["hang"] * 4), workers=2, read=named)
    pids = [int(decoded(next(iterator)).decoder.split()[1]) for _ in range(2)]
    iterator.close()  # type: ignore[attr-defined]
    assert gone(pids, 0.0)


def test_a_pool_keeps_its_processes_and_their_template_until_it_is_closed(tmp_path: Path) -> None:
    pool = DecodePool(2, read=named)
    seen: list[set[str]] = []
    for names in ("abcd", "ef", "ghij"):
        each = [decoded(result).decoder.split() for result in pool.read(requests(tmp_path, *names))]
        assert [name for name, _ in each] == list(names)
        seen.append({pid for _, pid in each})
    assert len(set.union(*seen)) <= 2
    open_one, other = pool.read(requests(tmp_path, *"abcdef")), pool.read(requests(tmp_path, *"ghi"))
    first = next(open_one)
    both = [[decoded(result).decoder[0] for result in reading] for reading in (other, [first, *open_one])]
    assert both == [list("ghi"), list("abcdef")]
    pids = [int(pid) for pid in set.union(*seen)]
    assert any(alive(pid) for pid in pids)
    left = pool.read(requests(tmp_path, "a", "hang", "hang"))
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert decoded(next(pool.read(requests(tmp_path, "k")))).decoder.startswith("k ")
    pool.close()
    assert gone(pids, 0.0)
    with pytest.raises(RuntimeError, match="the pool of decoding processes is closed"):
        list(pool.read(requests(tmp_path, "a")))


def test_an_idle_process_or_a_template_that_is_killed_is_replaced(tmp_path: Path) -> None:
    pool = DecodePool(1, 5.0, read=named)
    (first,) = pool.read(requests(tmp_path, "a"))
    os.kill(int(decoded(first).decoder.split()[1]), signal.SIGKILL)
    (second,) = pool.read(requests(tmp_path, "b"))
    template = pool._processes._templates[0].process
    template.kill()
    template.wait()
    names = ["c", "die_once", "hang", "d"]
    results = list(pool.read(requests(tmp_path, *names)))
    assert [result for result in results if isinstance(result, Failure)] == [results[2]]
    pool.close()
    assert gone([int(decoded(result).decoder.split()[1]) for result in (first, second, results[0], results[3])])


def test_where_nothing_can_be_forked_each_process_starts_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FORKS", False)
    names = ["a", "hang", "die", "die_once", "b", "c"]
    results = list(read_clips(requests(tmp_path, *names), workers=2, time_limit=5.0, read=named))
    assert [type(result) for result in results] == [Decoded, Failure, Failure, Decoded, Decoded, Decoded]
    assert results[2] == Failure("the decoding process died twice (signal 11, SIGSEGV)")
    assert gone([int(decoded(result).decoder.split()[1]) for result in results if isinstance(result, Decoded)], 0.0)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_a_caller_that_is_killed(ending: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys; from tests.video.test_clips import requests, sleeping\n"
        "from evalkit.video.workers import read_clips\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell's background jobs ignore
        "list(read_clips(requests(pathlib.Path(sys.argv[1]), *'abcd'), workers=2, read=sleeping))"
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    caller = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE
    )
    assert wait_until(lambda: len(list(tmp_path.glob("*.worker"))) == 2, 60)
    pids = [int(file.stem) for file in tmp_path.glob("*.worker")]
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    caller.send_signal(ending)
    _, noise = caller.communicate(timeout=patience(30))
    assert gone(pids)
    assert noise.count(b"Traceback") == (ending == signal.SIGINT)


def test_workers_that_do_not_start_are_an_error_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match=r"the decoding process does not start \(exit code 1\)"):
        list(read_clips(requests(tmp_path, "a"), workers=1, read=named))


@pytest.mark.parametrize("times", [1, 9])
def test_a_worker_that_never_gets_ready_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    asleep, python = tmp_path / "asleep", sys.executable
    asleep.write_text("#!/bin/sh\nexec sleep 1000\n")
    asleep.chmod(0o755)
    started: list[int] = []

    class Stuck(Template):
        def __init__(self, imports: str) -> None:
            monkeypatch.setattr(sys, "executable", str(asleep) if len(started) < times else python)
            super().__init__(imports)
            started.append(self.process.pid)

    class Hasty(Worker):
        def __init__(self, template: Template) -> None:
            super().__init__(template)
            assert self.deadline > time.monotonic() + 60
            if len(started) <= times:
                self.deadline = time.monotonic() + 0.1

    monkeypatch.setattr(processes, "Template", Stuck)
    monkeypatch.setattr(processes, "Worker", Hasty)
    if times == 1:
        (result,) = read_clips(requests(tmp_path, "a"), workers=1, read=named)
        assert decoded(result).decoder.startswith("a ")
    else:
        with pytest.raises(RuntimeError, match=r"decoding processes do not start \(not ready in 120 s\)"):
            list(read_clips(requests(tmp_path, "a"), workers=1, read=named))
    assert gone(started, 0.0) and len(started) == 2


def test_no_requests_need_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Worker", None)
    assert list(read_clips([], workers=2)) == []
    with pytest.raises(ValueError, match="workers=0"):
        next(read_clips([], workers=0))
