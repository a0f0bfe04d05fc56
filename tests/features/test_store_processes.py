"""A store that several processes write to, of which some are killed."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from evalkit.features import shards
from evalkit.features import store as store_module
from evalkit.features.store import Store
from tests.features.entries import fill, key, right, tensor

# Processes are forked from a server that has torch loaded already and no threads.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["evalkit.features.store"])
KILLS = 20


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
