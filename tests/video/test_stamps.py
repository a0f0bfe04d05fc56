"""Time stamps that start anew, and the order in which decoded frames are shown."""

import math

import pytest

from evalkit.video.stamps import StampRestarts, mean_gap, one_after_another

# Presentation and decoding tick of each packet, and whether decoding starts there, in the order of storage.
Stored = list[tuple[int | None, int | None, bool]]
# Two groups of four with B frames: presentation and decoding tick, whether decoding starts there.
PART: Stored = [(10, 0, True), (40, 10, False), (20, 20, False), (30, 30, False), (50, 40, True), (60, 50, False)]


def later(stored: Stored, ticks: int) -> Stored:
    return [(pts and pts + ticks, (dts or 0) + ticks, cut) for pts, dts, cut in stored]


@pytest.mark.parametrize(
    ("stored", "pause", "restarts"),
    [
        (PART, math.inf, []),
        (PART + PART, math.inf, [6]),
        (PART + later(PART, 35), math.inf, [6]),  # overlapping by little
        (PART + later(PART, 60) + PART, math.inf, [12]),
        (PART + later(PART, 1000), 500, [6]),
        (PART + later(PART, 1000), math.inf, []),
        (PART + [(1, -9, False), (2, -8, False)], math.inf, [6]),  # what follows begins between its keyframes
        ([(10, 10, True), (40, 40, False), (20, 20, False), (30, 30, False)], math.inf, []),  # guessed ticks
        ([(None, None, False), (None, 3, True), (None, 4, False)], math.inf, []),
        ([(pts, None, True) for pts in (0, 1, 2, 0, 1)], math.inf, [3]),
    ],
)
def test_stamps_start_anew_where_they_cannot_go_on(stored: Stored, pause: float, restarts: list[int]) -> None:
    found = StampRestarts(pause)
    for packet in stored:
        found.add(*packet)
    assert found.numbers == restarts


def test_frames_are_shown_in_the_order_of_decoding_and_parts_one_after_the_other() -> None:
    assert one_after_another([(0, 0), (2, 20), (1, 10)], [], 10) == [0, 10, 20]
    assert one_after_another([(0, 5), (1, 15), (2, 0), (3, 10)], [2], 10) == [5, 15, 25, 35]
    assert one_after_another([(0, 0), (1, 10), (2, 9000), (3, 9010)], [2], 10) == [0, 10, 20, 30]
    assert one_after_another([(0, 0), (1, None)], [], 10) == one_after_another([(0, 0), (1, 0)], [], 10) == []


def test_the_mean_gap_is_the_usual_one_where_there_is_one_frame() -> None:
    assert mean_gap([0, 10, 30], 4) == 15 and mean_gap([7], 4) == 4
