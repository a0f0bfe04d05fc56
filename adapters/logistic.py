"""Logistic regression on frozen features: the linear probe without epochs, for every C at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Gt
from torch import Tensor

from evalkit.api import Encoder, Task, pooled_dim
from evalkit.heads.closed_form import LinearProbe
from evalkit.heads.solvers import LinearClassifier, logistic

# Points of one grid may differ in these.
TOGETHER = ("c",)


def adapter(
    encoder: Encoder, task: Task, *, c: Annotated[float, Gt(0)] = 0.01, standardize: bool = True
) -> LinearProbe:
    """Classifies by logistic regression on the frozen encoder's pooled vectors.

    The objective is that of scikit-learn's LogisticRegression; where an example may have several classes, each class is
    fitted against the rest. CLIP (https://arxiv.org/abs/2103.00020, appendix A.3) and DINOv2's code
    (dinov2/eval/log_regression.py) take the features as they are, standardize=false, and choose from 96 values from
    1e-6 to 1e6, and 45 from 1e-6 to 1e5: `evalkit sweep ... adapter.c=1e-6,1e-5,...`.

    Args:
        c: how much the losses count beside the penalty, which is half of the squared weights.
        standardize: center each feature and divide it by its deviation over the training examples first, so that one C
            is as good for one encoder as for another.
    """
    return grid(encoder, task, [{"c": c, "standardize": standardize}])


def grid(encoder: Encoder, task: Task, points: Sequence[Mapping[str, Any]]) -> LinearProbe:
    """Every C on one path from the smallest to the largest.

    Args:
        encoder: frozen.
        task: with classes.
        points: all settings of `adapter` for each, which differ in `TOGETHER` at most.

    Raises:
        UserError: the task has no classes.
    """
    cs = [point["c"] for point in points]

    def solve(x: Tensor, y: Tensor, classes: int) -> LinearClassifier:
        # So close that a point in a grid and alone, which come from different sides, say the same.
        return logistic(x, y, cs, classes, tolerance=1e-3)

    dim = pooled_dim(encoder)
    return LinearProbe("logistic", task, dim, solve, len(points), points[0]["standardize"], probabilities=True)
