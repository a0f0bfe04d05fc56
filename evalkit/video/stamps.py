"""Time stamps that do not ascend as frames are shown: of appended files, and of containers that store none."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

# A frame is shown after at most so many that are stored after it (H.264, HEVC).
REORDERED = 16

# Presentation and decoding tick of each packet, and whether decoding starts there, in the order of storage.
Stored = list[tuple[int | None, int | None, bool]]


def stamp_restarts(stored: Stored, longest_pause: float) -> list[int]:
    """Where time stamps start anew, as where one file was appended to another: numbers of packets.

    Args:
        stored: presentation and decoding tick of each packet, and whether decoding starts there, in order of storage.
        longest_pause: ticks from one packet to the next beyond which stamps start anew.
    """
    restarts = []
    dts: int | None = None  # of the packet before
    recent: deque[int] = deque(maxlen=REORDERED)  # presentation ticks
    highest: int | None = None  # presentation tick so far
    for number, (pts, stamp, is_cut) in enumerate(stored):
        step = 0 if stamp is None or dts is None else stamp - dts
        # Matroska stores no decoding ticks, and FFmpeg's guesses may go back by as much as frames are reordered.
        back = step < 0 and (pts is None or all(pts < other for other in recent))
        # all that is stored before a cut is shown before it
        early = is_cut and pts is not None and highest is not None and pts <= highest
        if back or early or step > longest_pause:
            restarts.append(number)
            recent.clear()
            highest = None
        dts = dts if stamp is None else stamp
        if pts is not None:
            recent.append(pts)
            highest = pts if highest is None else max(pts, highest)
    return restarts


def one_after_another(decoded: list[tuple[int, int | None]], restarts: list[int], usual: int) -> list[int]:
    """Ticks at which decoded frames start, ascending; empty if their stamps do not tell.

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
