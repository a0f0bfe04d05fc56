"""Scores of features without labels: RankMe, LiDAR, alignment and uniformity.

A prediction is what `packed` makes of a video's vectors, one a view. Targets are not read. A video that failed has no
vectors and no part in any of these: nothing says what it would have been.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.metrics.bootstrap import AdditiveScore, ReweightedScore

Array = NDArray[np.float64]

ALPHA, T = 2.0, 2.0  # of alignment and of uniformity: their paper's
MOST, LEAST, OPERATIONS = 1_000, 100, 2e11  # draws of a bootstrap, and what they may cost together
BLOCK = 1_024  # rows of similarities at a time


def representation(predictions: Sequence[Any], targets: Sequence[Any]) -> Mapping[str, float]:
    """RankMe, the headline; LiDAR; alignment and uniformity, of which less is better.

    RankMe and uniformity are of the mean over a video's views. LiDAR and alignment compare the views of a video: NaN
    where there is one. All are NaN where fewer than two videos have vectors.
    """
    from evalkit.metrics import effective_rank  # which imports torch

    once = _first_of_each(predictions)
    vectors = [unpacked(value) if place in once else None for place, value in enumerate(predictions)]
    there = np.flatnonzero([one is not None for one in vectors])
    known = [one for one in vectors if one is not None]
    if len({one.shape for one in known}) > 1 or len(known) < 2:
        return dict.fromkeys(("rankme", "lidar", "alignment", "uniformity"), math.nan)
    views = np.stack(known)  # (n, V, E)
    means = views.mean(1)

    def weighted(rank: effective_rank.RankMe | effective_rank.LiDAR) -> ReweightedScore:
        draws = int(min(MOST, max(LEAST, OPERATIONS / rank.operations)))
        return ReweightedScore(len(predictions), lambda times: rank.of_draws(times[there]), draws, rank.value)

    n = len(means)
    scores: dict[str, float] = {
        "rankme": weighted(effective_rank.RankMe(means)),
        "lidar": math.nan,
        "alignment": math.nan,
    }
    if views.shape[1] > 1:
        scores["lidar"] = weighted(effective_rank.LiDAR(views))
        parts = np.zeros((len(predictions), 2))
        parts[there] = np.stack([_alignments(views), np.ones(n)], 1)
        scores["alignment"] = AdditiveScore(parts, _ratio)

    def uniform(times: NDArray[np.float32]) -> Array:
        return uniformity(means, times[there].astype(np.float64))

    draws = int(min(MOST, max(LEAST, OPERATIONS / n**2)))
    scores["uniformity"] = ReweightedScore(len(predictions), uniform, draws, float(uniformity(means)[0]))
    return scores


def packed(vectors: NDArray[np.float32], part: str = "") -> dict[str, Any]:
    """Vectors (V, E) as a prediction, which json holds in a third more bytes than they have.

    Args:
        vectors: of the views of a part of a video.
        part: its name; several examples may ask about it, and it counts once.
    """
    encoded = base64.b64encode(vectors.astype("<f4").tobytes()).decode()
    return {"width": vectors.shape[1], "part": part, "float32": encoded}


def _first_of_each(predictions: Sequence[Any]) -> set[int]:
    """Places of the predictions that are the first of their part of a video; those that name none are all of others."""
    seen: dict[Any, int] = {}
    for place, value in enumerate(predictions):
        named = isinstance(value, Mapping) and value.get("part")
        seen.setdefault((value["part"], value["float32"]) if named else place, place)
    return {*seen.values()}


def unpacked(prediction: Any) -> Array | None:
    """The vectors (V, E) of a prediction; None of anything else."""
    if not isinstance(prediction, Mapping) or "float32" not in prediction:
        return None
    vectors = np.frombuffer(base64.b64decode(prediction["float32"]), "<f4").reshape(-1, int(prediction["width"]))
    return vectors.astype(np.float64)


def alignment(views: Array) -> float:
    """The mean squared distance of two views of a video, of views (n, V, E) of length 1 (Wang and Isola 2020).

    As https://arxiv.org/abs/2005.10242 has it, with alpha = 2, over all pairs of views.
    """
    return float(_alignments(views).mean())


def _alignments(views: Array) -> Array:
    """Of each video."""
    unit = _unit(views)
    one, other = np.triu_indices(views.shape[1], 1)
    distances = np.linalg.norm(unit[:, one] - unit[:, other], axis=-1)
    return np.asarray((distances**ALPHA).mean(1))


def uniformity(vectors: Array, times: Array | None = None) -> Array:
    """The logarithm of the mean of exp(-2 d^2) over all pairs of vectors (n, E) of length 1 (Wang and Isola 2020).

    As https://arxiv.org/abs/2005.10242 has it, with t = 2; no vector is paired with itself.

    Args:
        vectors: of each video.
        times: (n, R), how often each counts in each of R draws; None: once, in one.

    Returns:
        (R,).
    """
    times = np.ones((len(vectors), 1)) if times is None else times
    unit, total = _unit(vectors), np.zeros(times.shape[1])
    for start in range(0, len(unit), BLOCK):
        squares = 2 - 2 * unit[start : start + BLOCK] @ unit.T
        near = np.exp(-T * squares.clip(0))
        near[np.arange(len(near)), np.arange(start, start + len(near))] = 0
        total += (times[start : start + BLOCK] * (near @ times)).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw may hold one vector alone
        return np.asarray(np.log(total / (times.sum(0) ** 2 - (times**2).sum(0))))


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-12))


def _ratio(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / sums[..., 1])
