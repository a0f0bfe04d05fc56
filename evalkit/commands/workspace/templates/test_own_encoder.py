"""Checks of own_encoder: pytest test_own_encoder.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evalkit
from evalkit.canary.checks import examine

CKPT = "own_encoder:encoder"


@pytest.fixture(scope="module")
def encoder() -> Any:
    return evalkit.load_encoder(CKPT)


def pixels(encoder: Any, count: int) -> torch.Tensor:
    """Random clips, uint8 (N, T, C, H, W), as evalkit reads them."""
    shape = (count, encoder.clip.frames, 3, encoder.clip.size, encoder.clip.size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def clips(encoder: Any, count: int) -> torch.Tensor:
    """The same as the encoder gets them: float, normalized as its clip says."""
    normalized: torch.Tensor = encoder.clip.normalize(pixels(encoder, count))
    return normalized


@torch.inference_mode()
def test_tokens_and_pooled_have_their_shapes(encoder: Any) -> None:
    output = encoder(clips(encoder, 2))
    assert output.tokens.ndim == 4 and output.tokens.shape[0] == 2 and output.tokens.shape[-1] == encoder.dim
    assert output.pooled.shape == (2, getattr(encoder, "pooled_dim", encoder.dim))
    assert output.pooled.isfinite().all()


@torch.inference_mode()
def test_the_same_clip_has_the_same_features_alone_and_in_a_batch(encoder: Any) -> None:
    video = clips(encoder, 2)
    assert torch.equal(encoder(video).pooled, encoder(video).pooled), "is it in training mode?"
    torch.testing.assert_close(encoder(video[:1]).pooled, encoder(video).pooled[:1], rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_other_clips_have_other_features(encoder: Any) -> None:
    one, other = encoder(clips(encoder, 2)).pooled
    assert not torch.allclose(one, other)


def test_the_canary_finds_nothing_wrong(encoder: Any) -> None:
    findings = examine(encoder, pixels(encoder, 2), folder=Path())
    assert not [finding for finding in findings if finding.outcome == "failed"]


@torch.inference_mode()
def test_pooled_is_that_of_where_it_was_trained(encoder: Any) -> None:
    record = Path("canary.npz")
    if not record.is_file():
        pytest.skip("no canary.npz from where the network was trained: own_encoder.py says how to make it")
    with np.load(record, allow_pickle=False) as file:
        video, expected = torch.from_numpy(file["video"]), torch.from_numpy(file["pooled"])
    assert video.shape[0] == encoder.clip.frames and video.shape[1] == video.shape[2] == encoder.clip.size
    pooled = encoder(encoder.clip.normalize(video.permute(0, 3, 1, 2)[None])).pooled[0]
    torch.testing.assert_close(pooled.float(), expected, rtol=1e-2, atol=1e-3)
