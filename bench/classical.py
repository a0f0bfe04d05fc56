"""Prints how evalkit's closed-form probes compare with scikit-learn's, side by side, as one markdown table.

    OMP_NUM_THREADS=2 python bench/classical.py

5,000 features of width 768, 50 classes, a tenth of the labels random. evalkit fits a grid of 100 points; scikit-learn
fits points spread evenly over it, from end to end: as it is by default, and (logistic) until it has converged, because
its default stops at weak regularisation long before the solution. What is compared takes turns; the medians count.
An argument is the number of rounds, default 3, about two minutes each on two idle cores.
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
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from evalkit.classical import logistic, neighbours, ridge

N, D, CLASSES, POINTS = 5_000, 768, 50, 100


def world(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Standardised float32 features and labels, N of train and N of test: classes in a space of falling variance."""
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


def main(rounds: int) -> None:
    """Runs and prints; `rounds` times each."""
    x, y, test_x, test_y = world()
    grid = [float(value) for value in np.logspace(-6, 6, POINTS)]
    sample = range(0, POINTS, 11)
    ks = list(range(1, POINTS + 1))

    def predicted_by(model: Any, dtype: type = np.float32) -> Any:
        return model.fit(x.numpy().astype(dtype), y.numpy()).predict(test_x.numpy().astype(dtype))

    def logistics() -> Tensor:
        return logistic(x, y, grid, CLASSES).predict(test_x)

    rows: list[tuple[str, Callable[[], Tensor], Callable[[int], Any]]] = [
        (
            "logistic, C 1e-6..1e6; scikit-learn's default",
            logistics,
            lambda i: predicted_by(LogisticRegression(C=grid[i])),
        ),
        (
            "the same; scikit-learn converged: float64, tol=1e-13",
            logistics,
            lambda i: predicted_by(LogisticRegression(C=grid[i], tol=1e-13, max_iter=4000), np.float64),
        ),
        (
            "ridge, lambda 1e-6..1e6",
            lambda: ridge(x, y, grid, CLASSES).predict(test_x),
            lambda i: predicted_by(RidgeClassifier(alpha=grid[i])),
        ),
        (
            "k-NN, k 1..100",
            lambda: neighbours(x, y, test_x, ks, CLASSES).predict(),
            lambda i: predicted_by(KNeighborsClassifier(ks[i], metric="cosine", algorithm="brute")),
        ),
    ]
    print(f"| {POINTS} points, {N:,} x {D}, {CLASSES} classes: fit and predict | evalkit, s a point ", end="")
    print("| scikit-learn, s a point | times faster | accuracy, evalkit - scikit-learn, points |")
    print("|---|---|---|---|---|")
    for name, ours, theirs in rows:
        mine, other = [], []
        for _ in range(rounds):
            taken, predicted = seconds(ours)
            mine.append(taken / POINTS)
            taken, labels = seconds(partial(list, map(theirs, sample)))
            other.append(taken / len(sample))
        right = [float((predicted[i] == test_y).double().mean()) for i in sample]
        theirs_right = [float(np.mean(found == test_y.numpy())) for found in labels]
        a, b = statistics.median(mine), statistics.median(other)
        print(f"| {name} | {a:.4f} | {b:.4f} | {b / a:.1f} | ", end="")
        print(", ".join(f"{100 * (p - q):+.2f}" for p, q in zip(right, theirs_right, strict=True)) + " |", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)  # scikit-learn's default stops at 100 iterations
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
