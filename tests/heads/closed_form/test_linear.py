import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from evalkit.errors import UserError
from evalkit.heads.closed_form.logistic import logistic
from evalkit.heads.closed_form.neighbors import NeighborGallery
from evalkit.heads.closed_form.ridge import LinearClassifier, ridge

CS = [1e2, 1e-4, 1e-2, 1.0]  # out of order on purpose


def features(n: int, d: int, condition: float = 10.0, offset: float = 3.0, seed: int = 0) -> Tensor:
    """Float64 (n, d) with singular values from 1 to 1 / condition times those of white noise, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    basis: Tensor = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    spectrum = torch.logspace(0, -math.log10(condition), d, dtype=torch.float64)
    return (torch.randn(n, d, generator=generator, dtype=torch.float64) * spectrum).matmul(basis) + offset


def labels(x: Tensor, classes: int, seed: int = 1) -> Tensor:
    """Class indices that a noisy linear rule gives; every class is there."""
    generator = torch.Generator().manual_seed(seed)
    rule = torch.randn(x.shape[1], classes, generator=generator, dtype=torch.float64)
    z = (x - x.mean(0)) @ rule
    y = (z / z.std() + torch.randn(len(x), classes, generator=generator, dtype=torch.float64)).argmax(1)
    y[:classes] = torch.arange(classes)
    return y


def furthest(got: Tensor, wanted: Any) -> float:
    """The largest difference, relative to the largest entry."""
    reference = torch.as_tensor(wanted, dtype=torch.float64)
    return float((got.double() - reference).abs().max() / reference.abs().max())


def objective(model: LinearClassifier, point: int, x: Tensor, y: Tensor, c: float) -> float:
    scores = x.double() @ model.weight[point].double() + model.bias[point].double()
    loss = torch.nn.functional.cross_entropy(scores, y, reduction="sum")
    return float(c * loss + model.weight[point].double().square().sum() / 2)


@pytest.mark.parametrize("shape", [(300, 20), (20, 60), (25, 24), (5000, 8)])
@pytest.mark.parametrize("condition", [10.0, 1e7])
def test_ridge_has_the_coefficients_of_scikit_learn_at_every_lambda(shape: tuple[int, int], condition: float) -> None:
    x = features(*shape, condition)
    y = labels(x, 4)
    lambdas = [1e4, 1e-12, 1e-6, 1e-2, 1.0]
    model = ridge(x, y, lambdas, classes=4)
    for point, value in enumerate(lambdas):
        reference = Ridge(alpha=value, solver="svd").fit(x.numpy(), np.eye(4)[y.numpy()])
        assert furthest(model.weight[point], reference.coef_.T) < 1e-5
        assert furthest(model.scores(x, point), reference.predict(x.numpy())) < 1e-5
        assert torch.equal(model.predict(x)[point], torch.from_numpy(reference.predict(x.numpy()).argmax(1)))


def test_ridge_fits_numbers_and_several_labels_alike() -> None:
    x = features(80, 10)
    y = torch.cat([torch.randn(80, 1, dtype=torch.float64) * 50, (torch.rand(80, 2) < 0.3).double()], 1)
    reference = Ridge(alpha=0.3, solver="svd").fit(x.numpy(), y.numpy())
    model = ridge(x, y, [0.3])
    assert furthest(model.weight[0], reference.coef_.T) < 1e-9
    assert furthest(model.bias[0], reference.intercept_) < 1e-9


@pytest.mark.parametrize("shape", [(400, 12), (40, 90)])
@pytest.mark.parametrize("classes", [2, 5])
def test_logistic_has_the_coefficients_of_scikit_learn_at_every_c(shape: tuple[int, int], classes: int) -> None:
    x = features(*shape)
    y = labels(x, classes)
    model = logistic(x, y, CS, classes, tolerance=1e-5)
    for point, c in enumerate(CS):
        reference = LogisticRegression(C=c, solver="newton-cg", tol=1e-10, max_iter=10_000).fit(x.numpy(), y.numpy())
        weight, bias = model.weight[point].T, model.bias[point]
        if classes == 2:  # scikit-learn keeps the difference of the two
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        assert furthest(weight, reference.coef_) < 1e-3
        assert furthest(bias, reference.intercept_) < 1e-3
        scores = model.scores(x, point).softmax(1)
        assert furthest(scores, reference.predict_proba(x.numpy())) < 1e-3


def test_logistic_on_columns_is_a_binary_model_for_each() -> None:
    x = features(200, 10)
    y = torch.stack([labels(x, 2, seed) for seed in (1, 2, 3)], 1)
    model = logistic(x, y, [0.1, 10.0], tolerance=1e-5)
    for point, c in enumerate([0.1, 10.0]):
        for column in range(3):
            reference = LogisticRegression(C=c, solver="newton-cg", tol=1e-10).fit(x.numpy(), y[:, column].numpy())
            assert furthest(model.weight[point, :, column], reference.coef_[0]) < 1e-3
            assert furthest(model.bias[point, column], reference.intercept_[0]) < 1e-3


@pytest.mark.parametrize("shape", [(600, 150), (600, 8)])
@pytest.mark.parametrize(("tolerance", "excess", "points"), [(1e-2, 1e-4, 1.0), (1e-3, 1e-6, 0.2)])
def test_float32_ends_as_low_as_scikit_learn_by_default_and_as_accurate_as_its_exact_solution(
    shape: tuple[int, int], tolerance: float, excess: float, points: float
) -> None:
    x = features(*shape, offset=0.0).float()
    y = labels(x.double(), 6)
    grid = [float(c) for c in np.logspace(-4, 3, 8)]
    model = logistic(x, y, grid, 6, tolerance)
    for point, c in enumerate(grid):
        default = LogisticRegression(C=c, max_iter=1000).fit(x.double().numpy(), y.numpy())
        theirs = LinearClassifier(torch.from_numpy(default.coef_.T)[None], torch.from_numpy(default.intercept_)[None])
        assert objective(model, point, x, y, c) <= objective(theirs, 0, x, y, c) * (1 + excess)
        exact = LogisticRegression(C=c, solver="newton-cg", tol=1e-9, max_iter=1000).fit(x.double().numpy(), y.numpy())
        accuracy = 100 * (model.predict(x)[point] == y).double().mean()
        assert abs(accuracy - 100 * exact.score(x.double().numpy(), y.numpy())) <= points


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logistic_stops_only_where_the_gradient_is_small_beside_the_weights_or_its_own_spread(
    dtype: torch.dtype,
) -> None:
    x = features(150, 60, offset=0.0).to(dtype)
    y = labels(x.double(), 3)  # separable: the weights grow with C without bound
    grid = [1e-3, 1.0, 1e3, 1e6]
    model = logistic(x, y, grid, 3)
    wide = x.double() - x.double().mean(0)
    for point, c in enumerate(grid):
        weight = model.weight[point].double()
        slope = (x.double() @ weight + model.bias[point].double()).softmax(1) - torch.nn.functional.one_hot(y, 3)
        gradient = torch.cat([c * wide.T @ slope + weight, c * slope.sum(0, keepdim=True)])
        spread = c * (wide.square().sum(1).mean() + 1).sqrt() * slope.norm()
        assert gradient.norm() <= 0.0105 * max(weight.norm(), spread / 10)  # 0.01, and what float32 weights add
        assert (model.predict(x)[point] == y).all() or point < 2


def test_features_far_from_the_origin_do_not_hurt_float32() -> None:
    x = features(300, 10, offset=0.0)
    y = labels(x, 3)
    near, far = (logistic((x + shift).float(), y, [1.0], 3, tolerance=1e-3) for shift in (0.0, 100.0))
    assert furthest(far.weight, near.weight) < 5e-3


def test_a_class_without_a_training_example_is_never_chosen() -> None:
    x = features(100, 5)
    y = labels(x, 3) * 2  # classes 0, 2, 4 of 6
    model = logistic(x, y, [0.1, 10.0], 6)
    dense = logistic(x, y // 2, [0.1, 10.0], 3)
    assert model.bias[:, [1, 3, 5]].eq(-math.inf).all() and model.weight[:, :, [1, 3, 5]].eq(0).all()
    assert torch.equal(model.predict(x), dense.predict(x) * 2)
    columns = torch.stack([torch.zeros(100), torch.ones(100), (y == 0).float()], 1)
    probabilities = logistic(x, columns, [1.0]).scores(x, 0).sigmoid()
    assert probabilities[:, 0].eq(0).all() and probabilities[:, 1].eq(1).all()
    assert logistic(x, torch.full((100,), 4), [1.0], 6).predict(x).eq(4).all()


def test_constant_features_are_left_alone() -> None:
    x = features(60, 4)
    y = labels(x, 3)
    padded = torch.cat([x, torch.full((60, 2), 7.0, dtype=torch.float64)], 1)
    for fit in (ridge, logistic):
        assert torch.allclose(fit(padded, y, [1.0], 3).weight[:, :4], fit(x, y, [1.0], 3).weight, atol=1e-6)
        assert fit(padded, y, [1.0], 3).weight[:, 4:].abs().max() < 1e-6
    assert torch.isfinite(logistic(torch.ones(60, 2), y, [1.0], 3).bias).all()


def test_every_k_votes_as_scikit_learn_does() -> None:
    train, test = features(9000, 6, offset=0.0), features(1100, 6, offset=0.0, seed=5)  # more than one block of each
    y = labels(train, 7)
    found = NeighborGallery(train, y, classes=7).nearest(test, 50)
    for k in (20, 1, 3, 50):
        reference = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(train.numpy(), y.numpy())
        assert furthest(found.votes(k), reference.predict_proba(test.numpy())) < 1e-6
        assert torch.equal(found.votes(k).argmax(1), torch.from_numpy(reference.predict(test.numpy())))


def test_neighbors_are_the_same_whether_asked_for_together_or_one_by_one() -> None:
    train, test = features(9000, 6), features(5, 6, seed=5)
    gallery = NeighborGallery(train, labels(train, 7), classes=7)
    together = gallery.nearest(test, 50)
    for i in range(5):
        alone = gallery.nearest(test[i : i + 1], 50)
        assert torch.equal(alone.index[0], together.index[i])
        assert torch.equal(alone.similarity[0], together.similarity[i])


@pytest.mark.parametrize("temperature", [0.07, 1e-4])
def test_votes_weigh_the_exponential_of_the_cosine(temperature: float) -> None:
    train, test = features(50, 6), features(8, 6, seed=5)
    y = labels(train, 4)
    votes = NeighborGallery(train, y, classes=4).nearest(test, 15).votes(12, temperature)
    cosine = torch.nn.functional.cosine_similarity(test[:, None], train[None], dim=2)
    for i in range(8):
        nearest = cosine[i].argsort(descending=True)[:12]
        weights = ((cosine[i][nearest] - 1) / temperature).exp()
        expected = torch.stack([weights[y[nearest] == c].sum() for c in range(4)]) / weights.sum()
        assert torch.allclose(votes[i].double(), expected, atol=1e-5)
    several = NeighborGallery(train, torch.nn.functional.one_hot(y, 4)).nearest(test, 12)
    assert torch.allclose(several.votes(12, temperature), votes)


def test_neighbors_that_tie_come_by_index() -> None:
    train = features(3, 5).repeat(4000, 1)  # 12,000 rows, each of three directions 4,000 times
    found = NeighborGallery(train.float(), torch.arange(12_000) % 4, classes=4).nearest(train[:3].float(), 4002)
    for row in range(3):
        assert found.index[row].tolist()[:4000] == list(range(row, 12_000, 3))
    assert found.votes(4).eq(0.25).all()
    assert found.similarity[:, :4000].sub(1).abs().max() < 1e-6
    other = torch.cat([-train[:1], train[:1] * 0])
    opposite = NeighborGallery(train[:1], torch.tensor([1]), classes=2).nearest(other, 1)
    assert opposite.similarity[:, 0].tolist() == pytest.approx([-1, 0])
    assert opposite.index[:, 0].tolist() == [0, 0]


X, Y = torch.eye(4), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ridge(X * math.nan, Y, [1.0], 2), "training features hold NaN or infinity, first in row 0"),
        (lambda: logistic(X / (X - 1).clamp(max=0).abs(), Y, [1.0], 2), "hold NaN or infinity"),
        (lambda: NeighborGallery(X, Y, 2).nearest(X * math.inf, 1), "test features hold NaN"),
        (lambda: ridge(X.long(), Y, [1.0], 2), r"shape \(4, 4\) and dtype torch.int64"),
        (lambda: ridge(X, Y, [1.0, 0.0], 2), "lambda=0.0 is not a finite number above 0"),
        (lambda: logistic(X, Y, [], 2), "C=nothing is not"),
        (lambda: logistic(X, Y, [1.0, 1e20], 2), r"C=1e\+20 is not a finite number from 1e-12 to 1e\+12"),
        (lambda: logistic(X, Y, [1.0]), "classes=None"),
        (lambda: logistic(X, Y, [1.0], 1), r"target 1 is not a class index in 0\.\.0"),
        (lambda: logistic(X, Y[:3], [1.0], 2), "do not fit 4 examples"),
        (lambda: logistic(X, X * 3, [1.0]), "target 3 in columns is neither 0 nor 1"),
        (lambda: ridge(X, X / 0 * X, [1.0]), "targets hold NaN"),
        (lambda: NeighborGallery(X, Y, 2).nearest(X[:, :3], 1), "4 wide, test features 3"),
        (lambda: NeighborGallery(X, Y, 2).nearest(X, 5), r"k=5 is not in 1\.\.4"),
        (lambda: NeighborGallery(X, Y, 2).nearest(X, 1).votes(1, 0.0), "temperature=0.0"),
        (lambda: NeighborGallery(X, Y, 2).nearest(X, 2).votes(3), r"k=3 is not in 1\.\.2"),
        (lambda: NeighborGallery(X, Y.float(), 2), "dtype torch.float32 do not fit"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
