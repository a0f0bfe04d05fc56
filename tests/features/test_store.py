import errno
import fcntl
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evalkit.errors import UserError
from evalkit.features import codec, index, shards
from evalkit.features import store as store_module
from evalkit.features.codec import INT8_LEAST
from evalkit.features.store import Store, Usage

# Processes are forked from a server that has torch loaded already and no threads.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["evalkit.features.store"])
KILLS = 20


def key(i: int) -> bytes:
    return hashlib.sha256(str(i).encode()).digest()


def tensor(i: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(i).standard_normal((1 + i % 7, 50), np.float32))


def fill(folder: Path, numbers: range) -> None:
    with Store(folder) as store:
        for i in numbers:
            store.put(key(i), tensor(i))


def right(store: Store, numbers: range) -> set[int]:
    """Which of these are found; none may be wrong."""
    tensors = store.find(key(i) for i in numbers)
    for i in numbers:
        assert key(i) not in tensors or torch.equal(tensors[key(i)], tensor(i)), i
    return {i for i in numbers if key(i) in tensors}


def files(folder: Path, ending: str) -> list[Path]:
    return sorted(folder.glob(f"*{ending}"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


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


# --- processes -------------------------------------------------------------------------------------------------------


def write_and_tell(folder: Path, start: int, teller: int) -> None:
    rng = random.Random(start)
    store = Store(folder)
    for i in range(start, start + 1_000_000):
        store.put(key(i), tensor(i))
        if rng.random() < 0.2:
            store.flush()
            os.write(teller, i.to_bytes(8, "little"))


def kill_writers(folder: Path, kills: int, results: Any) -> None:
    """Kills one writer after another at any moment, looks at what it left, and tells what each had flushed."""
    rng = random.Random(0)
    flushed: list[range] = []
    for start in range(0, kills * 1_000_000, 1_000_000):
        listener, teller = os.pipe()
        writer = os.fork()
        if not writer:
            write_and_tell(folder, start, teller)
        time.sleep(rng.random() ** 2 * 0.2)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        os.close(teller)
        with open(listener, "rb") as pipe:
            last = pipe.read()[-8:]
        flushed.append(range(start, int.from_bytes(last, "little") + 1 if last else start))
        store = Store(folder)
        for numbers in flushed[-3:]:
            assert right(store, range(numbers.start, numbers.stop + 40)) >= set(numbers)
        assert store.damaged == 0
    results.send(flushed)


def process(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    started = PROCESSES.Process(target=target, args=arguments, daemon=True)
    started.start()
    return started


def test_what_was_flushed_survives_sigkill_at_any_moment(tmp_path: Path) -> None:
    results, teller = PROCESSES.Pipe(duplex=False)
    killer = process(kill_writers, tmp_path, KILLS, teller)
    teller.close()
    flushed = results.recv()
    killer.join()
    assert killer.exitcode == 0 and any(flushed)
    store = Store(tmp_path)
    for numbers in flushed:
        assert right(store, numbers) == set(numbers)
    assert store.usage().shards == 1  # each writer took over the shard of the one before
    more = range(KILLS * 1_000_000, KILLS * 1_000_000 + 10)
    fill(tmp_path, more)
    assert right(Store(tmp_path), more) == set(more)


def write_and_read(folder: Path, numbers: range, others: range, results: Any) -> None:
    with Store(folder) as store:
        for i in numbers:
            store.put(key(i), tensor(i))
            if i % 10 == 0:
                store.flush()
            right(store, range(others.start, others.stop, 37))  # fails where one is wrong
        results.send(len(right(store, numbers)))


def test_four_processes_write_and_read_at_once(tmp_path: Path) -> None:
    everything = range(800)
    ends, running = [], []
    for part in range(4):
        results, teller = PROCESSES.Pipe(duplex=False)
        running.append(process(write_and_read, tmp_path, range(part * 200, part * 200 + 200), everything, teller))
        ends.append(results)
    reader, seen = Store(tmp_path), 0
    while any(worker.is_alive() for worker in running):
        reader.refresh()
        now = len(right(reader, everything))
        assert now >= seen
        seen = now
    for worker in running:
        worker.join()
    assert [worker.exitcode for worker in running] == [0] * 4 and [end.recv() for end in ends] == [200] * 4
    fresh = Store(tmp_path)
    assert right(fresh, everything) == set(everything) and fresh.damaged == 0
    assert fresh.usage().entries == 800 and fresh.usage().shards <= 4


def test_another_stores_entries_are_seen_after_its_flush(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "REFRESH_S", 0.0)
    other = Store(store.folder)
    store.put(key(0), tensor(0))
    other.put(key(1), tensor(1))
    assert right(store, range(2)) == {0} and right(other, range(2)) == {1}
    store.flush()
    other.flush()
    assert right(store, range(2)) == {0, 1} and right(other, range(2)) == {0, 1}
    assert store.usage().shards == 2  # one each


def test_many_short_lived_writers_share_one_shard(tmp_path: Path) -> None:
    for i in range(30):
        fill(tmp_path, range(i, i + 1))
    assert Store(tmp_path).usage().shards == 1 and right(Store(tmp_path), range(30)) == set(range(30))


def test_a_forked_child_writes_to_a_shard_of_its_own(store: Store) -> None:
    store.put(key(0), tensor(0))
    child = os.fork()
    if not child:
        try:
            store.put(key(1), tensor(1))
            store.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    store.put(key(2), tensor(2))
    store.close()
    fresh = Store(store.folder)
    assert right(fresh, range(3)) == {0, 1, 2} and fresh.usage() == (fresh.usage().bytes, 3, 2)


def test_a_folder_that_is_removed_under_a_store_is_made_again(store: Store) -> None:
    store.put(key(0), tensor(0))
    store.flush()
    shutil.rmtree(store.folder)
    store.refresh()
    assert right(store, range(2)) == set()
    store.put(key(1), tensor(1))
    store.close()
    assert right(Store(store.folder), range(2)) == {1}


def test_puts_are_flushed_by_themselves_when_many_or_old(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BATCH_BYTES", 5000)
    for i in range(100):
        store.put(key(i), tensor(i))
    assert len(right(Store(store.folder), range(100))) > 90
    monkeypatch.setattr(shards, "BATCH_BYTES", 1 << 30)
    monkeypatch.setattr(shards, "BATCH_S", 0.0)
    store.put(key(100), tensor(100))
    assert right(Store(store.folder), range(100, 101)) == {100}


# --- size ------------------------------------------------------------------------------------------------------------


def test_a_limit_is_kept_by_evicting_what_was_used_longest_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "TOUCH_S", 0.0)
    value = torch.zeros(1000)
    with Store(tmp_path, limit=200_000) as store:
        for i in range(300):
            store.put(key(i), value)
            if i == 0:
                store.flush()
            time.sleep(0.0002)  # so that times of use differ
            assert key(0) in store.find([key(0)]), i
            if i % 10 == 0:
                store.flush()
                assert store.usage().bytes <= 200_000
        there = [i for i in range(300) if key(i) in store.find([key(i)])]
    assert there[0] == 0 and there[-1] == 299 and 25 <= len(there) <= 50
    assert set(there[8:]) <= set(range(250, 300))


def test_prune_frees_shards_until_the_limit_holds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store._shard_bytes = 10_000
    for i in range(100):
        store.put(key(i), torch.zeros(500))
    before = store.usage()
    assert before.shards > 10  # the last writer is still at work
    freed = store.prune(before.bytes // 2)
    after = store.usage()
    assert before.bytes // 2 - 15_000 < after.bytes <= before.bytes // 2
    assert 0 <= freed - (before.bytes - after.bytes) < 10_000  # what had not counted yet does now
    assert sum(key(i) in store.find([key(i)]) for i in range(100)) == after.entries
    store.prune(0)
    assert store.usage() == Usage(0, 0, 0) and not list(store.folder.iterdir())
    store.put(key(0), tensor(0))
    assert right(store, range(2)) == {0}


def test_what_another_process_evicted_is_a_miss_and_no_damage(tmp_path: Path) -> None:
    fill(tmp_path, range(5))
    reader = Store(tmp_path)
    Store(tmp_path).prune(0)
    assert right(reader, range(5)) == set() and reader.damaged == 0


def test_a_shard_that_is_written_to_is_not_evicted(store: Store) -> None:
    store.put(key(0), tensor(0))
    store.flush()
    assert Store(store.folder).prune(0) == 0
    assert right(Store(store.folder), range(1)) == {0}


def test_what_alone_exceeds_the_limit_is_not_stored(tmp_path: Path) -> None:
    with Store(tmp_path, limit=10_000) as store:
        store.put(key(0), torch.zeros(100))
        assert torch.equal(store.put(key(1), torch.ones(5000)), torch.ones(5000))
        assert store.find([key(1)]) == {} and key(0) in store.find([key(0)])
        store.put(key(2), torch.zeros(2000))  # larger than a shard's share
        assert key(2) in store.find([key(2)])
        store.flush()
        assert store.usage().bytes <= 10_000


def test_data_without_an_index_are_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "stray.data").write_bytes(b"x" * 100)
    Store(tmp_path).prune(1000)
    assert not list(tmp_path.iterdir())


# --- disks that fail -------------------------------------------------------------------------------------------------


def test_a_full_disk_is_an_oserror_and_what_is_stored_stays_valid(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(key(0), tensor(0))
    store.flush()
    room, pwrite = [700], os.pwrite

    def nearly_full(file: int, data: Any, offset: int) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = pwrite(file, data[: room[0]], offset)
        room[0] -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", nearly_full)
        store.put(key(1), tensor(1))
        with pytest.raises(OSError, match="No space left") as caught:
            store.put(key(2), tensor(2))
        assert caught.value.errno == errno.ENOSPC
        assert right(store, range(4)) == {0, 1}
        with pytest.raises(OSError, match="No space left"):
            store.flush()
        assert right(Store(store.folder), range(4)) == {0}
    store.put(key(3), tensor(3))
    store.close()
    assert right(Store(store.folder), range(4)) == {0, 3} and store.usage().shards == 1


def write_beyond_the_limit(folder: Path, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    store = Store(folder)
    for i in range(1000):
        try:
            store.put(key(i), tensor(i))
            store.flush()
        except OSError as error:
            results.send((i, error.errno))
            store.close()
            return


def test_a_file_that_may_not_grow_is_an_oserror_and_what_is_stored_stays_valid(tmp_path: Path) -> None:
    results, teller = PROCESSES.Pipe(duplex=False)
    writer = process(write_beyond_the_limit, tmp_path, teller)
    failed, number = results.recv()
    writer.join()
    assert number == errno.EFBIG and writer.exitcode == 0 and failed > 5
    assert right(Store(tmp_path), range(failed + 1)) == set(range(failed))


def test_after_a_failed_fsync_nothing_of_the_batch_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(key(0), tensor(0))
    store.flush()

    def fail(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    store.put(key(1), tensor(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            store.flush()
    store.flush()
    assert right(Store(store.folder), range(2)) == {0}
    store.put(key(1), tensor(1))
    store.close()
    assert right(Store(store.folder), range(2)) == {0, 1}


def test_data_are_on_disk_before_their_slots_are_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []
    pwrite, fsync = os.pwrite, os.fsync

    def note(what: str, file: int) -> None:
        done.append((what, Path(os.readlink(f"/proc/self/fd/{file}")).suffix))

    def noted_pwrite(file: int, data: Any, offset: int) -> int:
        note("write", file)
        return pwrite(file, data, offset)

    def noted_fsync(file: int) -> None:
        note("fsync", file)
        fsync(file)

    store.put(key(0), tensor(0))
    monkeypatch.setattr(os, "pwrite", noted_pwrite)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    store.flush()
    assert done == [("fsync", ".data"), ("write", ".index"), ("fsync", ".index")]


def test_an_exception_on_its_way_is_not_hidden_by_a_failing_flush(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(KeyError), store:
        store.put(key(0), tensor(0))
        monkeypatch.setattr(os, "fsync", fail)
        raise KeyError


def test_no_file_stays_open_or_locked_after_close(store: Store) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for i in range(20):
        store.put(key(i), tensor(i))
        right(store, range(20))
    store.close()
    assert len(os.listdir("/proc/self/fd")) == before
    with open(files(store.folder, ".index")[0]) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_only_so_many_data_files_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "OPEN_FILES", 3)
    with Store(tmp_path) as store:
        store._shard_bytes = 1
        for i in range(20):
            store.put(key(i), tensor(i))
        before = len(os.listdir("/proc/self/fd"))
        assert right(store, range(20)) == set(range(20)) and store.usage().shards == 20
        assert len(os.listdir("/proc/self/fd")) == before + 3
