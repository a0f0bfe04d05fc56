"""Clips become features once, in order, whatever the batch; variants are of the same pixels; costs are counted."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evalkit import encoders
from evalkit.api import Augment, Clip, Example, FeatureSpec, Views
from evalkit.errors import UserError
from evalkit.features import extract
from evalkit.features.extract import Cost, FeatureCache, FeatureExtractor, Source, SourceFeatures
from evalkit.features.key import FeatureKey, Identity
from evalkit.features.store import Store
from evalkit.pipeline import controls
from evalkit.video.augment import augmented_views
from evalkit.video.clips import Decoded, Failure, Request
from evalkit.video.workers import DecodePool

VARIANTS = {"": extract.unchanged, "shuffled": controls.shuffled, "single_frame": controls.single_frame}


def pixels(name: str, views: int = 1, frames: int = 4) -> Tensor:
    """The clips (V, T, 3, 32, 32) that this video has in these tests; each name has its own."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    return torch.randint(0, 256, (views, frames, 3, 32, 32), generator=generator, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Request]]:
    """Clips by name in place of decoding; a name with `bad` in it fails, one with `other` took another decoder.

    Gives what each pool of workers was asked for.
    """
    pools: list[list[Request]] = []

    def read(self: DecodePool, requests: Sequence[Request]) -> Iterator[Decoded | Failure]:
        pools.append(list(requests))
        for request in requests:
            name = request.video.name
            if "bad" in name:
                yield Failure(f"{name} is broken")
                continue
            clip = pixels(name, request.views.clips * request.views.crops, request.frames)
            if request.looks:
                clip = torch.cat([pixels(f"{name}{look.number}{look.seed}") for look in request.looks])
            times = ((0.0,),) * len(clip)
            yield Decoded(clip, times, "PyAV (why not)" if "other" in name else "decord", "other" not in name)

    monkeypatch.setattr(DecodePool, "read", read)
    return pools


def extractor(batch: int = 4, **views: Any) -> FeatureExtractor:
    resolved = extract.resolve_views(Views(**views), Clip(frames=4, size=32), {})
    return FeatureExtractor(resolved, DecodePool(1, 10.0), batch, Cost())


def wanted(*names: str) -> list[Source]:
    return [Source(Path(name), None) for name in names]


def as_they_are(clips: Tensor) -> Tensor:
    return clips.float()


def encoded(one: FeatureExtractor, names: Sequence[str], variants: Any = None) -> list[SourceFeatures]:
    return list(one.encode(wanted(*names), as_they_are, "test", variants or {"": extract.unchanged}))


# --- views -----------------------------------------------------------------------------------------------------------


def test_the_encoder_fills_in_frames_and_size_and_the_user_overrules_both() -> None:
    clip = Clip(frames=64, size=112)
    own = {"frames": 64, "size": 112, "resize": "crop"}
    assert extract.resolve_views(Views("dense", stride=4), clip, {}) == Views("dense", stride=4, **own)  # type: ignore[arg-type]
    task = Views("segments", frames=8, size=224, resize="squash")
    assert extract.resolve_views(task, clip, {}) == task
    changed = {"frames": 2, "sampling": "uniform", "crops": 3}
    assert extract.resolve_views(task, clip, changed) == Views("uniform", frames=2, size=224, crops=3, resize="squash")
    assert extract.resolve_views(task, clip, {"frames": None}).frames == 64


@pytest.mark.parametrize("share", [0.0, -1.0, 1.01, float("nan")])
def test_a_square_has_a_share_of_the_frame_above_nothing_and_up_to_all(share: float) -> None:
    with pytest.raises(UserError, match=rf"^clip\.share={share:g}: wanted above 0 and up to 1$"):
        extract.resolve_views(Views(share=1.0), Clip(), {"share": share})


def test_a_part_of_a_video_is_read_once_in_order_of_first_appearance() -> None:
    examples = [
        Example("1", Path("b")),
        Example("2", Path("a"), span=(0.0, 1.0)),
        Example("3", Path("b"), text="another question"),
        Example("4", Path("a"), span=(1.0, 2.0)),
        Example("5", Path("a"), span=(0.0, 1.0)),
    ]
    assert extract.sources(examples) == [
        Source(Path("b"), None),
        Source(Path("a"), (0.0, 1.0)),
        Source(Path("a"), (1.0, 2.0)),
    ]


# --- variants --------------------------------------------------------------------------------------------------------


def test_shuffled_frames_are_the_same_frames_in_one_other_order_for_every_view() -> None:
    clips = pixels("a", views=3, frames=16)
    turned = controls.shuffled(clips, 7)
    orders = [
        [int((clip == frame).flatten(1).all(1).nonzero()) for frame in mixed]
        for clip, mixed in zip(clips, turned, strict=True)
    ]
    assert sorted(orders[0]) == list(range(16)) != orders[0]
    assert orders[0] == orders[1] == orders[2]
    assert torch.equal(controls.shuffled(clips, 7), turned) and not torch.equal(controls.shuffled(clips, 8), turned)


@pytest.mark.parametrize(("frames", "middle"), [(1, 0), (4, 2), (5, 2)])
def test_a_single_frame_is_the_middle_one_held(frames: int, middle: int) -> None:
    clips = pixels("a", views=2, frames=frames)
    held = controls.single_frame(clips, 0)
    assert held.shape == clips.shape
    assert all(torch.equal(held[:, i], clips[:, middle]) for i in range(frames))


