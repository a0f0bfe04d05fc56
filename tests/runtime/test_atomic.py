"""Files that appear whole or not at all."""

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
