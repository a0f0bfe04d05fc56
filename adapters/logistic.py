"""Logistic regression on frozen features: the linear probe without epochs, for every C at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from torch import Tensor

from evalkit.api import Encoder, Task, pooled_dim
from evalkit.heads.adapter import AdapterSettings
from evalkit.heads.closed_form.logistic import logistic
from evalkit.heads.closed_form.probe import LinearProbe
from evalkit.heads.closed_form.ridge import LinearClassifier


@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings of `adapter=logistic`.

    Attributes:
        c: inverse regularization strength, as in scikit-learn.
        standardize: first center each feature and divide it by its standard deviation over the training examples, so
            that one C suits different encoders.
    """

    STACKABLE: ClassVar[tuple[str, ...]] = ("c",)

    c: Annotated[float, Gt(0)] = 0.01
    standardize: bool = True


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> LinearProbe:
    """Classifies by logistic regression on the frozen encoder's pooled vectors.

    The objective is that of scikit-learn's LogisticRegression; where an example may have several classes, each class is
    fitted against the rest. CLIP (https://arxiv.org/abs/2103.00020, appendix A.3) and DINOv2's code
    (dinov2/eval/log_regression.py) take the features as they are, standardize=false, and choose from 96 values from
    1e-6 to 1e6, and 45 from 1e-6 to 1e5: `evalkit sweep ... adapter.c=1e-6,1e-5,...`.
    Every C comes from one path from the smallest to the largest.

    Raises:
        UserError: the task has no classes.
    """
    cs = [point.c for point in points]

    def solve(x: Tensor, y: Tensor, classes: int) -> LinearClassifier:
        # So close that a point in a grid and alone, which come from different sides, say the same.
        return logistic(x, y, cs, classes, tolerance=1e-3)

    dim = pooled_dim(encoder)
    return LinearProbe("logistic", task, dim, solve, len(points), points[0].standardize, probabilities=True)
