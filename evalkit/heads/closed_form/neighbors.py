"""k-NN on frozen features: one exact search for the largest k, from which every smaller k votes.

Features and targets are as in `evalkit.heads.closed_form`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.errors import UserError
from evalkit.heads.closed_form.inputs import as_columns, blocks, check_binary, check_features, check_grid, check_labels


class NeighborGallery:
    """Index of training examples for exact search by the cosine.

    Args:
        x: (N, D) features; a row of zeros has cosine 0 with everything. They are kept in float64.
        y: (N,) class indices or (N, T) of 0 and 1.
        classes: how many there are, for class indices.

    Raises:
        UserError: features are not finite, or targets do not fit.
    """

    def __init__(self, x: Tensor, y: Tensor, classes: int | None = None) -> None:
        check_features(x, "training")
        if y.ndim == 2:
            check_binary(as_columns(y, len(x), classes))
        else:
            check_labels(y, len(x), classes)
        self.targets, self.classes = y.to(x.device), y.shape[1] if y.ndim == 2 else int(classes or 0)
        self.rows = torch.empty(x.shape, dtype=torch.float64, device=x.device)
        for start, rows in blocks(x, 8192):
            self.rows[start : start + len(rows)] = F.normalize(rows, dim=1)

    def nearest(self, x: Tensor, k: int) -> Neighbors:
        """Find the k examples with the largest cosine to each of (M, D) features.

        Cosines are computed in float64 and rounded to 2^-30, so that equal examples tie, however the work is cut; of
        those that tie, the ones with the lower index are taken first. Memory beyond the result does not grow with M.

        Raises:
            UserError: features are not finite or of another width, or k is not in 1..N.
        """
        check_features(x, "test")
        if x.shape[1] != self.rows.shape[1]:
            raise UserError(
                f"k-NN: training features are {self.rows.shape[1]} wide, test features {x.shape[1]}; "
                "both must come from one encoder"
            )
        if not 1 <= k <= len(self.rows):
            raise UserError(f"k-NN: k={k} is not in 1..{len(self.rows)}, the training examples")
        keys = torch.cat([self._keys(F.normalize(rows, dim=1), k) for _, rows in blocks(x, 1024)])
        index = (2**32 - 1) - (keys & (2**32 - 1))
        return Neighbors((keys >> 32).double() / 2**30, index, self.targets, self.classes)

    def _keys(self, rows: Tensor, k: int) -> Tensor:
        """Sort keys (M, k) int64, falling: the rounded cosine in the upper 32 bits, 2^32 - 1 - index in the lower.

        One number holds both, so that the order is total and top-k, which leaves ties open, has none.
        """
        rows = rows.to(self.rows)
        best = torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)
        for start in range(0, len(self.rows), 8192):
            cosine = rows @ self.rows[start : start + 8192].T
            index = torch.arange(start, start + cosine.shape[1], device=rows.device)
            keys = (cosine * 2**30).round_().long() * 2**32 + (2**32 - 1 - index)
            best = torch.cat([best, keys], 1)
            best = best.topk(min(k, best.shape[1]), dim=1).values
        return best


@dataclass(frozen=True)
class Neighbors:
    """Nearest training examples of every test example, whose first k vote.

    Attributes:
        similarity: (M, k) float64, cosines, falling.
        index: (M, k) int64, of training examples; where cosines tie, the lower index comes first.
        targets: of the training examples.
        classes: T, columns of the votes.
    """

    similarity: Tensor
    index: Tensor
    targets: Tensor
    classes: int

    def votes(self, k: int, temperature: float | None = None) -> Tensor:
        """Share of the votes of the nearest k, in 0..1, for each class: (M, T) float32.

        A vote counts 1, or exp(cosine / temperature): 0.07 is what DINO uses
        (https://github.com/facebookresearch/dino/blob/main/eval_knn.py, after https://arxiv.org/abs/1805.01978).

        Raises:
            UserError: fewer than k were looked for, or a temperature is not above 0.
        """
        if not 1 <= k <= self.index.shape[1]:
            raise UserError(f"k-NN: k={k} is not in 1..{self.index.shape[1]}, the neighbors that were looked for")
        index, similarity = self.index[:, :k], self.similarity[:, :k]
        if temperature is None:
            votes = torch.ones_like(similarity)
        else:  # relative to the nearest: the shares are the same, and no temperature overflows
            check_grid([temperature], "temperature")
            votes = ((similarity - similarity[:, :1]) / temperature).exp()
        if self.targets.ndim == 2:
            counts = F.embedding_bag(index, self.targets.to(votes), per_sample_weights=votes, mode="sum")
        else:
            counts = votes.new_zeros(len(votes), self.classes).scatter_add_(1, self.targets[index], votes)
        return (counts / votes.sum(1, keepdim=True)).float()
