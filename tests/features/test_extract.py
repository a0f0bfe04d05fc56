"""Clips become features once, in order, whatever the batch; variants are of the same pixels; costs are counted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from evalkit import encoders
from evalkit.api import Clip, Example, FeatureSpec, Views
from evalkit.errors import UserError
from evalkit.features import extract
from evalkit.features.codec import as_stored
from evalkit.features.feature_cache import SourceFeatures
from evalkit.features.forward import Arriving
from evalkit.features.reader import FeatureReader
from evalkit.features.sources import Source, resolve_views, sources
from evalkit.pipeline import controls
from evalkit.pipeline.training.fit import report_failures
from tests.features import fake_clips
from tests.features.fake_clips import VARIANTS, encoded, extractor, pixels, wanted

asked = fake_clips.asked


# --- views -----------------------------------------------------------------------------------------------------------


def test_the_encoder_fills_in_frames_and_size_and_the_user_overrules_both() -> None:
    clip = Clip(frames=64, size=112)
    own = {"frames": 64, "size": 112, "resize": "crop"}
    assert resolve_views(Views("dense", stride=4), clip, {}) == Views("dense", stride=4, **own)  # type: ignore[arg-type]
    task = Views("segments", frames=8, size=224, resize="squash")
    assert resolve_views(task, clip, {}) == task
    changed = {"frames": 2, "sampling": "uniform", "crops": 3}
    assert resolve_views(task, clip, changed) == Views("uniform", frames=2, size=224, crops=3, resize="squash")
    assert resolve_views(task, clip, {"frames": None}).frames == 64


@pytest.mark.parametrize("share", [0.0, -1.0, 1.01, float("nan")])
def test_a_square_has_a_share_of_the_frame_above_nothing_and_up_to_all(share: float) -> None:
    with pytest.raises(UserError, match=rf"^clip\.share={share:g}: wanted above 0 and up to 1$"):
        resolve_views(Views(share=1.0), Clip(), {"share": share})


def test_a_part_of_a_video_is_read_once_in_order_of_first_appearance() -> None:
    examples = [
        Example("1", Path("b")),
        Example("2", Path("a"), span=(0.0, 1.0)),
        Example("3", Path("b"), text="another question"),
        Example("4", Path("a"), span=(1.0, 2.0)),
        Example("5", Path("a"), span=(0.0, 1.0)),
    ]
    assert sources(examples) == [
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


@pytest.mark.parametrize(("batch", "sizes"), [(1, [3] * 5), (8, [6, 6, 3]), (9, [9, 6]), (16, [15])])
def test_a_batch_holds_whole_examples_and_no_more_than_it_should(batch: int, sizes: list[int]) -> None:
    """Otherwise the last few views of one example would have a forward pass of their own in each batch."""
    encoded_at_once: list[int] = []

    def keep(clips: Tensor) -> Tensor:
        encoded_at_once.append(len(clips))
        return clips.float()

    list(extractor(batch, clips=3).encode(wanted(*"abcde"), keep, "test", {"": extract.unchanged}))
    assert encoded_at_once == sizes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_video_of_which_the_encoder_gives_nan_fails_by_itself(value: float, batch: int) -> None:
    def keep(clips: Tensor) -> Tensor:
        features = clips.float().mean((1, 3, 4))
        features[[clip.equal(pixels("b")[0]) for clip in clips], 1] = value
        return features

    encodings = list(extractor(batch).encode(wanted("a", "b", "bad", "c"), keep, "", {"": extract.unchanged}))
    assert [bool(one.failure) for one in encodings] == [False, True, True, False]
    assert encodings[1].failure == extract.NOT_FINITE and not encodings[1].features
    assert all(torch.isfinite(encodings[k].features[""]).all() for k in (0, 3))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_what_a_gpu_computes_is_waited_for_once_the_next_batch_is_launched(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's part is played by features that say they arrive later."""
    events: list[str] = []

    class Later(Arriving):
        def __init__(self, features: Tensor, clips: Sequence[Tensor]) -> None:
            super().__init__(features, clips)
            self.later, self._arrival = True, cast(Any, self)
            events.append("launched")

        def synchronize(self) -> None:
            assert self._clips  # their memory is not used again before
            events.append("waited for")

    names = ["a", "b", "bad1", "c", "d", "bad2"]
    expected = encoded(extractor(batch), names)
    monkeypatch.setattr(extract, "Arriving", Later)
    again = encoded(extractor(batch), names)
    assert [(one.source, one.failure) for one in again] == [(one.source, one.failure) for one in expected]
    for one, two in zip(again, expected, strict=True):
        assert one.failure or one.features[""].equal(two.features[""])
    assert events.count("launched") == events.count("waited for") == len(events) // 2
    if batch == 1:
        assert events[:3] == ["launched", "launched", "waited for"]


def test_features_that_are_whole_numbers_are_finite_and_rows_are_given_in_turn() -> None:
    for features in (torch.arange(10).view(5, 2), torch.tensor([[0.0], [torch.inf], [1.0], [2.0], [torch.nan]])):
        rows = list(Arriving(features, []).split([2, 0, 1, 2]))
        assert torch.cat([row for row, _ in rows]).equal(features) or features.isnan().any()
        assert [len(row) for row, _ in rows] == [2, 0, 1, 2]
        assert [good for _, good in rows] == ([True] * 4 if features.shape[1] == 2 else [False, True, True, False])


def test_int8_keeps_the_finite_rows_of_a_batch() -> None:
    features = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    expected = as_stored(features[[0, 2]], "int8")
    features[1, 3] = torch.nan

    class Runner:
        module = torch.nn.Identity()

        def __call__(self, clips: Tensor, spec: FeatureSpec) -> Tensor:
            return features

    reader = FeatureReader(extractor(), Runner(), FeatureSpec("pooled", dtype="int8"))  # type: ignore[arg-type]
    kept = reader.keep(torch.zeros(3))
    assert kept[[0, 2]].equal(expected) and kept[1].isnan().any()


def test_many_failures_do_not_slow_the_reading_down() -> None:
    assert len(encoded(extractor(), ["bad"] * 20_000)) == 20_000  # takes minutes where each looks at all before it


# --- what is left out of training ------------------------------------------------------------------------------------


def test_a_few_broken_training_videos_are_told_and_only_broken_ones_are_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = [SourceFeatures(Source(Path(f"{i}.mp4"), None), failure="is broken") for i in range(5)]
    report_failures([], 0)
    report_failures(failed, 10)
    left_out = [f"left out of training: {i}.mp4: is broken" for i in range(3)] + ["left out of training: 2 more"]
    assert capsys.readouterr().err.splitlines() == left_out
    report_failures(failed, 9)
    most = "MOST OF THE TRAINING VIDEOS COULD NOT BE READ (5 of 9)"
    assert capsys.readouterr().err.splitlines() == [most, *left_out]
    with pytest.raises(UserError) as caught:
        report_failures(failed, 5)
    assert str(caught.value) == "none of 5 training videos could be read; 0.mp4: is broken"


def test_a_check_tells_what_decodes_and_encodes_nothing() -> None:
    one = extractor()
    found = list(one.check(wanted("a", "bad", "b"), "look"))
    assert [encoding.failure for encoding in found] == [None, "bad is broken", None]
    assert one.cost.encoder_forwards == 0 and not any(encoding.features for encoding in found)
