"""Adapters around closed-form probes, which are fitted on one vector per example for all grid points at once.

An example's vector is the mean of its views' pooled vectors, float32. For a linear probe that is the mean of the views'
scores; for neighbors, one training example has one vote.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from evalkit.api import Batch, Example, FeatureSpec, Prediction, Task
from evalkit.errors import UserError
from evalkit.heads.adapter import Adapter
from evalkit.heads.closed_form.ridge import LinearClassifier
from evalkit.heads.labels import best_classes, multi_hot, multi_label

# Points of a linear probe: features (N, D), class indices (N,) or ones and zeros (N, classes), how many classes there
# are -> a probe per point.
Solver = Callable[[Tensor, Tensor, int], LinearClassifier]


class ClosedFormProbe(Adapter):
    """A frozen encoder's pooled vectors -> class scores, at each point of a grid until one is chosen.

    A kind of probe gives `fit_vectors(x, y)`, `score_vectors(x)`, which has (N, classes) for each point, and `select`.

    Args:
        name: of the adapter, for messages.
        task: with classes.
        points: how many there are.
        detail: name of the scores in a prediction's detail.

    Raises:
        UserError: the task has no classes.
    """

    closed_form = True
    feature_spec = FeatureSpec("pooled")
    epochs = 1

    def __init__(self, name: str, task: Task, points: int, detail: str) -> None:
        super().__init__()
        if not task.classes:
            raise UserError(f"adapter={name} needs a task with classes; this task has none")
        self.several = multi_label(task)
        self.classes, self.points, self.detail = len(task.classes), points, detail

    def solve(self, train: Batch) -> None:
        """Fits every point on all training examples."""
        targets = [example.target for example in train.examples]
        labels = multi_hot(targets, self.classes) if self.several else torch.tensor(targets)
        self.fit_vectors(self._vectors(train.features), labels.to(self.device))

    @abstractmethod
    def fit_vectors(self, x: Tensor, y: Tensor) -> None:
        """Fits every point on features (N, D), which may be changed in place, and labels as in `Solve`."""

    @abstractmethod
    def score_vectors(self, x: Tensor) -> list[Tensor]:
        """(N, classes) of features (N, D) at each point; the highest is the likeliest."""

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The five likeliest classes of each example, best first, of ties the lower one; or every class's score.

        Every class's where an example may have several.
        """
        (predictions,) = self.predict_all(examples, features)
        return predictions

    def predict_all(self, examples: Sequence[Example], features: Tensor | None) -> list[list[Prediction]]:
        """The predictions of `predict`, at each point."""
        assert features is not None
        predictions: list[list[Prediction]] = []
        for scores in self.score_vectors(self._vectors(features)):
            if self.several:
                predictions.append([Prediction(row) for row in scores.tolist()])
                continue
            best = best_classes(scores)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            predictions.append([Prediction(top, {self.detail: [round(v, 6) for v in row]}) for top, row in pairs])
        return predictions

    @abstractmethod
    def select(self, point: int) -> None:
        """Keeps one point."""

    def _vectors(self, features: Tensor) -> Tensor:
        return features.to(self.device).float().mean(1)


class LinearProbe(ClosedFormProbe):
    """Linear probes on pooled vectors (B, D).

    With `standardize`, each feature is centered and divided by its standard deviation over the training examples before
    the fit; the weights that are kept are those of the features as they are.

    Args:
        name: of the adapter.
        task: with classes.
        dim: D.
        solve: fits all points.
        points: how many.
        standardize: see above.
        probabilities: whether the scores are logits: of the softmax, or the sigmoid where an example may have several.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, name: str, task: Task, dim: int, solve: Solver, points: int, standardize: bool, probabilities: bool
    ) -> None:
        super().__init__(name, task, points, "probabilities" if probabilities else "estimates")
        self._solve, self.standardize, self.probabilities = solve, standardize, probabilities
        self.register_buffer("weight", torch.zeros(points, dim, self.classes, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(points, self.classes, dtype=torch.float64))

    def fit_vectors(self, x: Tensor, y: Tensor) -> None:
        """Fits every point, as described."""
        mean, deviation = x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
        if self.standardize:
            mean, deviation = x.mean(0), x.std(0, correction=0)
            # What differs by rounding alone is constant: it stays as it is, near 0.
            deviation[deviation <= 1e-6 * mean.abs()] = 1
            x = x.sub_(mean).div_(deviation)
        solution = self._solve(x, y, self.classes)
        self.weight = solution.weight.double() / deviation.double()[:, None]
        self.bias = solution.bias.double() - mean.double() @ self.weight

    def score_vectors(self, x: Tensor) -> list[Tensor]:
        """Estimates of each class's share, or its probability, float64."""
        model = LinearClassifier(self.weight, self.bias)
        scores = [model.scores(x, point) for point in range(self.points)]
        if not self.probabilities:
            return scores
        return [logits.sigmoid() if self.several else logits.softmax(1) for logits in scores]

    def select(self, point: int) -> None:
        """Keeps one point."""
        self.weight, self.bias = self.weight[point : point + 1].clone(), self.bias[point : point + 1].clone()
        self.points = 1

    def adapter_state(self) -> dict[str, Tensor]:
        """The one probe's weight (classes, D) and bias (classes,), as torch.nn.Linear has them, float64."""
        (weight,), (bias,) = self.weight, self.bias
        return {"weight": weight.T, "bias": bias}

    def load_adapter_state(self, weights: Mapping[str, Tensor]) -> None:
        """Puts the tensors of `adapter_state` back."""
        self.weight = weights["weight"].T[None].to(self.weight)
        self.bias = weights["bias"][None].to(self.bias)
