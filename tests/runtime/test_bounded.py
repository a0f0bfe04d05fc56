"""Files that would become far larger than they are: refused before they are read."""

import os
from pathlib import Path

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.runtime import bounded
from evalkit.weights.checkpoint import read_pickle

ALIASES = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ALIASES, r"^aliases \(\*name\) make 1,234,567,909 values of its \d+ letters; at most 100,000$"),
        (ALIASES.replace("[*a", "[{<<: *z}, *a").replace("a: &a", "z: &z {k: v}\na: &a"), r"^aliases \(\*name\) make"),
        ("a: &a [*a]", "^it is nested too deep, or within itself$"),
        ("[" * 3000, "^it is nested too deep, or within itself$"),
    ],
)
def test_yaml_that_multiplies_itself_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        bounded.check_yaml(text)


@pytest.mark.parametrize("text", ["", "plain", "a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}", "a: [1, 2]\n" * 3])
def test_other_yaml_passes(text: str) -> None:
    bounded.check_yaml(text)


def test_an_archive_that_inflates_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "LARGE_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(2 << 20, np.uint8))
    with pytest.raises(ValueError, match=r"^its [\d,]+ bytes would become 2,097,\d+; at most 50 times as many"):
        bounded.check_archive(tmp_path / "bomb.npz")
    (tmp_path / "bomb.npz").rename(tmp_path / "bomb.pt")
    with pytest.raises(UserError, match="cannot read weights .*bomb.pt: ValueError: its "):
        read_pickle(tmp_path / "bomb.pt")
    np.savez_compressed(tmp_path / "weights.npz", a=np.random.default_rng(0).random(1 << 18))
    bounded.check_archive(tmp_path / "weights.npz")
    (tmp_path / "other").write_bytes(b"no archive")
    bounded.check_archive(tmp_path / "other")


def test_only_regular_files_of_a_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"text")
    (tmp_path / "link").symlink_to(tmp_path / "text")
    os.mkfifo(tmp_path / "pipe")
    assert bounded.read_bytes(tmp_path / "link", most=4) == b"text"
    for place in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="it is no regular file"):
            bounded.read_bytes(place)
    with pytest.raises(IsADirectoryError):
        bounded.read_bytes(tmp_path)
    with pytest.raises(OSError, match="it has 4 bytes, at most 3 are read"):
        bounded.read_bytes(tmp_path / "text", most=3)
    with pytest.raises(FileNotFoundError):
        bounded.read_bytes(tmp_path / "none")
