"""Segments in time and boxes in key frames, as the page draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# What a score function's regions are. Of others, a list of lists is text.
KINDS = {"activitynet_map": "segments", "thumos_map": "segments", "ava_map": "boxes"}
MAX_PREDICTED = 20  # of a video or key frame, the likeliest
MAX_ANNOTATED = 100
MAX_LABEL_LENGTH = 80  # characters


def kind_of(record: Mapping[str, Any]) -> str:
    """What the predictions of a run are: segments, boxes, or empty for neither."""
    return KINDS.get(record["task"]["score"].partition(":")[2], "")


def shorten(regions: Sequence[Any], kind: str, scored: bool) -> dict[str, Any]:
    """The regions of one example for the page.

    Args:
        regions: [start, end, label] in seconds, or [left, top, right, bottom, label] as shares; with a score at the end
            where they are predicted.
        kind: segments or boxes.
        scored: they are predicted.

    Returns:
        `regions`, the annotated in their order and the predicted by descending score, no more than the page has room
        for, and `count`, how many there are.
    """
    digits = 2 if kind == "segments" else 3
    kept = sorted(regions, key=lambda region: -region[-1])[:MAX_PREDICTED] if scored else regions[:MAX_ANNOTATED]
    shown = []
    for region in kept:
        *bounds, label = region[:-1] if scored else region
        if isinstance(label, str) and len(label) > MAX_LABEL_LENGTH:
            label = f"{label[:MAX_LABEL_LENGTH]}…"
        shown.append([*(round(x, digits) for x in bounds), label, *([float(f"{region[-1]:.3g}")] if scored else [])])
    return {"regions": shown, "count": len(regions)}
