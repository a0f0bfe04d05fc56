"""Tubes of several sizes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evalkit.encoders.longvivit import Tube
from evalkit.errors import UserError
from tests.encoders.test_longvivit import tiny

TUBES: list[dict[str, Any]] = [
    {"kernel": (4, 8, 8), "stride": (4, 16, 16)},
    {"kernel": (6, 4, 4), "stride": (2, 16, 16), "offset": (0, 8, 8)},
    {"kernel": (2, 12, 12), "stride": (4, 16, 16), "offset": (1, 3, 5)},
    {"kernel": (1, 16, 16), "stride": (8, 16, 16)},
]


def test_tubes_equal_a_convolution_each_and_lie_one_kernel_after_the_other() -> None:
    model = tiny(tubes=TUBES)
    seen: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    video = torch.randn(2, 8, 3, 32, 32)
    encoded = model(video)
    expected = []
    for tube, patch in zip(TUBES, model.patch, strict=True):
        conv = nn.Conv3d(3, 24, tube["kernel"], tube["stride"])
        conv.weight.data, conv.bias.data = patch.weight.data.view(24, 3, *tube["kernel"]), patch.bias.data  # type: ignore[union-attr]
        t, h, w = tube.get("offset", (0, 0, 0))
        boxes = conv(video[:, t:, :, h:, w:].transpose(1, 2))
        for i, j, k in ((i, j, k) for i, j, k in torch.cartesian_prod(*map(torch.arange, boxes.shape[2:])).tolist()):
            position = []
            for n, step, kernel, start in zip((i, j, k), tube["stride"], tube["kernel"], (t, h, w), strict=True):
                center = start + n * step + kernel / 2
                angles = [center / 10000 ** (m / 4) for m in range(4)]
                position += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            expected.append(boxes[:, :, i, j, k] + torch.tensor(position))
    assert torch.allclose(seen[0], torch.stack(expected, 1), atol=1e-5)
    assert len(expected) == 8 + 8 + 4 + 4
    assert encoded.tokens.shape == (2, 1, 24, 24) and encoded.pooled.shape == (2, 24)


def test_tubevits_own_tubes_give_its_number_of_tokens() -> None:
    """98 + 147 + 98 + 196; the paper prints 559, which none of its four kernels' counts explain."""
    paper = [
        Tube((8, 8, 8), (16, 32, 32)),
        Tube((16, 4, 4), (6, 32, 32), (4, 8, 8)),
        Tube((4, 12, 12), (16, 32, 32), (0, 16, 16)),
        Tube((1, 16, 16), (32, 16, 16)),
    ]
    video = torch.empty(1, 32, 3, 224, 224, device="meta")
    assert [tube.cut(video).shape[1:4].numel() for tube in paper] == [98, 147, 98, 196]


def test_tubes_take_short_videos_images_masks_and_other_sizes() -> None:
    model = tiny(tubes=TUBES, image_path=True)
    video = torch.randn(1, 4, 3, 32, 32)
    held = torch.cat([video, video[:, -1:], video[:, -1:]], 1)
    assert torch.equal(model(video).tokens, model(held).tokens)
    assert model(video[:, :1]).tokens.shape == (1, 1, 4, 24)  # by the images' own path
    assert model(torch.randn(1, 8, 3, 32, 32), mask_ratio=0.75).tokens.shape == (1, 1, 2 + 2 + 1 + 1, 24)
    assert model(torch.randn(1, 256, 3, 40, 56)).tokens.isfinite().all()
    with pytest.raises(ValueError, match="wanted .* H at least 16 and W at least 17"):
        model(torch.randn(1, 8, 3, 16, 16))


def test_a_width_that_six_does_not_divide_leaves_the_last_positions_empty() -> None:
    waves = Tube((1, 2, 2), (1, 2, 2)).waves((2, 3, 4), 16, torch.zeros(1))
    assert waves.shape == (2, 3, 4, 16) and not waves[..., 12:].any() and waves[..., :12].all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "both"}, "attention=both: wanted joint or frame or factorized"),
        ({"pooling": "max"}, "pooling=max: wanted mean or attention"),
        ({"attention": "frame", "tubes": TUBES}, "attention=frame needs one grid of tokens"),
        (
            {"tubes": [{"kernel": (1, 9, 9), "stride": (1, 9, 9), "offset": (0, 0, 24)}]},
            "clip.size=32 does not hold every tube once; it takes 33 pixels",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**settings)
