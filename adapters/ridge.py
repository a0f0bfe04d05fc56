"""Ridge regression on frozen features: a linear classifier in closed form, for every lambda at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from torch import Tensor

from evalkit.api import Encoder, Task, pooled_dim
from evalkit.heads.adapter import AdapterSettings
from evalkit.heads.closed_form.probe import LinearProbe
from evalkit.heads.closed_form.ridge import LinearClassifier, ridge


@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings of `adapter=ridge`.

    Attributes:
        alpha: regularization strength.
        standardize: first center each feature and divide it by its standard deviation over the training examples.
    """

    STACKABLE: ClassVar[tuple[str, ...]] = ("alpha",)

    alpha: Annotated[float, Gt(0)] = 1024.0
    standardize: bool = True


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> LinearProbe:
    """Classifies by ridge regression on the frozen encoder's pooled vectors.

    The least squares fit of 1 for a right class and 0 for the others, alpha times the squared weights added: that of
    scikit-learn's Ridge. The defaults are big_vision's few-shot probe
    (https://github.com/google-research/big_vision/blob/main/big_vision/evaluators/fewshot_lsr.py).
    Every alpha comes from one decomposition.

    Raises:
        UserError: the task has no classes.
    """
    alphas = [point.alpha for point in points]

    def solve(x: Tensor, y: Tensor, classes: int) -> LinearClassifier:
        return ridge(x, y, alphas, classes)

    dim = pooled_dim(encoder)
    return LinearProbe("ridge", task, dim, solve, len(points), points[0].standardize, probabilities=False)
