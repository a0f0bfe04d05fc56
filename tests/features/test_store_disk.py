"""A store that has a limit, and one on a disk that fails."""

import errno
import fcntl
import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit.features import store as store_module
from evalkit.features.store import Store, Usage
from tests.features.entries import files, fill, key, right, tensor
from tests.features.test_store_processes import PROCESSES, process

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
