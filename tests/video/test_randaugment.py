"""Every operation is Pillow's, on the frames of a clip laid under one another; which is done is drawn as it says."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from evalkit.api import Augment, Views
from evalkit.video import randaugment
from evalkit.video.augment import augmented_views
from evalkit.video.clips import Decoded, read_clip
from evalkit.video.randaugment import OPERATIONS, rand_augment

T, H, W = 4, 30, 44
Pillow = Callable[[Image.Image], Image.Image]
AFFINE = Image.Transform.AFFINE
GRAY = (128, 128, 128)


def clip(seed: int = 0, low: int = 20, high: int = 230) -> Tensor:
    """Noise over a slope, each channel and frame another."""
    draw = np.random.default_rng(seed)
    slope = np.linspace(low, high, T * 3 * H * W).reshape(H, W, T, 3).transpose(2, 3, 0, 1)
    return torch.from_numpy((slope + draw.uniform(-15, 15, slope.shape)).astype(np.uint8))


def tall(video: Tensor) -> Image.Image:
    """Its frames under one another, so that what is measured of the image is measured of the clip."""
    return Image.fromarray(video.permute(0, 2, 3, 1).reshape(-1, video.shape[-1], 3).numpy())


def by_pillow(video: Tensor, change: Pillow, together: bool) -> Tensor:
    images = [tall(video)] if together else [tall(frame[None]) for frame in video]
    rows = np.concatenate([np.asarray(change(image)) for image in images])
    return torch.from_numpy(rows).view(len(video), -1, video.shape[-1], 3).permute(0, 3, 1, 2)


class Fixed(random.Random):
    """Numbers as they were given, and then the last for ever."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0) if len(self.numbers) > 1 else self.numbers[0]


def done(name: str, video: Tensor, strength: float, first: float = 0.0) -> Tensor:
    given = video.clone()
    found = OPERATIONS[name](video, strength, Fixed(first))
    assert torch.equal(video, given) and found.shape == video.shape and found.dtype == torch.uint8
    return found


def solarize_add(addition: int) -> Pillow:
    return lambda image: image.point([min(255, v + addition) if v < 128 else v for v in range(256)] * 3)


