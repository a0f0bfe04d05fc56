"""Sampling against the words of `evalkit.api.Views`, spelled out frame by frame."""

from __future__ import annotations

import random
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from evalkit.api import Sampling, Views
from evalkit.video.sampling import frame_indices

Times = NDArray[np.float64]


def constant(frames: int, fps: float) -> tuple[Times, float]:
    return np.arange(frames) / fps, frames / fps


def shown(times: Times, when: float) -> int:
    """The last frame whose start is not after `when`, by looking at each; times are far from any boundary."""
    return max(index for index, start in enumerate(times) if start <= when)


def as_lists(clips: list[NDArray[np.int64]]) -> list[list[int]]:
    return [clip.tolist() for clip in clips]


@pytest.mark.parametrize(
    ("views", "frames", "expected"),
    [
        (Views("uniform"), 4, [[0, 25, 50, 75]]),
        (Views("uniform", clips=2), 2, [[0, 25], [50, 75]]),
        (Views("segments"), 4, [[12, 37, 62, 87]]),
        (Views("segments", clips=2), 2, [[12, 37], [62, 87]]),
        (Views("linspace"), 4, [[0, 33, 66, 99]]),
        (Views("linspace", clips=2), 2, [[0, 33], [66, 99]]),
        (Views("linspace"), 1, [[0]]),
        (Views("leading"), 4, [[0, 25, 50, 75]]),
        (Views("leading"), 64, [list(range(64))]),
        (Views("middle"), 4, [[12, 37, 62, 87]]),
        (Views("middle"), 3, [[16, 49, 82]]),
        (Views("interleaved"), 4, [[0, 25, 50, 75]]),
        (Views("interleaved", clips=2), 3, [[0, 33, 66], [16, 50, 83]]),
        (Views("fps", fps=1), 4, [[0, 10, 20, 30]]),
        (Views("fps", fps=2, clips=3), 4, [[0, 5, 10, 15], [40, 45, 50, 55], [80, 85, 90, 95]]),
        (Views("dense", stride=2), 4, [[0, 2, 4, 6]]),
        (Views("dense", stride=2, clips=3), 4, [[0, 2, 4, 6], [46, 48, 50, 52], [92, 94, 96, 98]]),
    ],
)
def test_ten_seconds_at_ten_frames_per_second_give_the_frames_counted_by_hand(
    views: Views, frames: int, expected: list[list[int]]
) -> None:
    times, duration = constant(100, 10)
    assert as_lists(frame_indices(times, duration, views, frames)) == expected


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (Views("uniform"), [20, 25, 30, 35]),
        (Views("segments"), [22, 27, 32, 37]),
        (Views("linspace"), [20, 26, 32, 39]),
        (Views("middle"), [22, 27, 32, 37]),
        (Views("fps", fps=2), [20, 25, 30, 35]),
        (Views("fps", fps=1), [20, 30, 39, 39]),
        (Views("dense", stride=4), [20, 24, 28, 32]),
        (Views("dense", stride=8), [20, 28, 36, 39]),
    ],
)
def test_a_span_holds_its_own_frames_only_and_repeats_its_last(views: Views, expected: list[int]) -> None:
    times, duration = constant(100, 10)
    assert as_lists(frame_indices(times, duration, views, 4, (2.0, 4.0))) == [expected]


