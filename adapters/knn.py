"""k nearest neighbors on frozen features: nothing is trained, for every k from one search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from torch import Tensor

from evalkit.api import Encoder, Task
from evalkit.errors import UserError
from evalkit.heads.adapter import AdapterSettings
from evalkit.heads.closed_form.neighbors import NeighborGallery
from evalkit.heads.closed_form.probe import ClosedFormProbe


@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings of `adapter=knn`.

    Attributes:
        k: number of neighbors.
        temperature: temperature of the votes; the lower, the more the nearest neighbors count.
    """

    STACKABLE: ClassVar[tuple[str, ...]] = ("k", "temperature")

    k: Annotated[int, Gt(0)] = 20
    temperature: Annotated[float, Gt(0)] = 0.07


class Neighbors(ClosedFormProbe):
    """The training examples, and how many of them vote at each point."""

    def __init__(self, task: Task, votes: Sequence[Settings]) -> None:
        super().__init__("knn", task, len(votes), "votes")
        self.ks, self.temperatures = [vote.k for vote in votes], [vote.temperature for vote in votes]

    def check_examples(self, count: int) -> None:
        """Raises UserError where there are fewer training examples than neighbors that vote."""
        if (most := max(self.ks)) > count:
            raise UserError(f"adapter.k={most}: there are {count} training examples; give at most as many")

    def fit_vectors(self, x: Tensor, y: Tensor) -> None:
        """Keeps the training examples."""
        self.check_examples(len(x))
        self.gallery = NeighborGallery(x, y, self.classes)

    def score_vectors(self, x: Tensor) -> list[Tensor]:
        """The share of the votes of each class."""
        nearest = self.gallery.nearest(x, max(self.ks))
        return [nearest.votes(k, t) for k, t in zip(self.ks, self.temperatures, strict=True)]

    def select(self, point: int) -> None:
        """Keeps one point."""
        self.ks, self.temperatures, self.points = [self.ks[point]], [self.temperatures[point]], 1


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> Neighbors:
    """Classifies by the votes of the nearest training examples; nothing is trained.

    DINO's (https://arxiv.org/abs/2104.14294; its code's defaults): pooled vectors are compared by the cosine, a vote
    counts exp(cosine / temperature), for each class that the neighbor has. Classes without a vote come last, the lower
    ones first: top-5 says little where k is below 5. Every k and temperature comes from one search.

    Raises:
        UserError: the task has no classes.
    """
    return Neighbors(task, points)
