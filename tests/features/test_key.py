from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from evalkit.api import Clip, Example, FeatureSpec, Views
from evalkit.features.key import (
    FeatureKey,
    Identity,
)

KEY = FeatureKey(
    video=Identity(1000, "aa"),
    span=(0.5, 2.0),
    views=Views(frames=8, size=32, resize="crop"),
    clip=Clip(),
    decoder="decord2 3.4.0",
    weights="bb",
    architecture="cc",
    feature_spec=FeatureSpec(),
    precision="32",
)


def variations(value: Any) -> Iterator[Any]:
    """Values that differ from one in a single leaf; each leaf, however deep in dataclasses and tuples, has its turn."""
    if is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            for other in variations(getattr(value, one.name)):
                yield replace(value, **{one.name: other})
    elif isinstance(value, tuple):
        yield None
        for index, item in enumerate(value):
            for other in variations(item):
                yield (*value[:index], other, *value[index + 1 :])
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, float):
        yield value + 1e-9
    elif value is None:
        yield 1.5
    else:
        assert isinstance(value, str), f"what may {value!r} become?"
        yield f"{value} "


def test_every_field_changes_the_key() -> None:
    others = list(variations(KEY))
    assert len(others) > 30
    keys = {KEY.digest(), *(other.digest() for other in others)}
    assert len(keys) == len(others) + 1 and all(len(key) == 32 for key in keys)


def test_each_field_by_itself_has_a_variation() -> None:
    changed = {
        one.name
        for other in variations(KEY)
        for one in fields(KEY)
        if getattr(other, one.name) != getattr(KEY, one.name)
    }
    assert changed == {one.name for one in fields(FeatureKey)}


def test_equal_numbers_make_equal_keys() -> None:
    same = replace(KEY, span=(0.5, 2), views=replace(KEY.views, fps=1))
    assert same.digest() == KEY.digest()


def test_a_key_stays_the_same_from_release_to_release() -> None:
    """Stored features are lost where this changes: only a change of what a key is made of may do so."""
    assert KEY.digest().hex() == "e727898bb22f012a7d052b353666a39bc891c801e0799247ebbb8f6206c0fc69"


def test_no_text_of_an_example_is_in_the_key() -> None:
    assert not {one.name for one in fields(Example)} - {"video", "span"} & {one.name for one in fields(FeatureKey)}


def test_a_digest_with_another_video_span_and_variant_is_that_of_the_key_that_has_them() -> None:
    video = Identity(7, "ab")
    for span in (None, (1, 2.5), (0.0, 3.0)):
        for key in (replace(KEY, views=Views(window=2.0)), replace(KEY, clip=Clip(share=0.5)), KEY):
            changed = replace(key, video=video, span=span, variant="y")
            assert key.digest_of(video, span, "y") == changed.digest() != key.digest()
