"""Time stamps that do not ascend as frames are shown: of appended files, and of containers that store none."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

# A frame is shown after at most so many that are stored after it (H.264, HEVC).
REORDERED = 16


class StampRestarts:
    """Where time stamps start anew, as where one file was appended to another; packets come one at a time.

    Args:
        longest_pause: ticks from one packet to the next beyond which stamps start anew.

    Attributes:
        numbers: of the packets at which they do.
        count: of packets so far.
    """

    def __init__(self, longest_pause: float) -> None:
        self.numbers: list[int] = []
        self.count = 0
        self._longest_pause = longest_pause
        self._dts: int | None = None  # of the packet before
        self._recent: deque[int] = deque(maxlen=REORDERED)  # presentation ticks
        self._highest: int | None = None  # presentation tick so far

    def add(self, pts: int | None, dts: int | None, is_cut: bool) -> None:
        """Takes the next packet in the order of storage: its ticks, and whether decoding starts there."""
        step = 0 if dts is None or self._dts is None else dts - self._dts
        # Matroska stores no decoding ticks, and FFmpeg's guesses may go back by as much as frames are reordered.
        back = step < 0 and (pts is None or all(pts < other for other in self._recent))
        # all that is stored before a cut is shown before it
        early = is_cut and pts is not None and self._highest is not None and pts <= self._highest
        if back or early or step > self._longest_pause:
            self.numbers.append(self.count)
            self._recent.clear()
            self._highest = None
        self._dts = self._dts if dts is None else dts
        if pts is not None:
            self._recent.append(pts)
            self._highest = pts if self._highest is None else max(pts, self._highest)
        self.count += 1


def one_after_another(decoded: list[tuple[int, int | None]], restarts: list[int], usual: int) -> list[int]:
    """Ticks at which decoded frames start, ascending; empty if their time stamps do not determine them.

    Args:
        decoded: number of its packet, and presentation tick, of each frame, in the order of decoding.
        restarts: packets at which stamps start anew; frames from there on come after those before.
        usual: ticks from one frame to the next.
    """
    parts: dict[int, list[int]] = {}
    for packet, stamp in decoded:
        if stamp is None:
            return []
        parts.setdefault(bisect_right(restarts, packet), []).append(stamp)
    pts: list[int] = []
    for _, stamps in sorted(parts.items()):
        if len(set(stamps)) < len(stamps):
            return []
        # decoders give frames in the order in which they are shown, whatever their stamps
        shift = pts[-1] + usual - min(stamps) if pts else 0
        pts += sorted(stamp + shift for stamp in stamps)
    return pts


def mean_gap(stamps: list[int], alone: int) -> int:
    """Ticks from one frame to the next on average; `alone` if there is one frame only."""
    return (stamps[-1] - stamps[0]) // (len(stamps) - 1) if len(stamps) > 1 else alone
