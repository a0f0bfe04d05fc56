"""The closed-form probes compared with scikit-learn's, in turns; only the ratios are meaningful.

    OMP_NUM_THREADS=2 PYTHONPATH=. python bench/classical.py [ROUNDS]

Fit and predict with 5,000 features of width 768 and 50 classes, a tenth of the labels random. evalkit fits a grid of
100 points, scikit-learn ten of them, evenly spaced from end to end: with its defaults and, for logistic regression,
also until convergence. With weak regularization its default stops long before the solution, some points of accuracy
below it; only the converged fit is equally accurate at every C. Medians over the rounds, 3 by default.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from evalkit.heads.closed_form.logistic import logistic
from evalkit.heads.closed_form.neighbors import NeighborGallery
from evalkit.heads.closed_form.ridge import ridge

N, D, CLASSES, POINTS = 5_000, 768, 50, 100
SAMPLE = range(0, POINTS, 11)  # what scikit-learn fits


def world(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Standardized float32 features and labels, N of train and N of test: classes in a space of falling variance."""
    generator = np.random.default_rng(seed)
    scale = np.arange(1, D + 1) ** -0.5
    turn, _ = np.linalg.qr(generator.standard_normal((D, D)))
    y = generator.integers(CLASSES, size=2 * N)
    means = 0.35 * generator.standard_normal((CLASSES, D)) * scale
    x = (means[y] + generator.standard_normal((2 * N, D)) * scale) @ turn
    y = np.where(generator.random(2 * N) < 0.1, generator.integers(CLASSES, size=2 * N), y)
    x = ((x - x[:N].mean(0)) / x[:N].std(0)).astype(np.float32)
    return torch.from_numpy(x[:N]), torch.from_numpy(y[:N]), torch.from_numpy(x[N:]), torch.from_numpy(y[N:])


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long it takes, and what it gives."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def points_apart(found: Tensor, reference: list[Any], y: Tensor) -> tuple[float, float]:
    """How far accuracies lie apart, in points: at worst over the grid, and where each is best."""
    own = [100 * float((found[i] == y).double().mean()) for i in SAMPLE]
    theirs = [100 * float(np.mean(labels == y.numpy())) for labels in reference]
    return max(abs(a - b) for a, b in zip(own, theirs, strict=True)), abs(max(own) - max(theirs))


def main(rounds: int) -> None:
    """Runs and prints; `rounds` times each."""
    x, y, test_x, test_y = world()
    grid = [float(value) for value in np.logspace(-6, 6, POINTS)]
    ks = list(range(1, POINTS + 1))

    def predicted_by(model: Any, dtype: type = np.float32) -> Any:
        return model.fit(x.numpy().astype(dtype), y.numpy()).predict(test_x.numpy().astype(dtype))

    def logistics() -> Tensor:
        return logistic(x, y, grid, CLASSES).predict(test_x)

    def votes() -> Tensor:
        nearest = NeighborGallery(x, y, CLASSES).nearest(test_x, max(ks))
        return torch.stack([nearest.votes(k).argmax(1) for k in ks])

    rows: list[tuple[str, str, Callable[[], Tensor], Callable[[int], Any]]] = [
        (
            "logistic, C 1e-6..1e6, scikit-learn's default",
            "",
            logistics,
            lambda i: predicted_by(LogisticRegression(C=grid[i])),
        ),
        (
            "the same, scikit-learn converged (float64, tol=1e-13)",
            ">= 10, <= 0.2 points",
            logistics,
            lambda i: predicted_by(LogisticRegression(C=grid[i], tol=1e-13, max_iter=4000), np.float64),
        ),
        (
            "ridge, lambda 1e-6..1e6",
            "",
            lambda: ridge(x, y, grid, CLASSES).predict(test_x),
            lambda i: predicted_by(RidgeClassifier(alpha=grid[i])),
        ),
        (
            "k-NN, k 1..100",
            "",
            votes,
            lambda i: predicted_by(KNeighborsClassifier(ks[i], metric="cosine", algorithm="brute")),
        ),
    ]
    print(
        "| scikit-learn, per point / evalkit, per point of 100 | times | wanted | accuracy apart, points, at worst ",
        end="",
    )
    print("| at each one's best |")
    print("|---|---|---|---|---|")
    for name, wanted, ours, theirs in rows:
        mine, other = [], []
        for _ in range(rounds):
            taken, found = seconds(ours)
            mine.append(taken / POINTS)
            taken, reference = seconds(partial(list, map(theirs, SAMPLE)))
            other.append(taken / len(SAMPLE))
        worst, best = points_apart(found, reference, test_y)
        ratio = statistics.median(other) / statistics.median(mine)
        print(f"| {name} | {ratio:.1f} | {wanted} | {worst:.2f} | {best:.2f} |", flush=True)
    weights = ridge(x, y, grid, CLASSES).weight
    apart = 0.0
    for i in SAMPLE:
        target = np.eye(CLASSES)[y.numpy()]
        wanted_weights = torch.from_numpy(Ridge(alpha=grid[i], solver="svd").fit(x.double().numpy(), target).coef_.T)
        apart = max(apart, float((weights[i] - wanted_weights).abs().max() / wanted_weights.abs().max()))
    print(
        f"\nRidge coefficients against scikit-learn's, largest difference / largest coefficient: {apart:.1e} (<= 1e-5)"
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)  # scikit-learn's default stops at 100 iterations
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
