"""The features of a run's test samples as points of a plane, by their two main directions, colored by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evalkit.errors import UserError, counted
from evalkit.results.rows import Row
from evalkit.show.encoded import Encoded
from evalkit.show.opened import Opened

MOST = 2_000  # samples; of more, so many in even steps
GROUPS = 7  # with colors of their own


@dataclass(frozen=True)
class FeatureMap:
    """Points of a plane.

    Attributes:
        ids: of the samples.
        points: (N, 2) in 0..1.
        shares: of the variance, that each of the two directions has.
        groups: of each sample: the name of its class, or of its kind; empty where it has neither.
        shown: the groups with colors of their own, the most frequent first.
        asked: how many samples were looked for.
    """

    ids: Sequence[str]
    points: np.ndarray
    shares: tuple[float, float]
    groups: Sequence[str]
    shown: Sequence[str]
    asked: int


def feature_map(opened: Opened, encoded: Encoded, chosen: Sequence[Row]) -> FeatureMap:
    """The map of a run, with the chosen samples among the points.

    Raises:
        UserError: fewer than three samples have features that are stored.
    """
    rows = list(opened.rows)
    if len(rows) > MOST:
        own = {row.id for row in chosen}
        even = {round(place * (len(rows) - 1) / (MOST - 1)) for place in range(MOST)}
        rows = [row for place, row in enumerate(rows) if place in even or row.id in own]
    groups_of = {row.id: group(opened, row) for row in rows}
    examples = [opened.examples[row.id] for row in rows if row.id in opened.examples]
    vectors = {example.id: vector(features) for example, features in encoded.features(examples)}
    if len(vectors) < 3:
        raise UserError(
            f"features of {len(vectors)} of {counted(len(rows), 'sample')} stored, which make no map; encode=true "
            "encodes what is missing"
        )
    ids = list(vectors)
    points, shares = main_directions(torch.stack([vectors[id] for id in ids]))
    groups = [groups_of[id] for id in ids]
    frequent = [name for name, _ in Counter(filter(None, groups)).most_common()]
    own_groups = list(dict.fromkeys(groups_of[row.id] for row in chosen if groups_of.get(row.id)))[:1]
    shown = [name for name in frequent if name not in own_groups][: GROUPS - len(own_groups)]
    shown = [name for name in frequent if name in {*shown, *own_groups}]
    return FeatureMap(ids, points, shares, groups, shown, len(rows))


def group(opened: Opened, row: Row) -> str:
    """What a sample is colored by: its class, else its kind; empty where it has neither."""
    if opened.kind == "class" and row.target is not None:
        return opened.name(row.target)
    if opened.kind == "classes" and isinstance(row.target, list) and row.target:
        return opened.name(row.target[0])
    return row.kind


def vector(features: Tensor) -> Tensor:
    """One vector (D,) of what an adapter reads: the mean over views, and of tokens over time and places."""
    return features.float().flatten(0, -2).mean(0)


def main_directions(vectors: Tensor) -> tuple[np.ndarray, tuple[float, float]]:
    """Vectors (N, D) along the two directions in which they vary most, (N, 2) in 0..1; and each one's share of that.

    Both have one scale. A direction points to where the largest of its numbers is positive, so that equal vectors give
    equal maps.
    """
    centered = (vectors - vectors.mean(0)).double()
    _, spread, directions = torch.linalg.svd(centered, full_matrices=False)
    largest = directions.abs().argmax(1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    total = float((spread**2).sum()) or 1.0
    if len(directions) < 2:
        directions, spread = torch.cat([directions, torch.zeros_like(directions)]), torch.cat([spread, torch.zeros(1)])
    along = (centered @ directions[:2].T).numpy()
    low, high = along.min(0), along.max(0)
    scale = float((high - low).max()) or 1.0
    first, second = ((spread[:2] ** 2) / total).tolist()
    return (along - (low + high) / 2) / scale + 0.5, (first, second)
