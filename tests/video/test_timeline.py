"""The timeline as a function of a stream's packets; whole files are read in test_decode."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from evalkit.video.timeline import DecodeError, Packets, clean_cuts, end_tick, from_packets, promised_end, seek_doubt

# Two closed groups of three frames at 10 per second, whose third is stored before the second (B frames).
PACKETS = Packets(
    stream=1,
    size=(48, 64),
    tick=Fraction(1, 100),
    frames=[(0, 10), (20, 10), (10, 10), (30, 10), (50, 12), (40, 10)],
    keyframes={0: -10, 30: 20},
    finish_s=0.62,
    stated_s=0.62,
    rate=Fraction(10),
)


def with_frames(*frames: tuple[int | None, int], **changes: Any) -> Packets:
    return replace(PACKETS, frames=list(frames), **changes)


def test_frames_are_in_the_order_in_which_they_are_shown() -> None:
    line = from_packets(PACKETS)
    assert line.pts == [0, 10, 20, 30, 40, 50] and line.end == 62
    assert (line.stream, line.size, line.tick) == (1, (48, 64), Fraction(1, 100))
    assert line.cuts == {0: -10, 30: 20} and not line.counted and line.promised is None and line.doubt == ""


def test_frames_before_the_first_keyframe_are_not_shown() -> None:
    line = from_packets(with_frames((-20, 10), (-10, 10), (0, 10), (10, 10)))
    assert line.pts == [0, 10]
    assert from_packets(with_frames((-20, 10), (0, 10), keyframes={})).pts == [-20, 0]


@pytest.mark.parametrize("frames", [(), ((-10, 10),)])
def test_a_stream_without_a_frame_that_is_shown_is_an_error(frames: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(DecodeError, match="^its video stream holds no frame$"):
        from_packets(with_frames(*frames))


@pytest.mark.parametrize(
    ("frames", "rate", "end"),
    [
        (((0, 10), (10, 7)), Fraction(10), 17),  # stated
        (((0, 0), (10, 0), (30, 0)), Fraction(10), 45),  # the mean gap
        (((0, 0),), Fraction(10), 10),  # the rate
        (((0, 0),), None, 1),
    ],
)
def test_the_last_frame_ends_by_its_duration_else_by_the_gaps_else_by_the_rate(
    frames: tuple[tuple[int, int], ...], rate: Fraction | None, end: int
) -> None:
    assert end_tick(with_frames(*frames, rate=rate)) == end


@pytest.mark.parametrize(
    "packets",
    [with_frames((0, 10), (None, 10)), with_frames((0, 10), (0, 10)), replace(PACKETS, format_name="avi")],
    ids=["missing", "repeated", "avi"],
)
def test_frames_whose_packets_do_not_tell_their_times_are_counted(packets: Packets) -> None:
    line = from_packets(packets)
    assert line.counted and line.pts == list(range(len(packets.frames))) and line.end == len(packets.frames)
    assert line.cuts == {}


@pytest.mark.parametrize(
    ("finish_s", "stated_s", "promised"),
    [(9.4, 10.0, 1000), (9.6, 10.0, None), (95.1, 100.0, None), (94.9, 100.0, 10_000), (12.0, 10.0, None)],
)
def test_a_stated_end_well_after_the_last_packet_is_a_promise(
    finish_s: float, stated_s: float, promised: int | None
) -> None:
    packets = replace(PACKETS, finish_s=finish_s, stated_s=stated_s)
    assert promised_end(packets) == promised
    assert seek_doubt(packets) == ("" if promised is None else "damaged or cut off")


def test_what_a_container_without_times_states_counts_for_an_avi_alone() -> None:
    counted = with_frames((0, 10), (0, 10), finish_s=1.0, stated_s=10.0)
    assert promised_end(counted) is None
    assert promised_end(replace(counted, format_name="avi")) == 1000


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"format_name": "mpegts"}, "seeks by frame number are not exact in mpegts"),
        ({"video_streams": 2}, "several video streams"),
        ({"hidden": True}, "edit list"),
        ({"frames": [(0, 10), (0, 10)]}, "frames without times of their own"),
        ({"open_gops": {30}}, "open GOPs"),
        ({"damaged": True}, "damaged or cut off"),
        ({"damaged": True, "video_streams": 2}, "several video streams"),
    ],
)
def test_each_reason_to_doubt_seeks_is_named_and_the_first_of_several(changes: dict[str, Any], doubt: str) -> None:
    assert seek_doubt(replace(PACKETS, **changes)) == doubt


def test_decoding_starts_at_no_keyframe_of_an_open_gop_and_at_none_where_an_edit_list_hides_frames() -> None:
    assert clean_cuts(replace(PACKETS, open_gops={0})) == {30: 20}
    assert list(clean_cuts(replace(PACKETS, keyframes={30: 20, 0: -10}))) == [0, 30]
    assert clean_cuts(replace(PACKETS, hidden=True)) == {}
