"""RankMe and LiDAR: effective ranks of spectra, of all vectors and of draws of a bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.runtime.arithmetic import map_on_cores

Array = NDArray[np.float64]

EPSILON = 1e-7  # added to each share of a spectrum, so that its logarithm exists: RankMe's
DELTA = 1e-4  # added to the diagonal of the within-class covariance: LiDAR's


class RankMe:
    """The effective rank of vectors (n, E): exp of the entropy of their singular values (Garrido et al. 2023).

    As https://arxiv.org/abs/2210.02885 has it: p = sigma / |sigma|_1 + 1e-7, which sum to a bit more than 1. Vectors
    are neither centered nor normalized.

    Attributes:
        value: of all vectors.
        operations: that a draw costs, about.
    """

    def __init__(self, vectors: Array) -> None:
        self.value = _effective_rank(torch.linalg.svdvals(torch.from_numpy(vectors)))
        self._vectors = _in_their_span(vectors)
        n, rank = self._vectors.shape
        self.operations = rank**2 * (10.0 * rank + n)

    def of_draws(self, times: NDArray[Any]) -> Array:
        """RankMe (R,) of R draws, in which each vector counts as often as (n, R) says."""
        return _of_draws(self._of, times)

    def _of(self, times: Tensor) -> float:
        rows = self._vectors * times.sqrt()[:, None]
        return _effective_rank(torch.linalg.eigvalsh(rows.T @ rows).clamp(min=0).sqrt())


class LiDAR:
    """The effective rank of a linear discriminant analysis of views (n, V, E), a class a video (Thilak et al. 2023).

    As https://arxiv.org/abs/2312.04000 has it: eigenvalues of Sw^-1/2 Sb Sw^-1/2, where Sb is the covariance of the
    classes' means and Sw the mean covariance within them, plus 1e-4 on its diagonal; then as RankMe. Covariances are
    means, without Bessel's correction.

    Attributes:
        value: of all videos.
        operations: that a draw costs, about.
    """

    def __init__(self, views: Array) -> None:
        self._width, self._views = views.shape[2], _in_their_span(views)
        n, count, rank = self._views.shape
        self.operations = rank**2 * (12.0 * rank + n * count)
        self.value = self._of(torch.ones(n, dtype=torch.float64))

    def of_draws(self, times: NDArray[Any]) -> Array:
        """LiDAR (R,) of R draws, in which each video counts as often as (n, R) says."""
        return _of_draws(self._of, times)

    def _of(self, times: Tensor) -> float:
        views, share = self._views, times / times.sum()
        means = views.mean(1)
        between = (means - share @ means) * share.sqrt()[:, None]
        within = ((views - means[:, None]) * (share / views.shape[1]).sqrt()[:, None, None]).flatten(0, 1)
        lower = torch.linalg.cholesky(within.T @ within + DELTA * torch.eye(views.shape[2], dtype=torch.float64))
        whitened = torch.linalg.solve_triangular(lower, between.T, upper=False)  # its squared singular values count
        products = whitened.T @ whitened if len(means) < len(lower) else whitened @ whitened.T
        return _effective_rank(torch.linalg.eigvalsh(products).clamp(min=0), self._width)


def _of_draws(of: Callable[[Tensor], float], times: NDArray[Any]) -> Array:
    return np.array([*map_on_cores(of, torch.from_numpy(times.T.astype(np.float64)))])


def _in_their_span(vectors: Array) -> Tensor:
    """Vectors (..., E) in an orthonormal basis of what they span, (..., r): fewer numbers where they are few.

    All that is asked of them here are their products, which are the same.
    """
    rows = torch.from_numpy(vectors).flatten(0, -2)
    if len(rows) < rows.shape[1]:
        rows = torch.linalg.qr(rows.T, mode="r").R.T
    return rows.reshape(*vectors.shape[:-1], -1)


def _effective_rank(spectrum: Tensor, size: int = 0) -> float:
    """The exponential of the entropy of a spectrum's shares; NaN where all of it is 0.

    Args:
        spectrum: all that is not 0 of it.
        size: of the whole, with what is 0; 0 where that is all.
    """
    total = spectrum.sum()
    if not total:
        return math.nan
    shares = spectrum / total + EPSILON
    zeros = max(0, size - len(spectrum))
    return math.exp(-float((shares * shares.log()).sum()) - zeros * EPSILON * math.log(EPSILON))
