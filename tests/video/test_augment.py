"""What an augmented view shows is drawn as the bounds say, and by the view's own numbers alone."""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.api import Augment
from evalkit.video.augment import AugmentedView, augmented_views, crop_box

FILM = Path("folder/film.mp4")
SHAPES = [(240, 320), (1080, 1920), (320, 240), (120, 360)]


def boxes(height: int, width: int, augment: Augment, count: int) -> Iterator[tuple[int, int, int, int]]:
    stream = random.Random(0)
    return (crop_box(height, width, augment, stream) for _ in range(count))


def restated(height: int, width: int, augment: Augment, count: int) -> tuple[Any, Any, Any]:
    """Shares and aspects of boxes that fit, and the share of draws that do not, all at once in floats."""
    draws = np.random.default_rng(1)
    shares = draws.uniform(*augment.area, count)
    aspects = np.exp2(draws.uniform(np.log2(augment.aspect[0]), np.log2(augment.aspect[1]), count))
    area = height * width * shares
    fits = (np.sqrt(area * aspects) < width + 0.5) & (np.sqrt(area / aspects) < height + 0.5)
    return shares[fits], aspects[fits], 1 - fits.mean()


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("augment", [Augment(), Augment(area=(0.08, 1.0), aspect=(3 / 4, 4 / 3))])
def test_areas_and_aspects_are_spread_as_an_independent_sampler_spreads_them(
    height: int, width: int, augment: Augment
) -> None:
    found = np.array([one[2:] for one in boxes(height, width, augment, 20_000)])
    shares, aspects, misses = restated(height, width, augment, 40_000)
    center = misses**10  # all ten draws miss
    assert center < 0.4
    if center > 0.01:
        fallen = (found == (height, round(height * augment.aspect[1]))).all(1)
        assert 0.9 * center < fallen.mean() < 1.1 * center + 0.02
        found = found[~fallen]
    for mine, theirs in (
        (found.prod(1) / (height * width), shares),
        (np.log(found[:, 1] / found[:, 0]), np.log(aspects)),
    ):
        assert abs(mine.mean() - theirs.mean()) < 0.02 * (1 + theirs.std())
        quantiles = [0.01, 0.1, 0.5, 0.9, 0.99]
        assert np.abs(np.quantile(mine, quantiles) - np.quantile(theirs, quantiles)).max() < 0.04


@pytest.mark.parametrize(("height", "width"), [*SHAPES, (1, 1), (7, 2)])
def test_a_box_lies_in_the_frame_and_reaches_all_of_it(height: int, width: int) -> None:
    top, left, tall, wide = np.array(list(boxes(height, width, Augment(), 4000))).T
    assert (top >= 0).all() and (left >= 0).all() and (tall > 0).all() and (wide > 0).all()
    assert (top + tall <= height).all() and (left + wide <= width).all()
    assert top.min() == left.min() == 0 and (top + tall).max() == height and (left + wide).max() == width
    room = width - wide
    if width > 100:  # evenly from left to right
        assert abs((left[room > 0] / room[room > 0]).mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(100, 1000, (0, 400, 100, 200)), (1000, 100, (400, 0, 200, 100)), (100, 150, (0, 0, 100, 150))],
)
def test_where_no_box_fits_it_is_the_largest_at_the_center_with_an_aspect_that_is_allowed(
    height: int, width: int, expected: tuple[int, ...]
) -> None:
    class Never(random.Random):
        """Numbers that ask for a box that is too wide, then for one that is too tall."""

        def random(self) -> float:
            self.turn = not getattr(self, "turn", False)
            return 1.0 if self.turn else 1 - 1e-9

    augment = Augment(area=(1.0, 1.0), aspect=(0.5, 2.0))
    assert crop_box(height, width, augment, Never()) == expected


def test_every_box_of_one_area_and_aspect_is_that_box() -> None:
    for top, left, tall, wide in boxes(200, 200, Augment(area=(0.25, 0.25), aspect=(1.0, 1.0)), 100):
        assert (tall, wide) == (100, 100) and 0 <= top <= 100 and 0 <= left <= 100


def test_a_stream_is_known_by_part_view_name_span_and_seed_and_by_nothing_else() -> None:
    look = augmented_views(Augment(), 0)[0]

    def numbers(
        look: AugmentedView = look, part: Any = "crop", video: Path = FILM, span: Any = (0.0, 2.0)
    ) -> tuple[float, ...]:
        stream = look.stream(part, video, span)
        return stream.random(), stream.random()

    same = [
        numbers(),
        numbers(video=Path("elsewhere/film.mp4")),
        numbers(span=(0, 2)),
        numbers(augmented_views(Augment(views=3), 0)[0]),
        numbers(look._replace(augment=Augment(flip=False))),
    ]
    others = [
        numbers(part="flip"),
        numbers(part="time"),
        numbers(video=Path("folder/other.mp4")),
        numbers(span=None),
        numbers(span=(0.0, 2.5)),
        numbers(look._replace(number=1)),
        numbers(look._replace(seed=1)),
    ]
    assert len(set(same)) == 1 and len({same[0], *others}) == 1 + len(others)


def test_the_numbers_stay_the_same_from_release_to_release() -> None:
    """Stored views would be mixed with others where this changes."""
    stream = augmented_views(Augment(), 7)[0].stream("crop", FILM, None)
    assert [stream.random() for _ in range(2)] == pytest.approx([0.5729544339617736, 0.08468521193663991], abs=1e-15)


def test_the_words_for_a_view_change_with_all_that_it_is_drawn_by() -> None:
    changes = [{"area": (0.4, 1.0)}, {"aspect": (0.6, 2.0)}, {"flip": False}, {"time": False}]
    changes += [{"randaugment": (9.0, 0.5)}, {"randaugment": (9.0, 0.4)}]
    several = [augmented_views(Augment(**change), 0)[0].of(FILM, None) for change in [{}, *changes]]  # type: ignore[arg-type]
    several += [augmented_views(Augment(views=2), 0)[1].of(FILM, None), augmented_views(Augment(), 1)[0].of(FILM, None)]
    assert len(set(several)) == len(several)


def test_more_views_begin_with_the_same_ones() -> None:
    assert augmented_views(Augment(views=5), 3)[:2] == augmented_views(Augment(views=2), 3)
    assert [look.number for look in augmented_views(Augment(views=5), 3)] == list(range(5))


@pytest.mark.parametrize(
    "wrong",
    [{"views": 0}, {"area": (0.0, 1.0)}, {"area": (0.5, 0.4)}, {"area": (0.5, 1.1)}, {"aspect": (0.0, 1.0)}]
    + [{"aspect": (2.0, 1.0)}, {"area": (math.nan, 1.0)}, {"randaugment": (11, 0)}, {"randaugment": (9, -1)}],
)
def test_bounds_that_are_none_are_told(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name}="):
        Augment(**wrong)
