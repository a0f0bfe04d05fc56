"""Features that are stored, and those of augmented views."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evalkit.api import Augment, Clip, FeatureSpec, Views
from evalkit.features import extract
from evalkit.features.feature_cache import FeatureCache, SourceFeatures
from evalkit.features.key import FeatureKey, Identity
from evalkit.features.sources import Source
from evalkit.features.store import Store
from evalkit.video.augment import augmented_views
from evalkit.video.clips import Request
from tests.features import fake_clips
from tests.features.fake_clips import VARIANTS, as_they_are, extractor, pixels, wanted

asked = fake_clips.asked


# --- the store -------------------------------------------------------------------------------------------------------


@pytest.fixture
def feature_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureCache:
    """A shelf for the made-up videos of these tests, which are files of their own names."""
    monkeypatch.chdir(tmp_path)
    for name in "abcde":
        Path(name).write_bytes(name.encode() * 100)
    views = Views(frames=2, size=8, resize="crop")
    empty = Identity(0, "")
    key = FeatureKey(empty, None, views, Clip(), "decoder 1", "0" * 64, "1" * 64, FeatureSpec(), "32 on cpu")
    return FeatureCache(Store(tmp_path / "store"), key)


def told(found: Sequence[SourceFeatures]) -> list[Any]:
    return [(one.source, one.failure, one.decoder, {k: v.tolist() for k, v in one.features.items()}) for one in found]


def test_what_is_stored_is_neither_decoded_nor_encoded_again(feature_cache: FeatureCache) -> None:
    one = extractor(batch=4)
    names = ["a", "bad", "b", "c"]
    first = list(one.encode(wanted(*names), as_they_are, "test", VARIANTS, feature_cache))
    assert (one.cost.cache_hits, one.cost.cache_misses) == (0, 4) and one.cost.encoder_forwards == 3 * len(VARIANTS)
    for again in (feature_cache, FeatureCache(Store(feature_cache.store.folder), feature_cache.key)):
        two = extractor(batch=4)
        second = list(two.encode(wanted(*names), as_they_are, "test", VARIANTS, again))
        assert told(second) == told(first)
        assert (two.cost.cache_hits, two.cost.cache_misses, two.cost.encoder_forwards) == (3, 1, 0)


def test_order_is_kept_where_some_is_stored_and_some_is_not(feature_cache: FeatureCache) -> None:
    list(extractor().encode(wanted("b", "d"), as_they_are, "test", VARIANTS, feature_cache))
    for batch in (1, 3, 64):
        found = list(extractor(batch).encode(wanted(*"abcde"), as_they_are, "test", VARIANTS, None))
        mixed = list(extractor(batch).encode(wanted(*"abcde"), as_they_are, "test", VARIANTS, feature_cache))
        assert told(mixed) == told(found)


def test_a_variant_that_is_missing_and_bytes_that_are_damaged_are_encoded_anew(feature_cache: FeatureCache) -> None:
    list(extractor().encode(wanted("a", "b"), as_they_are, "test", {"": extract.unchanged}, feature_cache))
    one = extractor()
    list(one.encode(wanted("a"), as_they_are, "test", VARIANTS, feature_cache))
    assert one.cost.cache_misses == 1
    whole = told(
        list(extractor().encode(wanted("a", "b"), as_they_are, "test", {"": extract.unchanged}, feature_cache))
    )
    (data,) = feature_cache.store.folder.glob("*.data")
    torn = bytearray(data.read_bytes())
    torn[200::64] = bytes(len(torn[200::64]))
    data.write_bytes(bytes(torn))
    two = extractor()
    fresh = FeatureCache(Store(feature_cache.store.folder), feature_cache.key)
    assert told(list(two.encode(wanted("a", "b"), as_they_are, "test", {"": extract.unchanged}, fresh))) == whole
    assert two.cost.cache_misses > 0


def test_other_bytes_under_the_same_path_are_another_video_and_a_moved_one_is_the_same(
    feature_cache: FeatureCache,
) -> None:
    def misses(name: str) -> int:
        one = extractor()
        list(one.encode(wanted(name), as_they_are, "test", {"": extract.unchanged}, feature_cache))
        return one.cost.cache_misses

    assert misses("a") == 1 and misses("a") == 0
    Path("a").write_bytes(b"other" * 20)
    assert misses("a") == 1
    Path("moved").mkdir()
    assert misses("b") == 1
    Path("b").rename("moved/b")
    assert misses("moved/b") == 0


def test_damaged_entries_of_a_window_are_read_by_one_pool(
    feature_cache: FeatureCache, asked: list[list[Request]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list("abcde")
    whole = told(list(extractor().encode(wanted(*names), as_they_are, "test", VARIANTS, feature_cache)))
    monkeypatch.setattr(Store, "find", lambda self, keys: {})
    asked.clear()
    one = extractor()
    assert told(list(one.encode(wanted(*names), as_they_are, "test", VARIANTS, feature_cache))) == whole
    assert [[request.video.name for request in pool] for pool in asked] == [names]
    assert (one.cost.cache_hits, one.cost.cache_misses) == (0, 5)


def test_the_int8_layout_gives_the_same_the_first_time_and_later(feature_cache: FeatureCache) -> None:
    small = FeatureCache(feature_cache.store, replace(feature_cache.key, feature_spec=FeatureSpec(dtype="int8")))
    each = [told(list(extractor().encode(wanted("a"), halved, "test", VARIANTS, small))) for _ in range(2)]
    assert each[0] == each[1]
    (plain,) = extractor().encode(wanted("a"), halved, "test", VARIANTS, None)
    for name, exact in plain.features.items():
        rough = torch.tensor(each[0][0][3][name])
        error = (rough - exact).abs().amax(-1)
        assert error.max() > 0 and (error <= exact.abs().amax(-1) / 254 * (1 + 1e-5)).all()


def halved(clips: Tensor) -> Tensor:
    return clips.flatten(1, -2).float() / 2 - 17.3


# --- augmented views -------------------------------------------------------------------------------------------------


def seen(names: str, views: int, seed: int = 0, **bounds: Any) -> list[Source]:
    """All augmented views of each of these."""
    several = augmented_views(Augment(views=views, **bounds), seed)
    return [source._replace(look=look) for source in wanted(*names) for look in several]


PLAIN = {"": extract.unchanged}


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_the_views_of_a_video_are_read_together_and_encoded_one_by_one(batch: int, asked: list[list[Request]]) -> None:
    found = list(extractor(batch, clips=4, crops=3).encode(seen("ab", 3), as_they_are, "test", PLAIN))
    assert [[len(request.looks) for request in pool] for pool in asked] == [[3, 3]]
    for one in found:
        assert one.source.look
        assert torch.equal(one.features[""], pixels(f"{one.source.video.name}{one.source.look.number}0").float())
    assert [one.source for one in found] == seen("ab", 3)


def test_where_a_video_is_broken_each_of_its_views_is(asked: list[list[Request]]) -> None:
    sources = [source._replace(video=Path("bad")) for source in seen("a", 2)] + seen("b", 2)
    assert [one.failure for one in extractor().encode(sources, as_they_are, "test", PLAIN)] == ["bad is broken"] * 2 + [
        None,
        None,
    ]


def test_more_views_use_those_that_are_stored(feature_cache: FeatureCache, asked: list[list[Request]]) -> None:
    list(extractor().encode(seen("ab", 2), as_they_are, "test", PLAIN, feature_cache))
    asked.clear()
    one = extractor()
    found = list(one.encode(seen("ab", 4), as_they_are, "test", PLAIN, feature_cache))
    assert (one.cost.cache_hits, one.cost.cache_misses, one.cost.encoder_forwards) == (4, 4, 4)
    assert [[look.number for look in request.looks] for pool in asked for request in pool] == [[2, 3], [2, 3]]
    assert told(found) == told(list(extractor().encode(seen("ab", 4), as_they_are, "test", PLAIN)))


def test_a_view_by_another_seed_or_within_other_bounds_and_a_plain_one_are_not_the_same(
    feature_cache: FeatureCache,
) -> None:
    def misses(sources: list[Source], feature_cache: FeatureCache = feature_cache, **views: Any) -> int:
        one = extractor(**views)
        list(one.encode(sources, as_they_are, "test", PLAIN, feature_cache))
        return one.cost.cache_misses

    assert misses(seen("a", 2)) == 2 and misses(seen("a", 2)) == 0
    for other in (seen("a", 2, seed=1), seen("a", 2, flip=False), seen("a", 2, area=(0.5, 1.0)), seen("b", 2)):
        assert misses(other) == 2
    assert misses(wanted("a")) == 1
    # The views of the test are not those of an augmented clip; its frames are.
    assert (
        misses(
            seen("a", 2),
            FeatureCache(
                feature_cache.store, replace(feature_cache.key, views=replace(feature_cache.key.views, crops=3))
            ),
        )
        == 0
    )
    assert (
        misses(
            seen("a", 2),
            FeatureCache(
                feature_cache.store, replace(feature_cache.key, views=replace(feature_cache.key.views, stride=2))
            ),
        )
        == 2
    )
