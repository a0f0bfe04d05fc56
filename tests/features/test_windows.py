"""A video as a sequence of windows: which there are, each read, encoded and stored by itself."""

from pathlib import Path

import pytest
import torch

from evalkit.api import Clip, Example, FeatureSpec, Views
from evalkit.errors import UserError
from evalkit.features import extract
from evalkit.features.extract import Cost, FeatureExtractor
from evalkit.features.feature_cache import FeatureCache
from evalkit.features.key import FeatureKey, Identity
from evalkit.features.sources import Source, parts, resolve_views, sources
from evalkit.features.store import Store
from evalkit.video.clips import Decoded, read_clip
from evalkit.video.sampling import windows
from evalkit.video.workers import DecodePool


@pytest.mark.parametrize(
    ("span", "length", "stride", "starts"),
    [
        ((0.0, 10.0), 4.0, 2.0, [0, 2, 4, 6]),
        ((0.0, 9.9), 4.0, 2.0, [0, 2, 4]),
        ((3.0, 10.0), 4.0, 4.0, [3]),
        ((0.0, 3.2), 16 / 15, 16 / 15, [0, 1.066667, 2.133333]),
        ((0.0, 1.0), 16 / 30, 4 / 30, [0, 0.133333, 0.266667, 0.4]),
    ],
)
def test_windows_lie_wholly_within_their_span(
    span: tuple[float, float], length: float, stride: float, starts: list[float]
) -> None:
    assert [start for start, _ in windows(span, length, stride)] == starts
    assert all(end - start == pytest.approx(length, abs=1e-6) for start, end in windows(span, length, stride))


def test_a_span_that_is_shorter_than_a_window_is_one() -> None:
    assert windows((2.0, 2.5), 1.0, 1.0) == [(2.0, 2.5)]


def test_each_window_is_a_source_and_a_span_must_be_stated() -> None:
    views = Views(window=2.0, window_stride=1.0)
    example = Example("a", Path("a.mp4"), span=(0.0, 4.0))
    assert parts(example, views) == tuple(Source(Path("a.mp4"), (k, k + 2.0)) for k in range(3))
    assert parts(example, Views()) == (Source(Path("a.mp4"), (0.0, 4.0)),)
    other = Example("b", Path("a.mp4"), span=(0.0, 3.0))  # whose windows are those of the other
    assert sources([example, other], views) == list(parts(example, views))
    with pytest.raises(UserError, match="'c' has no span, which clip.window=2 divides into windows"):
        parts(Example("c", Path("a.mp4")), views)


def test_a_duration_that_is_not_in_seconds_is_told_before_its_windows_fill_the_memory() -> None:
    views = Views(window=16 / 30, window_stride=4 / 30)
    day = Example("a", Path("a.mp4"), span=(0.0, 24 * 3600.0))
    assert len(parts(day, views)) == 24 * 3600 * 30 // 4 - 3
    for example, windows_, of in (
        (Example("b", Path("b.mp4"), span=(0.0, 1e9)), "7,500,000,000", views),
        (Example("c", Path("c.mp4"), span=(0.0, 5.0)), "5,000,000", Views(window=1.0, window_stride=1e-6)),
    ):
        with pytest.raises(
            UserError, match=rf"{example.id}.* lasts .* s, which are {windows_} windows.*wanted 1,000,000"
        ):
            parts(example, of)


def test_a_stride_without_a_window_is_refused() -> None:
    with pytest.raises(UserError, match=r"clip\.window_stride=2 has no effect without clip\.window"):
        resolve_views(Views(), Clip(), {"window_stride": 2.0})


def test_a_rate_or_a_step_that_the_sampling_does_not_read_is_refused() -> None:
    with pytest.raises(UserError, match=r"^clip\.fps=8 has no effect .*=uniform: add clip\.sampling=fps$"):
        resolve_views(Views(), Clip(), {"fps": 8.0}, ["clip.fps=8"])
    with pytest.raises(UserError, match=r"^clip\.stride=2 has no effect .*=fps: add clip\.sampling=dense$"):
        resolve_views(Views(), Clip(), {"stride": 2, "sampling": "fps"}, ["clip.sampling=fps", "clip.stride=2"])
    assert resolve_views(Views("dense", stride=4), Clip(), {"stride": 2}, ["clip.stride=2"]).stride == 2
    words = ["clip.fps=8", "clip.sampling=fps"]
    assert resolve_views(Views(), Clip(), {"fps": 8.0, "sampling": "fps"}, words).fps == 8


def test_a_window_of_the_user_s_has_no_stride_of_the_task_s() -> None:
    task = Views(window=4.0, window_stride=2.0)
    for overrides, wanted in (
        ({"window": 8.0}, (8.0, None)),
        ({"window_stride": 1.0}, (4.0, 1.0)),
        ({"window": 8.0, "window_stride": 3.0}, (8.0, 3.0)),
        ({}, (4.0, 2.0)),
    ):
        views = resolve_views(task, Clip(), overrides)
        assert (views.window, views.window_stride) == wanted


def reader(video_views: Views, workers: int = 1) -> FeatureExtractor:
    views = resolve_views(video_views, Clip(frames=4, size=32), {})
    return FeatureExtractor(views, DecodePool(workers), 4, Cost())


def test_windows_read_together_are_those_read_one_by_one(films: Path) -> None:
    video = films / "00.mp4"
    views = Views(window=0.5, window_stride=0.08, clips=2, crops=3, resize="crop")
    example = Example("a", video, span=(0.0, 2.0))
    wanted = list(parts(example, views))
    assert len(wanted) > extract.WINDOWS_TOGETHER
    extractor = reader(views)
    try:
        together = list(extractor.read(wanted))
    finally:
        extractor.close()
    for source, clip in zip(wanted, together, strict=True):
        alone = read_clip(source.video, source.span, extractor.views, 4, 32)
        assert isinstance(alone, Decoded) and isinstance(clip, Decoded)
        assert torch.equal(clip.pixels, alone.pixels) and clip.times == alone.times and len(clip.pixels) == 6


def test_a_window_that_cannot_be_read_takes_no_other_with_it(films: Path) -> None:
    video = films / "00.mp4"
    spans = [(0.0, 0.5), (0.5, 1.0), (900.0, 900.5), (1.0, 1.5)]
    extractor = reader(Views(window=0.5))
    try:
        clips = list(extractor.read([Source(video, span) for span in spans]))
    finally:
        extractor.close()
    assert [isinstance(clip, Decoded) for clip in clips] == [True, True, False, True]
    assert "starts after the end of the video" in str(clips[2])


def test_a_window_has_one_key_whatever_lies_around_it(tmp_path: Path, films: Path) -> None:
    video = films / "00.mp4"

    key = FeatureKey(Identity(0, ""), None, Views(), Clip(), "", "", "", FeatureSpec(), "32")
    cache = FeatureCache(Store(tmp_path), key)

    def keys(views: Views, span: tuple[float, float]) -> set[bytes]:
        return {*cache.keys(parts(Example("a", video, span=span), views), [""])}

    dense, sparse = keys(Views(window=2.0, window_stride=1.0), (0.0, 8.0)), keys(Views(window=2.0), (0.0, 6.0))
    assert sparse < dense and len(dense) == 7
    wanted = [Source(video, (0.0, 2.0)), Source(tmp_path / "gone.mp4", None), Source(video, (2.0, 4.0))]
    assert cache.keys(wanted, [""]) == [cache.keys([source], [""])[0] for source in wanted]
    assert cache.keys(wanted, [""])[1] == b""
