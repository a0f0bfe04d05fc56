import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from evalkit.errors import UserError
from evalkit.features import codec, index
from evalkit.features.codec import INT8_LEAST
from evalkit.features.store import Store, Usage
from tests.features.entries import files, fill, key, right, tensor

# --- what goes in comes out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", codec.DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3, 4, 5), (1, 2, 1, 3, 1, 2)])
def test_a_tensor_comes_back_bit_for_bit(store: Store, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    value = (torch.randn(shape) * 100).to(dtype)
    stored = store.put(key(0), value)
    store.close()
    for read in (stored, store.find([key(0)])[key(0)], Store(store.folder).find([key(0)])[key(0)]):
        assert read.dtype == dtype and read.shape == shape and torch.equal(read, value)


def test_nan_infinity_and_a_strided_view_are_kept_as_they_are(store: Store) -> None:
    value = torch.tensor([[1.0, torch.nan], [torch.inf, -0.0]]).T
    store.put(key(0), value)
    assert store.find([key(0)])[key(0)].view(torch.int32).equal(value.contiguous().view(torch.int32))


def test_what_was_found_may_be_written_to_and_stays_in_the_store(store: Store) -> None:
    store.put(key(1), tensor(1))
    store.find([key(1)])[key(1)].zero_()
    assert right(store, range(3)) == {1}


def test_an_absent_key_and_an_absent_folder_are_misses(store: Store) -> None:
    assert store.find([key(0)]) == {} and store.usage() == Usage(0, 0, 0) and store.prune(0) == 0
    assert not store.folder.exists()


def test_a_key_that_begins_like_another_is_told_apart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "RECENT", 0)
    other = key(1)[:8] + bytes(24)
    store.put(key(1), tensor(1))
    assert store.find([other]) == {}
    store.put(other, tensor(2))
    store.close()
    for reader in (store, Store(store.folder)):
        assert right(reader, range(2)) == {1} and torch.equal(reader.find([other])[other], tensor(2))


def test_of_a_key_that_is_written_twice_the_new_one_wins(store: Store) -> None:
    for value in (tensor(1), tensor(2)):
        store.put(key(0), value)
        store.flush()
        assert torch.equal(store.find([key(0)])[key(0)], value)
    store.close()
    assert torch.equal(Store(store.folder).find([key(0)])[key(0)], tensor(2))
    assert store.usage().entries == 2


def test_entries_are_found_before_and_after_they_are_sorted_in(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "RECENT", 16)
    for i in range(100):
        store.put(key(i), tensor(i))
        assert right(store, range(i + 1)) == set(range(i + 1))
    assert len(store._index._prefixes) > 50 and store._index._recent
    store.put(key(3), tensor(4))
    for i in range(100, 200):
        store.put(key(i), tensor(i))
    assert torch.equal(store.find([key(3)])[key(3)], tensor(4))
    store.close()
    assert right(Store(store.folder), range(4, 300)) == set(range(4, 200))


def test_a_wrong_key_and_too_many_dimensions_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="32 bytes, this one 5"):
        store.put(b"short", tensor(0))
    with pytest.raises(ValueError, match="at most 6 dimensions, this one 7"):
        store.put(key(0), torch.zeros([1] * 7))


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_int8_stays_within_its_bound_in_every_row(store: Store) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 1000, 64, generator=generator) * 10 ** (torch.rand(3, 1000, 1, generator=generator) * 60 - 28)
    rows[0, 0], rows[0, 1], rows[0, 2] = 0, INT8_LEAST / 2, torch.linspace(-1, 1, 64)
    stored = store.put(key(0), rows, "int8")
    read = store.find([key(0)])[key(0)]
    assert read.dtype == torch.float32 and torch.equal(read, stored)
    largest = rows.double().abs().amax(-1, keepdim=True)
    bound = torch.where(largest < INT8_LEAST, INT8_LEAST, largest / 254 * (1 + 1e-4))
    error = (read.double() - rows.double()).abs()
    assert bool((error <= bound).all()) and float((error / bound).max()) > 0.95
    assert not read[0, :2].any()
    store.flush()
    assert store.usage().bytes < 1.1 * rows.numel() + 1000


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (0, 3)])
def test_int8_takes_tensors_without_rows(store: Store, shape: tuple[int, ...]) -> None:
    stored = store.put(key(0), torch.ones(shape), "int8")
    assert torch.equal(stored, torch.ones(shape)) and torch.equal(store.find([key(0)])[key(0)], stored)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38])
