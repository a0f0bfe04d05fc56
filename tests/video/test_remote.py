"""Videos at URLs: a server on loopback that gives parts of files, is slow, fails now and then, or gives no listing."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from evalkit.api import Views
from evalkit.datasets.videos import find_videos
from evalkit.errors import UserError
from evalkit.features.key import identify
from evalkit.video import media, places, remote
from evalkit.video.clips import Failure, read_clip
from evalkit.video.decode import open_video
from tests.video.packed import pack, served

pytest.importorskip("fsspec", reason="needs fsspec: pip install 'video-evalkit[url]'")
pytest.importorskip("aiohttp", reason="needs aiohttp: pip install 'video-evalkit[url]'")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.0, 0.0))


def frames(path: Path) -> np.ndarray:
    video = open_video(path)
    return video.read(range(len(video.times)))


def test_a_video_at_a_url_and_in_a_tar_there_are_those_of_the_file(films: Path, tmp_path: Path) -> None:
    pack(tmp_path / "shards/000.tar", sorted(films.iterdir())[:3])
    (tmp_path / "01.mp4").write_bytes((films / "01.mp4").read_bytes())
    with served(tmp_path) as (url, asked):
        for name in ("01.mp4", "shards/000.tar/01.mp4"):
            path = media.path_of(f"{url}/{name}")
            assert np.array_equal(frames(path), frames(films / "01.mp4"))
            assert identify(path) == identify(films / "01.mp4")
            assert identify(path, full=True) == identify(films / "01.mp4", full=True)
        assert media.exists(media.path_of(f"{url}/01.mp4")) and not media.exists(media.path_of(f"{url}/no.mp4"))
        assert media.members(media.path_of(f"{url}/shards/000.tar"))[0][:2] == ["00.mp4", "00.json"]
    assert asked


def test_a_server_that_fails_twice_is_asked_again_and_one_that_always_does_is_one_line(
    films: Path,
) -> None:
    with served(films, refuse=2) as (url, _):
        assert np.array_equal(frames(media.path_of(f"{url}/00.mp4")), frames(films / "00.mp4"))
    with served(films, refuse=99) as (url, _):
        clip = read_clip(media.path_of(f"{url}/00.mp4?key=secret"), None, Views("uniform"), 4, 32)
        assert clip == Failure(f"{url}/00.mp4: status 503")
    for status in (429, 500):
        with served(films, unsized=4, status=status) as (url, _):  # HEAD and GET for each look
            assert media.exists(media.path_of(f"{url}/00.mp4"))
            assert np.array_equal(frames(media.path_of(f"{url}/00.mp4")), frames(films / "00.mp4"))
        with served(films, unsized=99, status=status) as (url, _):
            clip = read_clip(media.path_of(f"{url}/00.mp4"), None, Views("uniform"), 4, 32)
            assert clip == Failure(f"{url}/00.mp4: status {status}")
    gone = read_clip(media.path_of(f"{url}/01.mp4"), None, Views("uniform"), 4, 32)
    assert isinstance(gone, Failure) and gone.reason.startswith(f"{url}/01.mp4: ") and "\n" not in gone.reason


def test_what_a_server_does_not_have_is_missing(films: Path) -> None:
    with served(films) as (url, _):
        clip = read_clip(media.path_of(f"{url}/none.mp4"), None, Views("uniform"), 4, 32)
        assert clip == Failure(f"no such object: {url}/none.mp4")


@pytest.mark.parametrize("status", [401, 403])
def test_what_a_server_does_not_allow_is_there_and_asked_for_once(films: Path, status: int) -> None:
    with served(films, unsized=99, status=status) as (url, asked):
        path = media.path_of(f"{url}/00.mp4")
        assert media.exists(path) and len(asked) == 2  # HEAD and GET
        clip = read_clip(path, None, Views("uniform"), 4, 32)
        assert clip == Failure(f"{url}/00.mp4: status {status}, the server does not allow it")


def test_a_server_that_forbids_listings_is_one_without(films: Path) -> None:
    with served(films, unsized=1, status=403) as (url, _):
        assert remote.list_files(url) == []
        assert np.array_equal(frames(media.path_of(f"{url}/00.mp4")), frames(films / "00.mp4"))
    with served(films, unsized=99, status=500) as (url, _), pytest.raises(OSError, match=r"status 500$"):
        remote.list_files(url)
    with pytest.raises(OSError, match=r"^http://127\.0\.0\.1:1/x: ClientConnectorError: "):  # nobody is there
        remote.list_files("http://127.0.0.1:1/x")


def test_a_listing_stays_below_what_was_asked_for(tmp_path: Path) -> None:
    for name in ("videos/a.mp4", "videos/deep/b.mp4", "secret/c.mp4", "videos2/d.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with served(tmp_path) as (url, _):
        assert remote.list_files(f"{url}/videos") == [f"{url}/videos/a.mp4", f"{url}/videos/deep/b.mp4"]
    with served(tmp_path, listing=False) as (url, _):
        assert remote.list_files(f"{url}/videos") == []


@pytest.mark.parametrize(
    ("url", "below"),
    [
        ("https://host/videos/a.mp4", True),
        ("https://host/videos", True),
        ("https://host/videos2/a.mp4", False),
        ("https://host/videos/../secret/a.mp4", False),
        ("https://host/videos/%2e%2e/secret/a.mp4", False),
        ("https://host/videos/..\\secret/a.mp4", False),
        ("https://host@evil/videos/a.mp4", False),
        ("http://host/videos/a.mp4", False),
    ],
)
def test_which_urls_lie_below_another(url: str, below: bool) -> None:
    assert remote.is_below(url, ("https://host/videos",)) == below


def test_a_scheme_that_is_not_read_is_one_line() -> None:
    with pytest.raises(UserError, match="file:// is none of the schemes that are read: http, https, s3, gs"):
        remote.check("file:///etc/passwd")
    if importlib.util.find_spec("s3fs") is None:
        with pytest.raises(UserError, match=r"s3:// needs more: pip install 'video-evalkit\[s3\]'"):
            remote.check("s3://bucket")


def test_tars_at_urls_are_indexed_at_the_same_time(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs a request a header, one after the other."""
    monkeypatch.setattr(remote, "BLOCK_BYTES", 4096)
    for k, film in enumerate(sorted(films.iterdir())[:4]):
        pack(tmp_path / f"shards/{k:03d}.tar", [film])
    with served(tmp_path, latency=0.02) as (url, asked), places.searched(places.read_places(f"{url}/shards/*.tar")):
        (name, *_) = {path.name for path in find_videos(tmp_path)["00"]}
        assert name == "00.mp4" and set(find_videos(tmp_path)) == {"00", "01", "02", "03"}
    of_tars = [path for path in asked if path.endswith(".tar")]
    last_of_first = len(of_tars) - of_tars[::-1].index("/shards/000.tar")
    assert {f"/shards/{k:03d}.tar" for k in range(4)} <= {*of_tars[: last_of_first - 1]}
