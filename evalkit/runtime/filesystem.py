"""Whether a folder can be written into, and its file system does what the store, journals and results rely on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from evalkit.errors import UserError

# What flock says where there are no locks: Lustre without -o flock, NFS without its lock daemon, some FUSE.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
LINES, CLOCK_S = 64, 60.0
ELSEWHERE = "let EVALKIT_CACHE name another folder"


def check_writable(folder: Path, given: str) -> None:
    """Makes a folder; raises UserError where nothing can be written into it.

    Args:
        folder: that something will be written into later.
        given: the words that named it, such as `out=results`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError as error:  # what `mkdir` says of a file
        raise UserError(f"{given}: cannot write there: {os.strerror(errno.ENOTDIR)}") from error
    except OSError as error:
        raise UserError(f"{given}: cannot write there: {error.strerror}") from error


def problems(folder: Path) -> list[str]:
    """What of it does not work in a folder and what to do, a sentence each; none where all does.

    A folder inside it is made for that, and removed.
    """
    try:
        place = Path(tempfile.mkdtemp(prefix=".evalkit.", dir=folder))
    except OSError as error:
        return [f"nothing can be written there ({error.strerror}): {ELSEWHERE}; cache.also= reads from this one"]
    checks: dict[str, Callable[[Path], str]] = {
        "writing and flushing": _written,
        "renaming": _renamed,
        "appending": _appended,
        "locking": _locked,
        "mapping": _mapped,
        "the time of files": _timed,
    }
    found = []
    try:
        for name, check in checks.items():
            try:
                found.append(check(place))
            except OSError as error:
                room = error.errno in (errno.ENOSPC, errno.EDQUOT)
                mend = f"free some of it, or {ELSEWHERE}" if room else ELSEWHERE
                found.append(f"{name} fails ({error.strerror}): {mend}")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return [problem for problem in found if problem]


def _written(place: Path) -> str:
    content = os.urandom(1 << 16)
    with open(place / "written", "w+b") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(OSError), open(place / "written", "rb") as file:
        if file.read() == content:
            return ""
    return f"what is written is not read back: {ELSEWHERE}"


def _renamed(place: Path) -> str:
    for name in ("old", "new"):
        (place / name).write_text(name)
    (place / "folder").mkdir()
    os.replace(place / "new", place / "old")
    os.replace(place / "folder", place / "moved")
    there = {path.name for path in place.iterdir()}
    if (place / "old").read_text() == "new" and "moved" in there and not there & {"new", "folder"}:
        return ""
    return f"a file that is renamed does not take another's place, so that results may appear in part: {ELSEWHERE}"


def _appended(place: Path) -> str:
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    files = [os.open(place / "appended", flags, 0o666) for _ in range(2)]
    try:
        for number in range(LINES):
            os.write(files[number % 2], b"%03d\n" % number)
    finally:
        for file in files:
            os.close(file)
    lines = (place / "appended").read_bytes().split()
    if sorted(lines) == [b"%03d" % number for number in range(LINES)]:
        return ""
    return (
        "what two processes append to one file is lost: a run that is at work twice at once predicts again what the "
        f"other's journal lost, and no score changes; {ELSEWHERE} to keep it"
    )


def _locked(place: Path) -> str:
    with open(place / "locked", "wb") as one, open(place / "locked", "r+b") as other:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return (
                f"there are no file locks ({error.strerror}): each writer fills files of its own, and features that "
                "were written within a day are not evicted; mount it with locks (Lustre: -o flock; NFS: with its lock "
                f"daemon), or {ELSEWHERE}"
            )
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
    return (
        "its file locks keep nobody out: two writers at once may spoil one another's features, which are then encoded "
        f"again and never served; mount it with locks (Lustre: -o flock), or {ELSEWHERE}"
    )


def _mapped(place: Path) -> str:
    with open(place / "mapped", "w+b") as file:
        file.write(b"a" * mmap.PAGESIZE)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            os.pwrite(file.fileno(), b"b" * mmap.PAGESIZE, 0)
            if content[:] == b"b" * mmap.PAGESIZE:
                return ""
    return f"what is written does not show in memory that maps the file, as indexes of tars are: {ELSEWHERE}"


def _timed(place: Path) -> str:
    (place / "timed").write_bytes(b"")
    apart = os.stat(place / "timed").st_mtime - time.time()
    os.utime(place / "timed", (0, 0))
    if os.stat(place / "timed").st_mtime:
        return f"the time of a file cannot be set, by which the store knows what was used last: {ELSEWHERE}"
    if abs(apart) > CLOCK_S:
        return f"its clock is {apart:+.0f} s from this machine's, and what was used last is known by it: set the clocks"
    return ""