def test_variants_are_of_the_same_clip_and_leave_random_state_and_pixels_alone() -> None:
    state, before = torch.get_rng_state(), pixels("a")
    [one] = encoded(extractor(), ["a"], VARIANTS)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.features[""], before.float())
    assert sorted(one.features["shuffled"].flatten().tolist()) == sorted(before.flatten().tolist())
    assert torch.equal(one.features["single_frame"][0, 0], before[0, 2].float())


def test_the_shuffled_order_of_a_video_does_not_depend_on_its_neighbors_or_its_folder() -> None:
    alone = encoded(extractor(), ["x/b"], VARIANTS)[0]
    among = encoded(extractor(batch=3), ["a", "c", "y/b", "d"], VARIANTS)[2]
    assert torch.equal(alone.features["shuffled"], among.features["shuffled"])


def test_each_video_is_shuffled_in_its_own_order() -> None:
    names = [str(i) for i in range(12)]
    orders = set()
    for one in encoded(extractor(), names, VARIANTS):
        plain, mixed = (one.features[name][0].flatten(1) for name in ("", "shuffled"))
        orders.add(tuple(int((plain == frame).all(1).nonzero()) for frame in mixed))
    assert len(orders) > 4  # of 24


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_features_come_in_order_with_failures_in_their_place(batch: int) -> None:
    names = ["a", "bad1", "b", "c", "other", "bad2", "bad3"]
    found = encoded(extractor(batch, clips=2), names)
    assert [one.source.video.name for one in found] == names
    assert [one.failure for one in found] == [f"{n} is broken" if "bad" in n else None for n in names]
    assert [one.decoder for one in found] == [None] * 4 + ["PyAV (why not)"] + [None] * 2
    for one in found:
        if one.failure:
            assert not one.features
        else:
            assert torch.equal(one.features[""], pixels(one.source.video.name, views=2).float())


def test_nothing_to_read_and_nothing_readable_give_no_features() -> None:
    assert encoded(extractor(), []) == []
    found = encoded(one := extractor(), ["bad1", "bad2"], VARIANTS)
    assert [encoding.failure for encoding in found] == ["bad1 is broken", "bad2 is broken"]
    assert one.cost.encoder_forwards == 0


@pytest.mark.parametrize("views", [{}, {"clips": 2, "crops": 3}])
def test_the_batch_does_not_change_the_features(tiny: Path, views: dict[str, Any]) -> None:
    encoder: Any = encoders.load_encoder(str(tiny))

    def keep(clips: Tensor) -> Tensor:
        assert clips.dtype == torch.uint8 and clips.ndim == 5
        return encoder(encoder.clip.normalize(clips)).pooled  # type: ignore[no-any-return]

    names = list("abcdefg")
    each = [list(extractor(batch, **views).encode(wanted(*names), keep, "test", VARIANTS)) for batch in (1, 4, 64)]
    for one, four, all_ in zip(*each, strict=True):
        for name in VARIANTS:
            assert one.features[name].shape == (6 if views else 1, 24)
            torch.testing.assert_close(four.features[name], one.features[name], atol=1e-5, rtol=0)
            torch.testing.assert_close(all_.features[name], one.features[name], atol=1e-5, rtol=0)


def test_all_clips_are_counted() -> None:
    sizes: list[int] = []

    def keep(clips: Tensor) -> Tensor:
        sizes.append(len(clips))
        return clips.float()

    one = extractor(batch=4, clips=3)
    list(one.encode(wanted("a", "bad", "b", "c"), keep, "test", VARIANTS))
    assert sum(sizes) == one.cost.encoder_forwards == 3 * 3 * len(VARIANTS)
    assert one.cost.decode_s > 0 and one.cost.encode_s > 0


def test_many_failures_do_not_slow_the_reading_down() -> None:
    assert len(encoded(extractor(), ["bad"] * 20_000)) == 20_000  # takes minutes where each looks at all before it


# --- what is left out of training ------------------------------------------------------------------------------------


def test_a_few_broken_training_videos_are_told_and_only_broken_ones_are_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = [SourceFeatures(Source(Path(f"{i}.mp4"), None), failure="is broken") for i in range(5)]
    extract.report_failures([], 0)
    extract.report_failures(failed, 6)
    assert capsys.readouterr().err.splitlines() == [
        *(f"left out of training: {i}.mp4: is broken" for i in range(3)),
        "left out of training: 2 more",
    ]
    with pytest.raises(UserError) as caught:
        extract.report_failures(failed, 5)
    assert str(caught.value) == "none of the 5 training videos could be decoded; 0.mp4: is broken"


# --- the store -------------------------------------------------------------------------------------------------------


@pytest.fixture
def feature_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureCache:
    """A shelf for the made-up videos of these tests, which are files of their own names."""
    monkeypatch.chdir(tmp_path)
    for name in "abcde":
        Path(name).write_bytes(name.encode() * 100)
    views = Views(frames=2, size=8, resize="crop")
    empty = Identity(0, None, "")
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


def test_a_check_tells_what_decodes_and_encodes_nothing() -> None:
    one = extractor()
    found = list(one.check(wanted("a", "bad", "b"), "look"))
    assert [encoding.failure for encoding in found] == [None, "bad is broken", None]
    assert one.cost.encoder_forwards == 0 and not any(encoding.features for encoding in found)
