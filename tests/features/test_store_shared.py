"""A store on a file system that other machines use: without locks, with stale handles, cut files and late bytes."""

import errno
import fcntl
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evalkit.errors import UserError
from evalkit.features import store as store_module
from evalkit.features.shards import SLOT
from evalkit.features.store import Store, open_default
from evalkit.features.writer import StoreWriter
from tests.features.entries import files, fill, key, right, tensor
from tests.given import raising

# --- locks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_each_writer_has_a_shard_of_its_own_and_one_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(number))
    with caplog.at_level(logging.WARNING, "evalkit"):
        one, other = Store(tmp_path), Store(tmp_path)
        for i in range(20):
            (one, other)[i % 2].put(key(i), tensor(i))
        one.close()
        other.close()
        fill(tmp_path, range(20, 30))
    fresh = Store(tmp_path)
    assert right(fresh, range(30)) == set(range(30)) and fresh.damaged == 0 and fresh.usage().shards == 3
    (note,) = caplog.messages
    assert note.startswith(f"{tmp_path} has no file locks ({os.strerror(number)}): ")


def test_without_locks_only_what_nobody_has_written_for_a_day_is_evicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(errno.ENOSYS))
    fill(tmp_path, range(5))
    (old,) = files(tmp_path, ".data")
    fill(tmp_path, range(5, 10))
    os.utime(old, (0, 0))
    assert Store(tmp_path).prune(0) > 0
    assert right(Store(tmp_path), range(10)) == set(range(5, 10))


def test_locks_of_a_file_system_that_fails_otherwise_are_an_error_that_names_the_folder(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", raising(errno.EIO))
    with pytest.raises(OSError, match="Input/output error") as caught:
        store.put(key(0), tensor(0))
    assert caught.value.filename == str(store.folder)


def test_locks_that_keep_nobody_out_lose_entries_and_serve_no_wrong_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines whose locks hold on each of them alone write to one shard at once."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    fill(tmp_path, range(5))
    one, other = Store(tmp_path), Store(tmp_path)
    for i in range(5, 45):
        (one, other)[i % 2].put(key(i), tensor(i))
        if i % 7 == 0:
            one.flush()
            other.flush()
    one.close()
    other.close()
    fresh = Store(tmp_path)
    assert right(fresh, range(45)) >= set(range(5))  # `right` fails where one is wrong
    fill(tmp_path, sorted(set(range(45)) - right(fresh, range(45))))
    assert right(Store(tmp_path), range(45)) == set(range(45))


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOENT])
def test_what_cannot_be_read_is_missed_and_read_again_once_it_can_be(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for i in range(4):
        store.put(key(i), tensor(i))
    store.flush()
    assert right(store, range(4)) == set(range(4))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", raising(number))
        assert store.find([key(0)]) == {}
        assert store.damaged == (number == errno.EIO)
        assert not store._files
    assert right(store, range(4)) == set(range(4))


def test_an_index_that_shows_zeros_or_nothing_yet_is_read_when_it_is_there(tmp_path: Path) -> None:
    fill(tmp_path, range(6))
    (index,) = files(tmp_path, ".index")
    content = index.read_bytes()
    for early in (content[: 2 * SLOT.itemsize] + bytes(len(content) - 2 * SLOT.itemsize), content[: 2 * SLOT.itemsize]):
        index.write_bytes(early)
        reader = Store(tmp_path)
        assert right(reader, range(6)) == {0, 1}
        index.write_bytes(content)
        reader.refresh()
        assert right(reader, range(6)) == set(range(6)) and reader.damaged == 0


def test_data_that_another_machine_cuts_or_overwrites_are_missed(tmp_path: Path) -> None:
    fill(tmp_path, range(6))
    reader = Store(tmp_path)
    assert right(reader, range(6)) == set(range(6))
    (data,) = files(tmp_path, ".data")
    whole = data.read_bytes()
    os.truncate(data, len(whole) // 2)
    assert right(reader, range(6)) < set(range(6))
    data.write_bytes(np.random.default_rng(0).bytes(len(whole)))
    assert right(reader, range(6)) == set()


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES])
def test_a_shard_that_cannot_be_looked_at_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fill(tmp_path, range(3))
    monkeypatch.setattr(np, "fromfile", raising(number))
    reader = Store(tmp_path)
    assert right(reader, range(3)) == set()
    monkeypatch.undo()
    reader.refresh()
    assert right(reader, range(3)) == set(range(3))


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_what_cannot_be_written_says_where_and_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    store.put(key(0), tensor(0))
    store.flush()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, raising(number))
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            store.put(key(1), tensor(1))
            store.flush()
        assert (caught.value.errno, caught.value.filename) == (number, str(store.folder))
    store.put(key(2), tensor(2))
    store.close()
    assert right(Store(store.folder), range(3)) >= {0, 2}


