"""Files that appear whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from evalkit.runtime import atomic


def test_a_file_takes_the_place_of_a_former_one(tmp_path: Path) -> None:
    for content in (b"one", b"another"):
        atomic.write(tmp_path / "new/file.md", content)
        assert (tmp_path / "new/file.md").read_bytes() == content
    (tmp_path / "link.md").symlink_to(tmp_path / "new/file.md")
    atomic.write(tmp_path / "link.md", b"by a link")
    assert (tmp_path / "link.md").is_symlink() and (tmp_path / "new/file.md").read_bytes() == b"by a link"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.md"]


def test_where_the_disk_is_full_the_former_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic.write(tmp_path / "file.md", b"whole")
    write = Path.write_bytes

    def full(place: Path, content: bytes) -> int:
        write(place, content[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        atomic.write(tmp_path / "file.md", b"other")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file.md", b"whole")]


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    atomic.write(tmp_path / ("n" * 255), b"content")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"content"


@pytest.mark.parametrize("folder", [False, True])
def test_a_rename_whose_answer_was_lost_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool) -> None:
    """A server of NFS that is asked a second time finds nothing to rename."""
    hidden, place, replace = tmp_path / ".hidden", tmp_path / "place", os.replace

    def answer_lost(old: Path, new: Path) -> None:
        replace(old, new)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(old))

    def refused(old: Path, new: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle", str(old))

    for content in ("one", "two"):
        if folder and place.exists():
            (place / "file").unlink()  # an empty folder is replaced
        if folder:
            hidden.mkdir()
        (hidden / "file" if folder else hidden).write_text(content)
        monkeypatch.setattr(os, "replace", refused)
        with pytest.raises(OSError, match="Stale file handle"):
            atomic.rename(hidden, place)
        monkeypatch.setattr(os, "replace", answer_lost)
        assert atomic.rename(hidden, place) == place
        assert (place / "file" if folder else place).read_text() == content and not hidden.exists()
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        atomic.rename(hidden, place)