def test_a_layout_that_cannot_hold_the_values_is_refused(store: Store, value: float) -> None:
    with pytest.raises(UserError, match="^layout int8 holds finite values up to 1e.*: use another layout"):
        store.put(key(0), torch.tensor([1.0, value, 2.0]), "int8")
    assert store.find([key(0)]) == {}


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_shard_cut_at_any_byte_gives_what_is_whole_and_is_written_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)  # no power fails here, and a disk takes its time
    whole = tmp_path / "whole"
    with Store(whole) as store:
        for i in range(3):
            store.put(key(i), tensor(i)[:, :2])
    for ending in (".data", ".index"):
        size = files(whole, ending)[0].stat().st_size
        for cut in range(size + 1):
            folder = tmp_path / "cut"
            shutil.copytree(whole, folder)
            os.truncate(files(folder, ending)[0], cut)
            with Store(folder) as store:
                before = store.find(map(key, range(3)))
                assert all(torch.equal(before[key(i)], tensor(i)[:, :2]) for i in range(3) if key(i) in before)
                assert [key(i) in before for i in range(3)] == sorted(
                    (key(i) in before for i in range(3)), reverse=True
                )
                assert len(before) == 3 or cut < size
                store.put(key(9), tensor(9))
            again = Store(folder)
            assert right(again, range(9, 10)) == {9} and again.usage().shards == 1
            after = again.find(map(key, range(3)))
            assert after.keys() == before.keys() and all(torch.equal(after[k], before[k]) for k in before)
            shutil.rmtree(folder)


@pytest.mark.parametrize("ending", [".data", ".index"])
def test_a_flipped_bit_anywhere_is_never_served(tmp_path: Path, ending: str) -> None:
    fill(tmp_path, range(4))
    path = files(tmp_path, ending)[0]
    content = path.read_bytes()
    entries = range(4)
    positions = range(0, len(content), 5 if ending == ".data" else 1)
    hit = 0
    for position in positions:
        bad = bytearray(content)
        bad[position] ^= 1 << random.Random(position).randrange(8)
        path.write_bytes(bad)
        store = Store(tmp_path)
        hit += len(right(store, entries)) < 4
        assert store.damaged <= 1
    # what does no harm: padding, and in a slot the size and the lowest bits of the offset, always 0
    assert hit > 0.5 * len(positions)


def test_a_damaged_entry_is_counted_and_written_anew(tmp_path: Path) -> None:
    fill(tmp_path, range(10))
    path = files(tmp_path, ".data")[0]
    content = bytearray(path.read_bytes())
    content[content.index(tensor(4).numpy().tobytes()) + 11] ^= 4
    path.write_bytes(content)
    with Store(tmp_path) as store:
        assert right(store, range(10)) == set(range(10)) - {4} and store.damaged == 1
        store.put(key(4), tensor(4))
        assert right(store, range(10)) == set(range(10))
    assert right(Store(tmp_path), range(10)) == set(range(10))


def test_a_shard_of_noise_or_zeros_serves_nothing_and_is_written_on(tmp_path: Path) -> None:
    for name, noise in (("a", random.Random(0).randbytes(1000)), ("b", bytes(1000))):
        folder = tmp_path / name
        folder.mkdir()
        for ending in (".data", ".index"):
            (folder / f"x{ending}").write_bytes(noise)
        fill(folder, range(5))
        store = Store(folder)
        assert right(store, range(10)) == set(range(5)) and store.find([bytes(32)]) == {}
        assert store.usage().shards == 1


def test_a_key_of_zeros_is_a_key(store: Store) -> None:
    store.put(bytes(32), tensor(1))
    store.close()
    assert torch.equal(Store(store.folder).find([bytes(32)])[bytes(32)], tensor(1))
