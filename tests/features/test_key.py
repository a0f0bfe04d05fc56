import functools
import itertools
import os
import shutil
import threading
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evalkit.api import Clip, Example, FeatureSpec, Views
from evalkit.features import key as module
from evalkit.features.key import (
    BLOCK_BYTES,
    BLOCKS,
    END_BYTES,
    FeatureKey,
    Identity,
    architecture,
    identify,
    identify_ahead,
)
from evalkit.video.media import Media

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


def write(path: Path, content: bytes | bytearray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(1, 1_700_000_000_000_000_001))
    return path


@pytest.mark.parametrize("size", [0, 1, END_BYTES - 1, END_BYTES, END_BYTES + 1, 2 * END_BYTES + 1, 10 * END_BYTES])
@pytest.mark.parametrize("full", [False, True])
def test_a_moved_and_renamed_folder_keeps_its_videos(tmp_path: Path, size: int, full: bool) -> None:
    path = write(tmp_path / "a" / "b.mp4", os.urandom(size))
    before = identify(path, full)
    shutil.move(tmp_path / "a", tmp_path / "c")
    (tmp_path / "c" / "b.mp4").rename(tmp_path / "c" / "d.mp4")
    assert identify(tmp_path / "c" / "d.mp4", full) == before
    assert before.size == size


@pytest.mark.parametrize("place", [0, END_BYTES - 1, -END_BYTES, -1])
def test_replaced_bytes_at_either_end_are_another_video(tmp_path: Path, place: int) -> None:
    content = bytearray(os.urandom(5 * END_BYTES))
    before = identify(write(tmp_path / "v.mp4", content))
    content[place] ^= 1
    assert identify(write(tmp_path / "v.mp4", content)) != before  # though size and time are the same


def test_replaced_bytes_between_the_blocks_are_seen_by_the_full_hash_alone(tmp_path: Path) -> None:
    content = bytearray(os.urandom(100 * END_BYTES))
    path = write(tmp_path / "v.mp4", content)
    before, all_before = identify(path), identify(path, full=True)
    content[END_BYTES + 1] ^= 1
    write(path, content)
    assert identify(path) == before and identify(path, full=True) != all_before
    content[END_BYTES + 1] ^= 1
    content[50 * END_BYTES :] = os.urandom(50 * END_BYTES)  # encoded otherwise from the middle on
    assert identify(write(path, content)) != before


@pytest.mark.parametrize("size", [3 * END_BYTES, 4 * END_BYTES])
def test_of_a_short_video_each_byte_counts(tmp_path: Path, size: int) -> None:
    content = bytearray(os.urandom(size))
    before = identify(write(tmp_path / "v.mp4", content))
    for place in range(0, size, 977):
        content[place] ^= 1
        assert identify(write(tmp_path / "v.mp4", content)) != before
        content[place] ^= 1


def test_one_byte_more_is_another_video_and_a_copy_is_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", b"x" * 3 * END_BYTES)
    longer = write(tmp_path / "w.mp4", b"x" * (3 * END_BYTES + 1))
    assert identify(path) != identify(longer) and identify(path, full=True) != identify(longer, full=True)
    copy = Path(shutil.copyfile(path, tmp_path / "copy.mp4"))  # whose modification time is another
    assert identify(copy) == identify(path) and identify(copy, full=True) == identify(path, full=True)


def test_a_look_up_reads_the_ends_and_some_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "v.mp4", bytes(100 * END_BYTES))
    read: list[tuple[int, int]] = []
    pread = os.pread

    def noted(file: int, count: int, offset: int) -> bytes:
        read.append((offset, count))
        return pread(file, count, offset)

    monkeypatch.setattr(os, "pread", noted)
    identify(path)
    assert sum(count for _, count in read) == 2 * END_BYTES + BLOCKS * BLOCK_BYTES
    assert read == sorted(read) and read[-1] == (99 * END_BYTES, END_BYTES)
    gaps = [after - offset - count for (offset, count), (after, _) in itertools.pairwise(read)]
    assert max(gaps) - min(gaps) <= 1


def test_an_absent_file_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        identify(tmp_path / "none.mp4")


