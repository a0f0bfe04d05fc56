"""The index of a tar agrees with Python's own reader of sound tars, and reads nothing of hostile ones."""

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.video import media, tar
from tests.video.packed import member

END = bytes(1024)


def index(content: bytes) -> tar.Index:
    file = io.BytesIO(content)

    def read_at(offset: int, count: int) -> bytes:
        file.seek(offset)
        return file.read(count)

    return tar.Index(tar.build(read_at, len(content)))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_found_where_python_finds_them(tmp_path: Path, form: int) -> None:
    names = [f"clips/{'long/' * k}{k:04d}.mp4" for k in range(0, 40, 3)] + ["a.mp4", "./b.mp4", "c d/é.mp4"]
    if form != tarfile.USTAR_FORMAT:
        names += [f"{'n' * 180}/{'m' * 200}.mp4", f"{'x' * 99}.mp4", f"{'y' * 300}/z.mp4"]
    draw = random.Random(0)
    file = tmp_path / "x.tar"
    with tarfile.open(file, "w", format=form) as out:
        out.add(tmp_path, "folder", recursive=False)
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = draw.choice((0, 1, 511, 512, 513, 5000)), draw.choice((0, 1.5))
            out.addfile(info, io.BytesIO(draw.randbytes(info.size)))
    found = index(file.read_bytes())
    with tarfile.open(file) as opened:
        wanted = {os.path.normpath(info.name): (info.offset_data, info.size) for info in opened if info.isreg()}
    assert {name: found.find(name) for name in found.names()} == wanted and found.note == ""
    for name, (start, size) in wanted.items():
        with media.open_bytes(file / name) as opened_member:
            assert opened_member.read() == file.read_bytes()[start : start + size]
    with pytest.raises(FileNotFoundError, match="no member none.mp4 in the tar"):
        found.find("none.mp4")


def test_the_size_of_a_pax_header_goes_before_the_members_own() -> None:
    info = tarfile.TarInfo("a.mp4")
    info.size, info.pax_headers = 3, {"size": "3"}
    content = info.tobuf(tarfile.PAX_FORMAT)
    at = len(content) - 512
    lying = tarfile.TarInfo("a.mp4").tobuf(tarfile.USTAR_FORMAT)  # whose own size is 0
    found = index(content[:at] + lying + b"abc" + bytes(509) + member("b.mp4", b"d") + END)
    assert found.find("a.mp4") == (at + 512, 3) and found.find("b.mp4") == (at + 1536, 1)


def test_of_a_name_that_comes_twice_the_last_is_read_as_unpacking_leaves_it() -> None:
    content = member("a.mp4", b"first") + member("b.mp4") + member("./a.mp4", b"second") + END
    found = index(content)
    start, size = found.find("a.mp4")
    assert content[start : start + size] == b"second" and found.names() == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (member("x.mp4", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
        (member("x.mp4", type=tarfile.LNKTYPE, linkname="a.mp4"), "is a link"),
        (member("x.mp4", type=tarfile.GNUTYPE_SPARSE), "is a sparse file"),
    ],
)
def test_links_and_sparse_members_are_not_read_and_what_follows_is(bad: bytes, reason: str) -> None:
    found = index(member("a.mp4", b"a") + bad + member("b.mp4", b"b") + END)
    with pytest.raises(OSError, match=f"the member x.mp4 of the tar {reason}"):
        found.find("x.mp4")
    assert found.find("b.mp4")[1] == 1 and "1 " in found.note and "cannot be read" in found.note


def test_a_sparse_member_of_pax_is_not_read_either() -> None:
    info = tarfile.TarInfo("x.mp4")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"}
    found = index(info.tobuf(tarfile.PAX_FORMAT) + member("b.mp4", b"b") + END)
    with pytest.raises(OSError, match="is a sparse file"):
        found.find("x.mp4")
    assert found.find("b.mp4")[1] == 1


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.mp4", "a/../../up.mp4", "..", "a/.."])
def test_names_that_lead_out_of_the_tar_are_no_members(name: str) -> None:
    found = index(member(name, b"x") + member("in.mp4", b"y") + END)
    assert found.names() == ["in.mp4"] and found.note == "1 members whose names are no paths in it cannot be read"


def test_a_tar_that_is_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    whole = member("a.mp4", b"a" * 700) + member("b.mp4", b"b" * 5000)
    file.write_bytes(whole[:-3000])
    assert media.members(file) == (["a.mp4", "b.mp4"], "1 members past its end cannot be read")
    with media.open_bytes(file / "a.mp4") as opened:
        assert opened.read() == b"a" * 700
    with pytest.raises(OSError, match=r"x\.tar: the member b.mp4 of the tar goes past the end of the tar"):
        media.open_bytes(file / "b.mp4")


