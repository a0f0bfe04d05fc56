"""k nearest neighbors on frozen features: nothing is trained, for every k from one search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Gt
from torch import Tensor

from evalkit.api import Encoder, Task
from evalkit.errors import UserError
from evalkit.heads.closed_form import ClosedFormProbe
from evalkit.heads.neighbors import NeighborGallery

# Points of one grid may differ in these.
TOGETHER = ("k", "temperature")


class Neighbors(ClosedFormProbe):
    """The training examples, and how many of them vote at each point."""

    def __init__(self, task: Task, ks: Sequence[int], temperatures: Sequence[float]) -> None:
        super().__init__("knn", task, len(ks), "votes")
        self.ks, self.temperatures = list(ks), list(temperatures)

    def fit_vectors(self, x: Tensor, y: Tensor) -> None:
        """Keeps the training examples."""
        if (most := max(self.ks)) > len(x):
            raise UserError(f"adapter.k={most}: there are {len(x)} training examples; give at most as many")
        self.gallery = NeighborGallery(x, y, self.classes)

    def score_vectors(self, x: Tensor) -> list[Tensor]:
        """The share of the votes of each class."""
        nearest = self.gallery.nearest(x, max(self.ks))
        return [nearest.votes(k, t) for k, t in zip(self.ks, self.temperatures, strict=True)]

    def select(self, k: int) -> None:
        """Leaves the k-th point only."""
        self.ks, self.temperatures, self.points = self.ks[k : k + 1], self.temperatures[k : k + 1], 1


def adapter(
    encoder: Encoder, task: Task, *, k: Annotated[int, Gt(0)] = 20, temperature: Annotated[float, Gt(0)] = 0.07
) -> Neighbors:
    """Classifies by the votes of the nearest training examples; nothing is trained.

    DINO's (https://arxiv.org/abs/2104.14294; its code's defaults): pooled vectors are compared by the cosine, a vote
    counts exp(cosine / temperature), for each class that the neighbor has. Classes without a vote come last, the lower
    ones first: top-5 says little where k is below 5.

    Args:
        k: neighbors that vote.
        temperature: of the votes; the lower, the more the nearest count.
    """
    return grid(encoder, task, [{"k": k, "temperature": temperature}])


def grid(encoder: Encoder, task: Task, points: Sequence[Mapping[str, Any]]) -> Neighbors:
    """Every k and temperature from one search.

    Args:
        encoder: frozen.
        task: with classes.
        points: all settings of `adapter` for each, which differ in `TOGETHER` at most.

    Raises:
        UserError: the task has no classes.
    """
    return Neighbors(task, [point["k"] for point in points], [point["temperature"] for point in points])