class Block(nn.Module):
    def __init__(self, heads: int = 2, eps: float = 1e-5, **more: Any) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(4, eps=eps)
        for name, value in more.items():
            setattr(self, name, value)


def test_an_architecture_is_told_by_settings_that_no_weight_shows() -> None:
    same = architecture(nn.Sequential(Block()))
    assert architecture(nn.Sequential(Block()).eval()) == same
    others = [Block(heads=4), Block(eps=1e-6), Block(stride=(2, 2)), Block(stride=(2, 3)), Block(rope={"base": 1e4})]
    others += [Block(clip=Clip()), Block(clip=Clip(size=32))]
    hashes = {same, *(architecture(nn.Sequential(other)) for other in others)}
    assert len(hashes) == len(others) + 1


def test_an_architecture_does_not_depend_on_weights_mode_place_or_address() -> None:
    first, second = Block(name_or_path="/a", hook=object()), Block(name_or_path="/b", hook=object())
    nn.init.normal_(second.norm.weight)
    assert architecture(first.train()) == architecture(second.eval().to(torch.float16))


def test_an_edited_source_file_is_another_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from torch import nn\n\nclass Own(nn.Module):\n    def forward(self, x):\n        return x{}\n"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_encoder_of_this_test.py").write_text(source.format(""))
    import own_encoder_of_this_test as module  # type: ignore[import-not-found]

    before = architecture(module.Own())
    assert architecture(module.Own()) == before
    (tmp_path / "own_encoder_of_this_test.py").write_text(source.format(" * 2"))
    assert architecture(module.Own()) != before


def test_what_a_module_keeps_to_itself_changes_its_architecture() -> None:
    class Own(nn.Module):
        def __init__(self, pool: str) -> None:
            super().__init__()
            self._pool = pool

    assert architecture(Own("mean")) != architecture(Own("max"))
    assert architecture(Own("mean")) == architecture(Own("mean").train())


@dataclass(slots=True)
class Slotted:
    gain: float

    def doubled(self) -> float:
        return 2 * self.gain

    def halved(self) -> float:
        return self.gain / 2


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (torch.zeros(3), torch.ones(3)),
        (np.zeros(3), np.ones(3)),
        (np.int64(3), np.int64(4)),
        ({3, 7}, {3, 11}),
        (torch.float32, torch.float16),
        ([3, torch.float32], [3, torch.float16]),
        (nn.functional.relu, nn.functional.gelu),
        (functools.partial(nn.functional.gelu, approximate="none"), functools.partial(nn.functional.gelu)),
        (lambda x: x + 1, lambda x: x + 2),
        (slice(0, 2), slice(0, 3)),
        (SimpleNamespace(gain=2), SimpleNamespace(gain=3)),
        (Namespace(gain=2), Namespace(gain=3)),
        (Slotted(2), Slotted(3)),
        (deque([2]), deque([3])),
        (nn.ReLU, nn.GELU),
        ("2".zfill, "2".center),
        (Slotted(2).doubled, Slotted(2).halved),
        (Slotted(2).doubled, Slotted(3).doubled),
    ],
    ids=lambda value: type(value).__name__,
)
def test_attributes_of_any_plain_kind_and_functions_change_an_architecture(value: Any, other: Any) -> None:
    assert architecture(Block(kept=value)) == architecture(Block(kept=value)) != architecture(Block(kept=other))


def test_a_buffer_that_no_checkpoint_holds_changes_an_architecture_and_a_saved_one_does_not() -> None:
    def hashed(value: float, persistent: bool) -> str:
        block = Block()
        block.register_buffer("mean", torch.full((3,), value), persistent=persistent)
        return architecture(block)

    assert hashed(0.5, False) != hashed(0.4, False)
    assert hashed(0.5, True) == hashed(0.4, True)


def test_functions_made_alike_differ_by_the_values_that_they_bring_along() -> None:
    def scaled(gain: float) -> Callable[[float], float]:
        return lambda x: gain * x

    assert architecture(Block(act=scaled(2))) == architecture(Block(act=scaled(2)))
    assert architecture(Block(act=scaled(2))) != architecture(Block(act=scaled(3)))


