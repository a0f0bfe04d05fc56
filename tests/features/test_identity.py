"""Which file a video is: by its bytes, wherever it lies and whatever it is called."""

import itertools
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from evalkit.features import key as module
from evalkit.features.key import (
    BLOCK_BYTES,
    BLOCKS,
    END_BYTES,
    Identity,
    identify,
    identify_ahead,
)
from evalkit.video.media import Media


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