# --- a thread that writes --------------------------------------------------------------------------------------------


def test_a_writer_gives_what_is_found_later_and_writes_while_others_are_read(store: Store) -> None:
    with StoreWriter(store) as writer:
        given = {i: writer.put(key(i), tensor(i), "int8" if i % 2 else "given") for i in range(200)}
        assert right(store, range(0, 200, 2)) <= set(range(0, 200, 2))
    found = store.find([key(i) for i in range(200)])
    assert all(torch.equal(found[key(i)], given[i]) for i in range(200))
    store.flush()
    assert len(Store(store.folder).find([key(i) for i in range(200)])) == 200


def test_a_writer_holds_no_more_than_so_many_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.features.writer.WAITING_BYTES", 10_000)
    write, held = store.write, list[int]()

    def slow(*entry: Any) -> None:
        held.append(writer._bytes)
        write(*entry)

    monkeypatch.setattr(store, "write", slow)
    with StoreWriter(store) as writer:
        for i in range(50):
            writer.put(key(i), torch.full((1000,), float(i)))
    assert len(held) == 50 and max(held) <= 10_000 + 4000


def _remove(folder: Path) -> None:
    """Removes a folder into which a thread goes on writing."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if not any(folder.glob("*")):
            break


def test_a_store_that_is_closed_or_removed_while_a_thread_writes_goes_on(
    store: Store,
) -> None:
    with StoreWriter(store) as writer:
        for i in range(300):
            writer.put(key(i), tensor(i))
            if i % 50 == 10:
                store.close()
            if i == 100:
                store.flush()
                _remove(store.folder)
                store.refresh()
    store.close()
    fresh = Store(store.folder)
    assert right(fresh, range(300)) >= set(range(200, 300)) and fresh.damaged == 0


@pytest.mark.parametrize("at", [0, 7])
def test_what_a_writer_cannot_write_is_raised_by_the_next_or_at_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    room, pwrite = [at], os.pwrite

    def full(*arguments: Any) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= 1
        return pwrite(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    threads = threading.active_count()
    with pytest.raises(OSError, match="No space left") as caught, StoreWriter(store) as writer:
        for i in range(50):
            writer.put(key(i), tensor(i))
    assert caught.value.filename == str(store.folder) and threading.active_count() == threads
    monkeypatch.undo()
    assert right(store, range(50)) <= set(range(at))


# --- other stores, read only -----------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[Path, tuple[int, int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


def test_what_others_have_stored_is_found_and_nothing_is_written_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "TOUCH_S", 0.0)
    monkeypatch.setattr(store_module, "REFRESH_S", 0.0)
    fill(tmp_path / "a/features", range(4))
    fill(tmp_path / "b/features", range(4, 8))
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "own"))
    before = [snapshot(tmp_path / name) for name in "ab"]
    with open_default(f"{tmp_path / 'a'},{tmp_path / 'b/features'}") as store:
        store.put(key(8), tensor(8))
        assert all(key(i) in store for i in range(9)) and key(9) not in store
        assert right(store, range(10)) == set(range(9))
        again = store.another()
        store.flush()
        assert right(again, range(10)) == set(range(9))
        store.prune(0)
        assert right(store, range(10)) == set(range(8))
    assert [snapshot(tmp_path / name) for name in "ab"] == before


def test_what_is_damaged_in_one_store_is_found_in_another(tmp_path: Path) -> None:
    fill(tmp_path / "own", range(3))
    fill(tmp_path / "other", range(3))
    (data,) = files(tmp_path / "own", ".data")
    data.write_bytes(bytes(data.stat().st_size))
    assert right(Store(tmp_path / "own", also=[tmp_path / "other"]), range(3)) == set(range(3))


def test_another_cache_that_is_none_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "own"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    reasons = {"none": "No such file", "file": "Not a directory", "empty": "there are no features in it"}
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=rf"^cache\.also={tmp_path / name}: .*{reason}.* EVALKIT_CACHE of another"):
            open_default(str(tmp_path / name))