def test_what_a_function_brings_along_counts_however_it_holds_it() -> None:
    def by_key(gain: float) -> Callable[[float], float]:
        def scale(x: float, *, by: float = gain) -> float:
            return by * x

        return scale

    def of_pair(pair: tuple[float, float]) -> Callable[[float], float]:
        return lambda x: pair[0] * x

    def after(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return functools.wraps(function)(lambda x: function(x))

    cases: list[tuple[Callable[[Any], Any], Any, Any]] = [
        (by_key, 2.0, 3.0),
        (of_pair, (2.0, 0.0), (3.0, 0.0)),
        (after, torch.sin, torch.cos),
        (after, lambda x: x + 1, lambda x: x + 2),
    ]
    for make, one, two in cases:
        first, again, other = (architecture(Block(act=make(value))) for value in (one, one, two))
        assert first == again != other
    within = [lambda x: (lambda y: y + 1)(x), lambda x: (lambda y: y + 2)(x)]
    assert len({architecture(Block(act=function)) for function in within}) == 2


def test_what_holds_itself_has_a_hash() -> None:
    def countdown(n: int) -> int:
        return countdown(n - 1) if n else 0

    ring: list[Any] = [1]
    ring.append(ring)
    named: dict[str, Any] = {"one": 1}
    named["all"] = named
    for value in (countdown, ring, named):
        assert architecture(Block(kept=value)) == architecture(Block(kept=value)) != architecture(Block())


def test_sparse_tensors_and_those_without_values_have_a_hash() -> None:
    one, again, other = (architecture(Block(kept=scale * torch.eye(3).to_sparse())) for scale in (1, 1, 2))
    assert one == again != other
    wide, wider = (architecture(Block(kept=torch.empty(n, device="meta"))) for n in (2, 3))
    assert wide != wider


def test_a_digest_with_another_video_span_and_variant_is_that_of_the_key_that_has_them() -> None:
    video = Identity(7, "ab")
    for span in (None, (1, 2.5), (0.0, 3.0)):
        for key in (replace(KEY, views=Views(window=2.0)), replace(KEY, clip=Clip(share=0.5)), KEY):
            changed = replace(key, video=video, span=span, variant="y")
            assert key.digest_of(video, span, "y") == changed.digest() != key.digest()


def test_a_file_that_is_known_is_read_again_once_it_is_changed_however_that_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 0.0)
    video, reads = tmp_path / "a.mp4", list[Path]()
    sample = module._sample

    def noted(media: Media) -> Identity:
        reads.append(video)
        return sample(media)

    monkeypatch.setattr(module, "_sample", noted)
    video.write_bytes(b"a" * 1000)
    os.utime(video, (1e9, 1e9))
    first = identify(video)
    identify_ahead([video] * 3)
    assert identify(video) == first and len(reads) == 1
    time.sleep(0.02)  # the clock of files goes in steps
    with open(video, "r+b") as file:  # in place, of the same size, with the same time
        file.write(b"b" * 1000)
    os.utime(video, (1e9, 1e9))
    second = identify(video)
    assert second != first and len(reads) == 2
    time.sleep(0.02)
    (tmp_path / "other").write_bytes(b"c" * 1000)
    os.utime(tmp_path / "other", (1e9, 1e9))
    (tmp_path / "other").rename(video)
    assert identify(video) not in (first, second) and len(reads) == 3


def test_a_file_that_was_changed_just_now_is_read_each_time(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    seen = set()
    for content in (b"a", b"b", b"c"):
        video.write_bytes(content * 1000)
        seen.add(identify(video))
    assert len(seen) == 3


def test_files_of_a_slow_disk_are_identified_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = [tmp_path / f"{i}.mp4" for i in range(module.TRIED + 64)]
    for i, video in enumerate(videos):
        video.write_bytes(b"%d" % i)
    at_once, most, lock, sample = [0], [0], threading.Lock(), module._sample

    def slow(media: Media) -> Identity:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.005)
        with lock:
            at_once[0] -= 1
        return sample(media)

    monkeypatch.setattr(module, "_sample", slow)
    identify_ahead([*videos, tmp_path / "none.mp4"])
    assert most[0] > 4
    monkeypatch.undo()
    assert len({identify(video) for video in videos}) == len(videos)
