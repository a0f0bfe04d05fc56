"""The encoder at work: batches, memory, precision, and what a run is told of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, FeatureSpec
from evalkit.errors import UserError
from evalkit.features.forward import EncoderRunner


class Hungry(nn.Module):
    """Takes at most `most` clips; remembers the sizes of the batches that it was given."""

    def __init__(self, most: int, words: str = "") -> None:
        super().__init__()
        self.clip, self.dim, self.most, self.words = Clip(frames=2, size=4), 3, most, words
        self.sizes: list[int] = []
        self.map = nn.Linear(3, 3)

    def forward(self, video: Tensor, layers: int = 1) -> EncoderOutput:
        self.sizes.append(len(video))
        if len(video) > self.most:
            raise RuntimeError(self.words) if self.words else torch.OutOfMemoryError("CUDA out of memory")
        tokens = self.map(video.mean((-2, -1)))[:, :, None]
        return EncoderOutput(tokens, tokens.mean((1, 2)), (tokens,) * layers)


def forward(module: Hungry, batch: int = 8, auto_batch: bool = True, precision: Any = "32") -> EncoderRunner:
    return EncoderRunner(module, "0" * 64, torch.device("cpu"), batch, auto_batch, precision)


PIXELS = torch.randint(0, 256, (11, 2, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


pooled = FeatureSpec("pooled")


@pytest.mark.parametrize(
    "words", ["", "DefaultCPUAllocator: can't allocate memory: you tried", "MPS backend out of memory"]
)
def test_a_batch_that_does_not_fit_is_halved_for_good_and_nothing_is_lost(words: str) -> None:
    module = Hungry(3, words)
    one = forward(module)
    found = one(PIXELS, pooled)
    assert module.sizes == [6, 4, 2, 2, 2, 2, 2, 1]
    torch.testing.assert_close(found, forward(module, batch=1)(PIXELS, pooled))
    module.sizes.clear()
    one(PIXELS[:4], pooled)
    assert module.sizes == [2, 2]


@pytest.mark.parametrize(("batch", "sizes"), [(11, [11]), (10, [6, 5]), (5, [4, 4, 3])])
def test_passes_are_of_equal_size_so_that_none_is_short(batch: int, sizes: list[int]) -> None:
    module = Hungry(11)
    forward(module, batch)(PIXELS, pooled)
    assert module.sizes == sizes


def test_a_batch_that_the_user_chose_is_not_changed() -> None:
    with pytest.raises(UserError, match=r"does not suffice for 6 clips of \(2, 3, 4, 4\) at once: batch=auto, or a sm"):
        forward(Hungry(3), auto_batch=False)(PIXELS, pooled)


def test_a_single_clip_that_does_not_fit_says_what_to_make_smaller() -> None:
    with pytest.raises(UserError, match=r"1 clip .* at once: a smaller clip.frames= or clip.size="):
        forward(Hungry(0))(PIXELS, pooled)


def test_another_failure_of_the_encoder_is_not_taken_for_lack_of_memory() -> None:
    with pytest.raises(UserError, match=r"failed on clips of shape \(6, 2, 3, 4, 4\) .*: RuntimeError: mat1 and mat2"):
        forward(Hungry(0, "mat1 and mat2 shapes cannot be multiplied"))(PIXELS, pooled)


@pytest.mark.parametrize("kind", [ValueError, AssertionError, IndexError])
def test_a_shape_that_the_encoder_refuses_is_told_in_one_line(kind: type[Exception]) -> None:
    class Picky(Hungry):
        def forward(self, video: Tensor, layers: int = 1) -> EncoderOutput:
            raise kind("wanted 16\nframes")

    told = rf"failed on clips of shape \(6, 2, 3, 4, 4\) \(B, T, C, H, W\): {kind.__name__}: wanted 16 frames$"
    with pytest.raises(UserError, match=told):
        forward(Picky(99))(PIXELS, pooled)


def test_half_precision_gives_floats_near_those_of_full_precision() -> None:
    module = Hungry(99)
    full, half = (forward(module, precision=word)(PIXELS, pooled) for word in ("32", "bf16"))
    assert half.dtype == torch.float32 and not torch.equal(full, half)
    torch.testing.assert_close(half, full, atol=0.02, rtol=0)


def test_layers_are_asked_for_only_where_more_than_one_is_wanted() -> None:
    one = forward(Hungry(99))
    assert one(PIXELS, FeatureSpec("tokens", layers=3)).shape == (11, 3, 2, 1, 3)


def test_an_encoder_that_gives_one_layer_only_is_told_in_one_line() -> None:
    class Last(Hungry):
        def forward(self, video: Tensor) -> EncoderOutput:  # type: ignore[override]
            return super().forward(video)

    one = forward(Last(99))
    assert len(one(PIXELS, pooled)) == 11
    with pytest.raises(UserError, match="reads the encoder's last 3 layers, and this encoder takes no layers="):
        one(PIXELS, FeatureSpec("tokens", layers=3))


def test_what_is_kept_can_be_trained_on() -> None:
    features = forward(Hungry(99))(PIXELS, pooled)
    nn.Linear(3, 1)(features).sum().backward()
    assert not features.is_inference()
