"""Linear models at every point of a grid, and ridge regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evalkit.heads.closed_form.inputs import as_columns, blocks, check_features, check_grid


@dataclass(frozen=True)
class LinearClassifier:
    """Linear models, one per grid point, in the grid's order.

    Attributes:
        weight: (G, D, T).
        bias: (G, T); minus infinity for a class without a training example, which no finite number minimizes.
    """

    weight: Tensor
    bias: Tensor

    def __len__(self) -> int:
        return len(self.weight)

    def scores(self, x: Tensor, point: int) -> Tensor:
        """Logits (or ridge's estimates of the targets) (N, T) of features (N, D) at one grid point."""
        return torch.addmm(self.bias[point], x.to(self.weight), self.weight[point])

    def predict(self, x: Tensor) -> Tensor:
        """Best class at every grid point, (G, N) int64; a tie goes to the lower class."""
        x = x.to(self.weight)  # once for all points
        return torch.stack([self.scores(x, point).argmax(1) for point in range(len(self))])


def ridge(x: Tensor, y: Tensor, lambdas: Sequence[float], classes: int | None = None) -> LinearClassifier:
    """Ridge regression at every lambda: the least ||y - x W - b||^2 + lambda ||W||^2, b free; float64.

    All lambdas share one decomposition. It is the SVD of x, not the eigenvectors of x'x or xx': squaring x would lose
    the directions below 1e-8 of the largest, which a small lambda still uses. A tall x is first reduced to D + T rows
    (QR, a few thousand rows at a time), a wide one is decomposed as it is.

    Args:
        x: (N, D) features.
        y: (N,) class indices, which become 0 and 1 in `classes` columns, or (N, T) numbers.
        lambdas: the grid, each above 0.
        classes: how many there are, for class indices.

    Returns:
        Weights (G, D, T) and biases (G, T), float64.

    Raises:
        UserError: features or targets are not finite or do not fit each other, or a lambda is not above 0.
    """
    check_features(x, "training")
    check_grid(lambdas, "lambda")
    y = as_columns(y, len(x), classes).to(x.device)
    x_mean, y_mean = x.mean(0, dtype=torch.float64), y.mean(0, dtype=torch.float64)
    rows = reduced(x, x_mean, y - y_mean)
    u, s, vt = torch.linalg.svd(rows[:, : x.shape[1]], full_matrices=False)
    projected = u.T @ rows[:, x.shape[1] :]
    weight = torch.stack([vt.T @ (projected * (s / (s * s + value))[:, None]) for value in lambdas])
    return LinearClassifier(weight, y_mean - x_mean @ weight)


def reduced(x: Tensor, mean: Tensor, y: Tensor | None = None) -> Tensor:
    """Reduce [x - mean, y] to at most D + T rows, float64, of the same Gram matrix (QR, in blocks of rows)."""
    width = x.shape[1] + (0 if y is None else y.shape[1])
    rows = torch.empty(0, width, dtype=torch.float64, device=x.device)
    for start, more in blocks(x, max(4096, 4 * width)):
        block = more - mean if y is None else torch.cat([more - mean, y[start : start + len(more)]], 1)
        rows = torch.cat([rows, block])
        if len(rows) > width:
            rows = torch.linalg.qr(rows, mode="r").R
    return rows