@pytest.mark.parametrize("fps", [0.5, 10, 23.976, 25, 179 / 6, 30000 / 1001, 60, 240])
@pytest.mark.parametrize("frames", [1, 8, 16, 180, 256])
def test_uniform_frames_of_a_constant_rate_are_those_of_equal_steps_in_frame_numbers(fps: float, frames: int) -> None:
    for count in (1, 7, 90, 1189, 5395):
        times, duration = constant(count, fps)
        (clip,) = frame_indices(times, duration, Views("uniform"), frames)
        assert clip.tolist() == [step * count // frames for step in range(frames)]


@pytest.mark.parametrize("fps", [24, 30000 / 1001, 30, 60])
@pytest.mark.parametrize("frames", [5, 16, 43, 150])
def test_a_moment_on_the_start_of_a_frame_means_it_though_the_container_rounds_to_milliseconds(
    fps: float, frames: int
) -> None:
    for count in (90, 300, 1500):
        times, duration = constant(count, fps)
        (clip,) = frame_indices(np.round(times, 3), round(duration, 3), Views("uniform"), frames)
        for step, index in enumerate(clip):
            if step * count % frames == 0:
                assert index == step * count // frames
            assert abs(index - step * count / frames) <= 1.1


@pytest.mark.parametrize("count", [1, 3, 8, 300, 1189])
@pytest.mark.parametrize("frames", [1, 3, 8, 16])
def test_frames_between_both_ends_and_middles_of_segments_are_those_of_the_published_code(
    count: int, frames: int
) -> None:
    """By numpy as Perception Encoder and InternVideo2 do: a truncated linspace, and halves of truncated bounds."""
    times, duration = constant(count, 30)
    (clip,) = frame_indices(times, duration, Views("linspace"), frames)
    assert clip.tolist() == [int(k * (count - 1) / (frames - 1)) if frames > 1 else 0 for k in range(frames)]
    (clip,) = frame_indices(times, duration, Views("middle"), frames)
    bounds = np.linspace(0, count, min(frames, count) + 1).astype(int)
    middles = [(bounds[k] + bounds[k + 1] - 1) // 2 for k in range(len(bounds) - 1)]
    assert clip.tolist() == middles + [middles[-1]] * (frames - len(middles))


@pytest.mark.parametrize("count", [5, 37, 300])
def test_interleaved_clips_are_those_of_the_published_code(count: int) -> None:
    """As VideoMAE's and UMT's data sets on SSv2 do: all starts, sorted, and every C-th of them."""
    times, duration = constant(count, 30)
    found = as_lists(frame_indices(times, duration, Views("interleaved", clips=4), 8))
    tick = count / 8
    every = sorted(int(c * tick / 4 + tick * k) for c in range(4) for k in range(8))
    assert found == [every[c::4] for c in range(4)]
    drawn = as_lists(frame_indices(times, duration, Views("interleaved", clips=2), 4, drawn=random.Random(0)))
    bounds = [k * count // 4 for k in range(5)]
    assert all(bounds[k] <= frame <= bounds[k + 1] for clip in drawn for k, frame in enumerate(clip))


def test_four_ways_to_take_eight_of_three_hundred_frames() -> None:
    times, duration = constant(300, 30)
    of = {
        way: as_lists(frame_indices(times, duration, Views(way), 8))[0]
        for way in ("uniform", "segments", "linspace", "middle")
    }
    assert of["middle"] == [18, 55, 93, 130, 168, 205, 243, 280]  # InternVideo2
    assert of["linspace"] == [0, 42, 85, 128, 170, 213, 256, 299]
    assert of["uniform"][:2] == [0, 37] and of["uniform"][-1] == 262
    assert of["segments"][:2] == [18, 56] and of["segments"][-1] == 281


def test_uneven_frames_are_those_that_a_player_shows() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        times = np.concatenate([[0.0], np.cumsum(rng.uniform(0.02, 0.5, 60))])
        duration = float(times[-1] + 0.2)
        start = float(rng.uniform(0, duration / 2))
        end = float(rng.uniform(start + 1, duration))
        (clip,) = frame_indices(times, duration, Views("segments"), 9, (start, end))
        # a time within the rounding of a frame's start may mean either side
        for index, step in zip(clip, range(9), strict=True):
            when = start + (end - start) * (step + 0.5) / 9
            assert index in {shown(times, when), shown(times, when + 1e-6)}


def test_a_gap_is_filled_by_the_frame_before_it() -> None:
    times = np.array([0.0, 1.0, 2.0, 9.0])
    assert as_lists(frame_indices(times, 10.0, Views("uniform"), 10)) == [[0, 1, 2, 2, 2, 2, 2, 2, 2, 3]]


def test_leading_frames_are_those_that_mveb_takes() -> None:
    """As in its FramesCollator.resample_video."""
    for count, wanted in ((31, 16), (100, 64), (127, 64), (10, 16), (16, 16), (300, 8)):
        times, duration = constant(count, count / 10)
        (clip,) = frame_indices(times, duration, Views("leading"), wanted)
        step = max(1, count // wanted)
        once = list(range(count))
        theirs = (once * (wanted // count + 1))[:wanted] if count < wanted else once[::step][:wanted]
        assert clip.tolist() == theirs


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_every_clip_has_its_frames_in_order_within_the_video(sampling: Sampling) -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        times, duration = constant(int(rng.integers(1, 200)), float(rng.uniform(1, 60)))
        views = Views(
            sampling,
            fps=float(rng.uniform(0.1, 30)),
            stride=int(rng.integers(1, 9)),
            clips=int(rng.integers(1, 6)),
        )
        frames = int(rng.integers(1, 33))
        clips = frame_indices(times, duration, views, frames)
        assert len(clips) == views.clips
        for clip in clips:
            assert clip.shape == (frames,)
            assert clip.min() >= 0 and clip.max() < len(times)
            again = sampling == "leading" and len(times) < frames * views.clips  # a short video is shown again
            assert again or (np.diff(clip) >= 0).all()


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (5.0, [30, 35, 40, 45, 50, 55, 60, 65]),
        (5.09, [30, 35, 40, 45, 50, 55, 60, 65]),
        (1.0, [0, 0, 0, 5, 10, 15, 20, 25]),
        (0.0, [0, 0, 0, 0, 0, 5, 10, 15]),
        (9.7, [77, 82, 87, 92, 97, 99, 99, 99]),
        (10.5, [79, 84, 89, 94, 99, 99, 99, 99]),  # half a second after the end
    ],
)
def test_a_dense_clip_lies_around_the_moment_that_its_span_is(moment: float, expected: list[int]) -> None:
    """As many frames before the one shown then as VideoGLUE and SlowFast have: eight of sixteen."""
    times, duration = constant(100, 10)
    views, span = Views("dense", stride=5), (moment, moment)
    assert as_lists(frame_indices(times, duration, views, 8, span)) == [expected]
    assert as_lists(frame_indices(times, duration, views, 8, span, random.Random(0))) == [expected]


def test_a_clip_around_a_moment_counts_the_frames_of_the_source_whenever_they_are_shown() -> None:
    times = np.array([0.0, 0.1, 0.2, 1.0, 1.05, 2.0, 3.0])
    assert as_lists(frame_indices(times, 4.0, Views("dense"), 4, (1.1, 1.1))) == [[2, 3, 4, 5]]


def test_a_moment_outside_of_the_video_says_so() -> None:
    times, duration = constant(100, 10)
    for moment in (902.0, 11.5, -1.0):
        with pytest.raises(ValueError, match=rf"^key frame at {moment:g} s is not in the video \(10.00 s\)$"):
            frame_indices(times, duration, Views("dense"), 4, (moment, moment))


def test_a_single_frame_fills_every_clip() -> None:
    for sampling in get_args(Sampling):
        views = Views(sampling, clips=2)
        assert as_lists(frame_indices(np.zeros(1), 0.04, views, 3)) == [[0, 0, 0]] * 2


def test_an_end_a_little_after_the_video_is_taken_for_its_end() -> None:
    times, duration = constant(100, 10)
    clips = [frame_indices(times, duration, Views("uniform"), 4, (5.0, end)) for end in (10.0, 10.4, 11.0)]
    assert as_lists(clips[0]) == as_lists(clips[1]) == as_lists(clips[2])


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        ((5.0, 12.0), "ends after the end of the video (10.00 s)"),
        ((10.0, 10.5), "starts after the end of the video (10.00 s)"),
        ((4.0, 4.0), "not a stretch of time"),
        ((4.0, 3.0), "not a stretch of time"),
        ((-1.0, 3.0), "not a stretch of time"),
        ((float("nan"), 3.0), "not a stretch of time"),
    ],
)
def test_a_span_that_the_video_does_not_hold_says_so(span: tuple[float, float], reason: str) -> None:
    times, duration = constant(100, 10)
    with pytest.raises(ValueError) as caught:
        frame_indices(times, duration, Views(), 4, span)
    assert reason in str(caught.value) and f"{span[1]:g}" in str(caught.value)


def test_windows_may_lie_after_the_video_where_its_whole_span_may_end() -> None:
    times, duration = constant(1000, 10)  # 100 s, of which 5 percent more are allowed
    views = Views(window=1.0)
    assert as_lists(frame_indices(times, duration, views, 4, (99.6, 100.6))) == [[996, 997, 998, 999]]
    for span in ((100.0, 101.0), (104.2, 105.2)):
        for sampling in get_args(Sampling):
            views = Views(sampling, window=1.0, clips=2)
            assert as_lists(frame_indices(times, duration, views, 4, span)) == [[999] * 4] * 2
    long = Views(window=16.0)  # may reach as far as the span whose last window it is
    assert as_lists(frame_indices(times, duration, long, 4, (88.0, 104.0))) == [[880, 910, 940, 970]]
    with pytest.raises(ValueError, match=r"span 104\.3 \.\. 105\.3 s starts after the end of the video \(100\.00 s\)"):
        frame_indices(times, duration, Views(window=1.0), 4, (104.3, 105.3))
    with pytest.raises(ValueError, match="ends after the end of the video"):
        frame_indices(times, duration, long, 4, (92.0, 108.0))


# --- drawn -----------------------------------------------------------------------------------------------------------


class Always(random.Random):
    """One number again and again."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def random(self) -> float:
        return self.number


@pytest.mark.parametrize(
    ("views", "number", "expected"),
    [
        (Views("dense", stride=4), 0.0, [0, 4, 8, 12]),
        (Views("dense", stride=4), 1 - 1e-12, [84, 88, 92, 96]),  # the last start from which no frame is missing
        (Views("dense", stride=4), 0.5, [42, 46, 50, 54]),
        (Views("fps", fps=1), 0.0, [0, 10, 20, 30]),
        (Views("fps", fps=1), 0.5, [30, 40, 50, 60]),
        (Views("segments"), 0.01, [0, 25, 50, 75]),
        (Views("segments"), 0.99, [24, 49, 74, 99]),
        (Views("uniform"), 0.99, [24, 49, 74, 99]),
        (Views("dense", stride=40), 0.7, [0, 40, 80, 99]),  # too short for a start of its own
    ],
)
def test_a_drawn_clip_starts_anywhere_or_shows_any_moment_of_each_segment(
    views: Views, number: float, expected: list[int]
) -> None:
    times, duration = constant(100, 10)
    assert as_lists(frame_indices(times, duration, views, 4, None, Always(number))) == [expected]


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_drawn_frames_are_spread_evenly_over_what_they_may_show(sampling: Sampling) -> None:
    times, duration = constant(400, 10)
    views, span, stream = Views(sampling, stride=2, fps=5), (10.0, 30.0), random.Random(0)
    drawn = np.array([frame_indices(times, duration, views, 8, span, stream)[0] for _ in range(4000)])
    if sampling in ("dense", "fps"):  # 16 frames long, whole, anywhere among 200
        assert (np.diff(drawn) == 2).all()
        first, room = drawn[:, :1], 185
        starts = np.array([100])
    else:
        first, room = drawn, 25
        starts = 100 + 25 * np.arange(8)
    counts = np.bincount((first - starts).ravel(), minlength=room)
    expected = first.size / room
    assert len(counts) == room and (np.abs(counts - expected) < 6 * np.sqrt(expected)).all()


def test_each_segment_and_each_clip_has_a_draw_of_its_own() -> None:
    times, duration = constant(4000, 10)
    (clip,) = frame_indices(times, duration, Views("segments"), 8, None, random.Random(0))
    assert len(set((clip % 500).tolist())) == 8
    clips = as_lists(frame_indices(times, duration, Views("dense", clips=3), 8, None, random.Random(0)))
    assert len({clip[0] for clip in clips}) == 3