@pytest.mark.parametrize("blocks", [2, 18])
def test_what_follows_the_end_of_a_tar_is_told(blocks: int) -> None:
    """Two tars that were put one after another; Python and GNU tar read the first."""
    first, second = member("a.mp4", b"a"), member("b.mp4", b"b")
    read = index(first + bytes(512 * blocks) + second + END)
    assert read.names() == ["a.mp4"]
    assert read.note == "it is damaged: its end is at byte 1,024 and more follows, as of tars put one after another"
    assert index(first + bytes(512 * 20)).note == ""


def huge(size: bytes) -> bytes:
    """A header with such a size and a sound checksum."""
    block = bytearray(member("x.mp4"))
    block[124:136], block[148:156] = size, b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


@pytest.mark.parametrize(
    ("header", "note"),
    [
        (huge(b"\x80" + b"\xff" * 11), "members past its end"),
        (huge(b"77777777777\0"), "members past its end"),
        (huge(b"\xff" * 12), "it is damaged"),  # -1
        (huge(b"-0000000001\0"), "it is damaged"),
        (huge(b"0_000000001\0"), "it is damaged"),
        (b"no header at all".ljust(512), "it is damaged: "),
        (huge(b"00000000000\0").replace(b"x.mp4", b"y.mp4"), "it is damaged: no header at byte 1,024"),
        (member("L", type=tarfile.GNUTYPE_LONGNAME, size=1 << 40), "it is damaged"),
        (member("p", b"99 path=x\n", type=tarfile.XHDTYPE), "it is damaged: records that are none"),
        (member("p", b"0 =\n", type=tarfile.XHDTYPE), "it is damaged"),
        (member("p", b"13 size=-512\n", type=tarfile.XHDTYPE), "it is damaged: a size of"),
    ],
)
def test_whatever_a_header_says_what_came_before_it_is_read(header: bytes, note: str) -> None:
    found = index(member("a.mp4", b"a") + header + END)
    assert found.find("a.mp4") == (512, 1) and note in found.note


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"not a tar at all".ljust(2048)])
def test_what_is_no_tar_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"x\.tar: it is no tar: .{1,80}$"):
        media.members(file)


@pytest.mark.parametrize(
    ("pack", "tool"), [(gzip.compress, "gunzip"), (bz2.compress, "bunzip2"), (lzma.compress, "unxz")]
)
def test_a_compressed_tar_under_the_name_of_another_says_how_to_unpack_it(
    tmp_path: Path, pack: Callable[[bytes], bytes], tool: str
) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(pack(member("a.mp4", b"a" * 600) + END).ljust(2048, b"\0"))
    with pytest.raises(OSError, match=rf"x\.tar: it is no tar: it is compressed; {tool} it first$"):
        media.members(file)


def test_any_bytes_end(tmp_path: Path) -> None:
    draw = random.Random(1)
    sound = member("a.mp4", b"a" * 600) + member("n" * 150, b"b") + member("c.mp4", b"c") + END
    for _ in range(300):
        content = bytearray(sound)
        for _ in range(draw.randint(1, 20)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        try:
            found = index(bytes(content))
        except ValueError:
            continue
        for name in found.names():
            try:
                start, size = found.find(name)
            except OSError:
                continue
            assert 0 <= start <= start + size <= len(content)


def test_an_index_is_kept_and_made_again_when_the_tar_or_the_index_changes(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(member("a.mp4", b"a") + END)
    before = {*(cache / "tars").glob("*")} if (cache / "tars").is_dir() else set()
    assert media.members(file)[0] == ["a.mp4"]
    (kept,) = {*(cache / "tars").glob("*")} - before
    kept.write_bytes(kept.read_bytes()[:-1])
    media._index.cache_clear()
    assert media.members(file)[0] == ["a.mp4"]
    file.write_bytes(member("longer.mp4", b"a") + member("b.mp4", b"b") + END)
    assert media.members(file)[0] == ["longer.mp4", "b.mp4"]


def test_a_pipe_in_place_of_a_tar_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("x.tar", "x.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(OSError, match=rf"{name}: it is no regular file"):
            media.members(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        media.locate(tmp_path / "x.tar" / "a.mp4")


def test_a_name_without_end_is_no_member() -> None:
    found = index(member("n" * 5000 + ".mp4", b"x") + member("in.mp4", b"y") + END)
    assert found.names() == ["in.mp4"]
