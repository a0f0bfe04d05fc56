"""Losses and decoders of masked video modeling against plain numpy, gradients against finite differences."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.pretraining.decoders import GlobalDecoder, LocalDecoder, sinusoids
from evalkit.pretraining.losses import cosine_distance, patches, pixel_error

Array = NDArray[np.float64]
GRID = (2, 2, 3)


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def numpy_cosine_distance(predicted: Array, target: Array) -> float:
    pairs = zip(predicted.reshape(-1, 5), target.reshape(-1, 5), strict=True)
    return float(np.mean([1 - a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for a, b in pairs]))


def numpy_pixel_error(predicted: Array, pixels: Array, masked: NDArray[np.bool_]) -> float:
    total = []
    for b, n in zip(*np.nonzero(masked), strict=True):
        values = pixels[b, n]
        total.append(np.mean((predicted[b, n] - (values - values.mean()) / np.sqrt(values.var() + 1e-6)) ** 2))
    return float(np.mean(total))


def finite_differences(of: Callable[[Array], float], at: Array, step: float = 1e-6) -> Array:
    gradient = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        moved = [at.copy(), at.copy()]
        moved[0][i] += step
        moved[1][i] -= step
        gradient[i] = (of(moved[0]) - of(moved[1])) / (2 * step)
    return gradient


def test_the_cosine_distance_and_its_gradient_are_those_of_numpy() -> None:
    predicted, target = draw(2, 3, 5), draw(2, 3, 5, seed=1)
    leaf = torch.tensor(predicted, requires_grad=True)
    loss = cosine_distance(leaf, torch.tensor(target))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(numpy_cosine_distance(predicted, target), abs=1e-12)
    assert leaf.grad is not None
    wanted = finite_differences(lambda x: numpy_cosine_distance(x, target), predicted)
    np.testing.assert_allclose(leaf.grad.numpy(), wanted, atol=1e-8)


def test_the_error_of_pixels_and_its_gradient_are_those_of_numpy() -> None:
    predicted, pixels = draw(2, 4, 6), draw(2, 4, 6, seed=1)
    masked = np.array([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=bool)
    leaf = torch.tensor(predicted, requires_grad=True)
    loss = pixel_error(leaf, torch.tensor(pixels), torch.tensor(masked))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(numpy_pixel_error(predicted, pixels, masked), abs=1e-12)
    assert leaf.grad is not None
    wanted = finite_differences(lambda x: numpy_pixel_error(x, pixels, masked), predicted)
    np.testing.assert_allclose(leaf.grad.numpy(), wanted, atol=1e-8)


def test_patches_are_the_pixels_of_each_token_the_last_frame_repeated() -> None:
    video = torch.randn(1, 3, 3, 4, 6)
    found = patches(video, (2, 2, 2)).view(1, 2, 2, 3, -1)
    assert torch.equal(found[0, 0, 1, 2], video[0, :2, :, 2:4, 4:6].permute(0, 2, 3, 1).flatten())
    assert torch.equal(found[0, 1, 0, 0], video[0, [2, 2], :, :2, :2].permute(0, 2, 3, 1).flatten())


# --- decoders --------------------------------------------------------------------------------------------------------


def numpy_input(
    decoder: LocalDecoder, visible: Array, masked: NDArray[np.bool_], order: NDArray[np.int64] | None
) -> Array:
    """What goes into the first layer, token by token."""
    weights = {name: value.detach().numpy() for name, value in decoder.named_parameters()}
    positions = sinusoids(GRID, 12).numpy()
    rows = np.zeros((*masked.shape, 12))
    for b in range(len(masked)):
        tokens, k = [], 0
        for n in range(masked.shape[1]):
            if masked[b, n]:
                tokens.append(weights["mask_token"])
            else:
                tokens.append(weights["embed.weight"] @ visible[b, k] + weights["embed.bias"])
                k += 1
        for n in range(masked.shape[1]):
            rows[b, n] = tokens[n if order is None else order[b, n]] + positions[n]
    return rows


@pytest.mark.parametrize("shuffled", [False, True])
def test_tokens_are_filled_in_shuffled_and_then_get_positions(shuffled: bool) -> None:
    torch.manual_seed(0)
    decoder = LocalDecoder(4, 5, width=12, depth=1).double()
    masked = np.array([[1, 0, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1], [0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1]], dtype=bool)
    visible = draw(2, 4, 4)
    order = np.stack([np.random.default_rng(b).permutation(12) for b in range(2)]) if shuffled else None
    seen: list[Tensor] = []
    decoder.layers[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    arguments = torch.tensor(visible), torch.tensor(masked), GRID, None if order is None else torch.tensor(order)
    assert decoder(*arguments).shape == (2, 12, 5)
    np.testing.assert_allclose(seen[0].detach().numpy(), numpy_input(decoder, visible, masked, order), atol=1e-12)


def test_gradients_of_both_decoders_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    local, whole = LocalDecoder(2, 5, width=6, depth=1).double(), GlobalDecoder(2, 5, width=6, depth=1).double()
    masked, order = torch.arange(12)[None] % 4 > 0, torch.randperm(12)[None]
    target = torch.tensor(draw(1, 12, 5))

    def loss(visible: Tensor) -> Tensor:
        return cosine_distance(local(visible, masked, GRID, order), target) + cosine_distance(
            whole(visible), target[:, 0]
        )

    visible = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)
    loss(visible).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        wanted = finite_differences(lambda x: loss(torch.tensor(x)).item(), visible.detach().numpy())
    assert visible.grad is not None and local.mask_token.grad is not None and bool(local.mask_token.grad.any())
    np.testing.assert_allclose(visible.grad.numpy(), wanted, atol=1e-7)


def test_the_global_decoder_knows_no_positions() -> None:
    torch.manual_seed(0)
    decoder, visible = GlobalDecoder(4, 5, width=12, depth=2).double().eval(), torch.randn(2, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(decoder(visible), decoder(visible.flip(1)))


def test_positions_tell_every_token_of_a_grid_from_every_other() -> None:
    positions = sinusoids((3, 4, 5), 40)
    assert positions.shape == (60, 40) and len(set(map(tuple, positions.tolist()))) == 60
    assert not positions[:, 36:].any()
    assert sinusoids((1, 1, 1), 4).shape == (1, 4)