@pytest.mark.parametrize("strength", [0.9, 0.37])
@pytest.mark.parametrize("video", [clip(), clip(1, 90, 120), clip() // 200 * 200], ids=["wide", "narrow", "two"])
def test_operations_on_values_are_pillows_to_rounding(video: Tensor, strength: float) -> None:
    factor = 0.1 + 1.8 * strength
    changes: dict[str, tuple[Pillow, bool, int]] = {
        "auto_contrast": (ImageOps.autocontrast, True, 0),
        "equalize": (ImageOps.equalize, True, 0),
        "invert": (ImageOps.invert, True, 0),
        "posterize": (lambda image: ImageOps.posterize(image, int(strength * 4)), True, 0),
        "solarize": (lambda image: ImageOps.solarize(image, int(strength * 256)), True, 0),
        "solarize_add": (solarize_add(int(strength * 110)), True, 0),
        "color": (lambda image: ImageEnhance.Color(image).enhance(factor), True, 1),
        "contrast": (lambda image: ImageEnhance.Contrast(image).enhance(factor), True, 1),
        "brightness": (lambda image: ImageEnhance.Brightness(image).enhance(factor), True, 1),
        "sharpness": (lambda image: ImageEnhance.Sharpness(image).enhance(factor), False, 1),
        "none": (lambda image: image, True, 0),
    }
    for name, (change, together, off) in changes.items():
        wanted = by_pillow(video, change, together)
        assert (done(name, video, strength).int() - wanted.int()).abs().max() <= off, name


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("strength", [0.9, 0.33])
def test_operations_on_places_are_pillows_but_where_a_pixel_lies_between_two(strength: float, sign: int) -> None:
    video, s = clip(), sign * strength
    changes: dict[str, Pillow] = {
        "rotate": lambda image: image.rotate(30 * s, fillcolor=GRAY),
        "shear_x": lambda image: image.transform(image.size, AFFINE, (1, 0.3 * s, 0, 0, 1, 0), fillcolor=GRAY),
        "shear_y": lambda image: image.transform(image.size, AFFINE, (1, 0, 0, 0.3 * s, 1, 0), fillcolor=GRAY),
        "translate_x": lambda image: image.transform(image.size, AFFINE, (1, 0, 10 * s, 0, 1, 0), fillcolor=GRAY),
        "translate_y": lambda image: image.transform(image.size, AFFINE, (1, 0, 0, 0, 1, 10 * s), fillcolor=GRAY),
    }
    for name, change in changes.items():
        found, wanted = done(name, video, strength, 0.0 if sign > 0 else 0.5), by_pillow(video, change, False)
        assert (found != wanted).any(1).double().mean() < 0.002, name
        assert (found != video).any(1).double().mean() > 0.2, name


def test_a_cutout_is_a_gray_box_in_space_and_time() -> None:
    video, sides = torch.zeros(16, 3, 20, 32, dtype=torch.uint8), []
    stream = random.Random(0)
    for _ in range(200):
        gray = OPERATIONS["cutout"](video, 0.9, stream) == 128
        spans = [gray.any(dim).nonzero() for dim in ((1, 2, 3), (0, 1, 3), (0, 1, 2))]
        box = [int(span.max() - span.min()) + 1 for span in spans]
        assert gray.sum() == 3 * math.prod(box)
        sides.append(box)
    # To each side less than a quarter of the frames and half a side, and cut off at the edges.
    assert np.max(sides, 0).tolist() == [6, 18, 30] and np.min(sides, 0).tolist() == [1, 5, 8]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Operations by name and strength, written down in place of being done."""
    found: list[tuple[str, float]] = []

    def recorded(name: str) -> randaugment.Operation:
        def record(video: Tensor, strength: float, stream: random.Random) -> Tensor:
            found.append((name, strength))
            return video

        return record

    monkeypatch.setattr(randaugment, "OPERATIONS", {name: recorded(name) for name in OPERATIONS})
    return found


def test_operations_and_strengths_are_drawn_as_it_says(drawn: list[tuple[str, float]]) -> None:
    stream, video = random.Random(0), clip()
    for _ in range(8500):
        rand_augment(video, 8.0, 0.5, stream)
    names, strengths = zip(*drawn, strict=True)
    assert len(drawn) == 17_000
    counts = [names.count(name) for name in OPERATIONS]
    assert len(counts) == 17 and 880 < min(counts) <= max(counts) < 1120  # a thousand each, standard deviation 31
    assert np.mean(strengths) == pytest.approx(0.8, abs=0.002) and np.std(strengths) == pytest.approx(0.05, abs=0.002)
    quantiles = np.quantile(strengths, [0.0228, 0.1587, 0.5, 0.8413])
    assert quantiles == pytest.approx([0.7, 0.75, 0.8, 0.85], abs=0.005)
    drawn.clear()
    for deviation in (0.0, 50.0):
        rand_augment(video, 9.0, deviation, stream)
    assert [strength for _, strength in drawn[:2]] == [0.9, 0.9]
    assert {strength for _, strength in drawn[2:]} <= {0.0, 1.0}


def test_frames_that_are_alike_stay_alike_whatever_is_done() -> None:
    video = clip()[:1].expand(6, -1, -1, -1)
    for name in OPERATIONS.keys() - {"cutout"}:
        found = done(name, video, 0.9)
        assert torch.equal(found, found[:1].expand_as(found)), name


def test_a_frame_of_any_size_and_of_one_color_is_taken() -> None:
    for shape in ((1, 3, 1, 1), (1, 3, 2, 2), (3, 3, 3, 1)):
        for name in OPERATIONS:
            done(name, torch.full(shape, 77, dtype=torch.uint8), 0.9)


def test_the_same_numbers_give_the_same_clip() -> None:
    one, same, other = (rand_augment(clip(), 9, 0.5, random.Random(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_what_is_drawn_stays_the_same_from_release_to_release(drawn: list[tuple[str, float]]) -> None:
    """Stored views would be mixed with others where this changes."""
    for seed in range(3):
        rand_augment(clip(), 9, 0.5, random.Random(seed))
    names, strengths = zip(*drawn, strict=True)
    assert names == ("cutout", "posterize", "invert", "posterize", "none", "equalize")
    assert strengths == pytest.approx([0.826051499, 0.850528689, 0.908381063, 0.844437171, 1.0, 0.891636668], abs=1e-9)


def test_a_training_view_is_the_drawn_part_of_the_video_with_the_operations_done_to_it(films: Path) -> None:
    film = films / "00.mp4"
    views, strong = augmented_views(Augment(views=4), 3), augmented_views(Augment(views=4, randaugment=(9, 0.5)), 3)
    plain, changed = (read_clip(film, None, Views("dense"), 4, 32, some) for some in (views, strong))
    assert isinstance(plain, Decoded) and isinstance(changed, Decoded) and plain.times == changed.times
    for look, before, after in zip(strong, plain.pixels, changed.pixels, strict=True):
        assert torch.equal(after, rand_augment(before, 9, 0.5, look.stream("operations", film, None)))
    assert not torch.equal(plain.pixels, changed.pixels)
