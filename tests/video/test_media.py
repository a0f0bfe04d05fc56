"""Videos in tars and parquet files are those of the files that were packed: pixels, identity, and what is wrong."""

import http.server
import shutil
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.error import FFmpegError

from evalkit.api import Clip, FeatureSpec, Views
from evalkit.features.feature_cache import FeatureCache
from evalkit.features.key import FeatureKey, Identity, identify
from evalkit.features.sources import Source
from evalkit.video import media, parquet
from evalkit.video.clips import Decoded, Failure, read_clip
from evalkit.video.decode import open_video
from tests.video.packed import member, pack

VIEWS = Views("uniform")


def frames(path: Path) -> np.ndarray:
    video = open_video(path)
    return video.read(range(len(video.times)))


def write_parquet(file: Path, columns: dict[str, Any], **options: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'video-evalkit[parquet]'")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), file, **options)
    return file


@pytest.fixture(scope="module")
def containers(films: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A tar of WebDataset, and a parquet file as Hugging Face writes one where pyarrow is installed."""
    folder, videos = tmp_path_factory.mktemp("packed"), sorted(films.iterdir())[:5]
    packed = [pack(folder / "000.tar", videos)]
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return packed
    rows = [{"bytes": video.read_bytes(), "path": video.name} for video in videos]
    return [*packed, write_parquet(folder / "clips.parquet", {"label": [0] * 5, "video": rows}, row_group_size=2)]


def test_pixels_are_those_of_the_file(containers: list[Path], films: Path) -> None:
    for container in containers:
        for name in ("00.mp4", "04.mp4", "01.mp4"):
            assert np.array_equal(frames(container / name), frames(films / name))


def test_a_video_that_is_moved_into_a_container_is_found_stored(containers: list[Path], films: Path) -> None:
    key = FeatureKey(Identity(0, ""), None, Views(), Clip(), "", "", "", FeatureSpec(), "32")
    cache = FeatureCache(None, key)  # type: ignore[arg-type]
    for container in containers:
        for full in (False, True):
            assert identify(container / "02.mp4", full) == identify(films / "02.mp4", full)
        packed, file = (
            cache.keys([Source(folder / "02.mp4", (0.0, 1.0))], ["", "shuffled"]) for folder in (container, films)
        )
        assert packed == file and all(file)


def test_what_is_not_there_fails_by_its_name(containers: list[Path]) -> None:
    for container in containers:
        clip = read_clip(container / "99.mp4", None, VIEWS, 4, 32)
        assert isinstance(clip, Failure) and clip.reason.startswith(f"{container}: no ")
        assert "99.mp4" in clip.reason and not media.exists(container / "99.mp4")
        assert media.exists(container / "00.mp4")
    with pytest.raises(FileNotFoundError, match="no such file"):
        media.locate(containers[0].parent / "no.tar" / "a.mp4")


def test_a_damaged_member_is_a_failure_and_the_next_is_read(tmp_path: Path, films: Path) -> None:
    good = (films / "00.mp4").read_bytes()
    file = tmp_path / "x.tar"
    file.write_bytes(member("cut.mp4", good[:300]) + member("empty.mp4") + member("good.mp4", good) + bytes(1024))
    reasons = [read_clip(file / name, None, VIEWS, 4, 32) for name in ("cut.mp4", "empty.mp4", "good.mp4")]
    assert isinstance(reasons[0], Failure) and "moov" in reasons[0].reason
    assert reasons[1] == Failure("the file is empty") and isinstance(reasons[2], Decoded)


def test_other_decoders_leave_what_is_no_file_to_pyav(containers: list[Path], films: Path) -> None:
    pytest.importorskip("decord", reason="needs decord: pip install 'video-evalkit[decord]'")
    assert open_video(films / "00.mp4", "decord").decoder.startswith("decord")
    assert open_video(containers[0] / "00.mp4", "decord").decoder == f"PyAV {av.__version__} (in a tar)"


def test_a_playlist_in_a_tar_opens_no_address_and_no_file(tmp_path: Path, films: Path) -> None:
    shutil.copy(films / "00.mp4", tmp_path / "beside.mp4")
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/x.ts"
    texts = {
        "hls.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile {tmp_path / 'beside.mp4'}\n",
        "near.mp4": "ffconcat version 1.0\nfile beside.mp4\n",
        "call.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    }
    file = tmp_path / "x.tar"
    file.write_bytes(b"".join(member(name, text.encode()) for name, text in texts.items()) + bytes(1024))
    for name in texts:
        with pytest.raises((FFmpegError, OSError)):
            media.open_container(file / name)
    server.shutdown()
    server.server_close()
    assert asked == []


def test_paths_of_urls_come_back_and_folders_that_are_called_so_stay_folders(tmp_path: Path) -> None:
    for url in ("s3://bucket/a/b.mp4", "https://host:8000/x.mp4?key=1", "hf://datasets/org/name@main/a.tar/b.mp4"):
        assert media.url_of(media.path_of(url)) == url
        assert media.url_of(tmp_path / "deep" / url) == url and media.url_of(media.path_of(url).absolute()) == url
    assert media.shown(media.path_of("https://host/x.mp4?key=secret")) == "https://host/x.mp4"
    (tmp_path / "s3:").mkdir()
    assert media.url_of(tmp_path / "s3:/bucket/a.mp4") is None
    assert media.url_of(tmp_path / "s3:/http:/host/a.mp4") == "http://host/a.mp4"
    assert media.url_of(Path("a:b/c.mp4")) is None


def test_a_member_is_called_as_if_it_were_unpacked(containers: list[Path], films: Path) -> None:
    assert media.unpacked(containers[0] / "run/a.mp4") == containers[0].parent / "run/a.mp4"
    assert media.unpacked(films / "00.mp4") == films / "00.mp4"
    (folder := containers[0].parent / "named.tar").mkdir(exist_ok=True)  # a folder, not a tar
    assert media.unpacked(folder / "a.mp4") == folder / "a.mp4"


def test_rows_are_called_by_their_path_a_column_or_their_number(tmp_path: Path) -> None:
    video = b"x" * 10

    def names(**columns: Any) -> list[str]:
        return media.members(write_parquet(tmp_path / f"{len([*tmp_path.iterdir()])}.parquet", columns))[0]

    structs = [{"bytes": video, "path": path} for path in ("a/b.mp4", "/home/me/c.mp4", "../../d.mp4", None, "e")]
    assert names(video=structs) == ["a/b.mp4", "c.mp4", "d.mp4", "00000003.mp4", "e.mp4"]
    assert names(mp4=[video] * 2, __key__=["k1", "k2"]) == ["k1.mp4", "k2.mp4"]
    assert names(webm=[video] * 2) == ["00000000.webm", "00000001.webm"]
    assert names(video=[{"bytes": video, "path": "http://host/x.mp4"}]) == ["x.mp4"]
    assert names(thumbnail=[b"p"], clip=[1], mp4=[video], key=["k1"]) == ["k1.mp4"]


@pytest.mark.parametrize("kind", ["dictionary", "string_view", "large_string"])
def test_names_and_bytes_are_read_of_every_type_that_holds_them(tmp_path: Path, kind: str) -> None:
    """A table of pandas has categories, one of polars views."""
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'video-evalkit[parquet]'")
    names = ["a", "b", "a2"]
    keys = (
        arrow.array(names).dictionary_encode() if kind == "dictionary" else arrow.array(names, getattr(arrow, kind)())
    )
    content = [name.encode() for name in names]
    videos = arrow.array(content, arrow.binary_view() if kind == "string_view" else arrow.binary())
    file = write_parquet(tmp_path / "x.parquet", {"video": videos, "id": keys})
    assert media.members(file)[0] == ["a.mp4", "b.mp4", "a2.mp4"]
    for name, expected in zip(names, content, strict=True):
        with media.open_bytes(file / f"{name}.mp4") as opened:
            assert opened.read() == expected


def test_of_several_columns_with_bytes_one_must_be_called_that_of_the_videos(tmp_path: Path) -> None:
    plain = write_parquet(tmp_path / "x.parquet", {"thumbnail": [b"png"], "clip": [b"film"], "id": ["a"]})
    structs = {name: [{"bytes": b"x", "path": "a"}] for name in ("image", "clip")}
    for file, names in ((plain, "thumbnail, clip"), (write_parquet(tmp_path / "y.parquet", structs), "image, clip")):
        told = f"several columns hold bytes, and none is called video: {names}; rename that of the videos"
        assert media.members(file) == ([], told)
    structs = {"image": [{"bytes": b"x", "path": "b"}], "mp4": [{"bytes": b"x", "path": "a"}]}
    assert media.members(write_parquet(tmp_path / "z.parquet", structs))[0] == ["a.mp4"]


def test_a_row_without_bytes_is_not_looked_for_where_its_path_leads(tmp_path: Path, films: Path) -> None:
    rows = [{"bytes": None, "path": str(films / "00.mp4")}, {"bytes": b"x", "path": "a.mp4"}]
    file = write_parquet(tmp_path / "x.parquet", {"video": rows})
    with pytest.raises(
        OSError, match=r"x\.parquet: the row 00.mp4 holds no bytes, at most a path, which is not followed"
    ):
        media.open_bytes(file / "00.mp4")
    with media.open_bytes(file / "a.mp4") as opened:
        assert opened.read() == b"x"


def test_two_rows_of_one_name_are_not_told_apart(tmp_path: Path) -> None:
    rows = [{"bytes": content, "path": name} for content, name in ((b"1", "a"), (b"2", "b"), (b"3", "a"))]
    file = write_parquet(tmp_path / "x.parquet", {"video": rows})
    with pytest.raises(OSError, match="several rows are called a.mp4"):
        media.open_bytes(file / "a.mp4")


def test_a_parquet_file_that_would_become_far_larger_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "LARGE_BYTES", 1 << 16)
    inflates = write_parquet(
        tmp_path / "a.parquet", {"video": [bytes(1 << 20)]}, compression="gzip", use_dictionary=False
    )
    with pytest.raises(
        OSError, match=r"row group 0 cannot be read: ValueError: [\d,]+ bytes of column video would become"
    ):
        media.open_bytes(inflates / "00000000.mp4")
    monkeypatch.setattr(parquet, "MOST_GROUP_BYTES", 3 << 19)
    repeats = write_parquet(tmp_path / "b.parquet", {"video": [b"x" * (1 << 19)] * 50}, compression="none")
    assert repeats.stat().st_size < 1 << 20  # a dictionary of one value
    with pytest.raises(OSError, match="its videos are above"):
        media.open_bytes(repeats / "00000007.mp4")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_no_parquet_is_one_line(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'video-evalkit[parquet]'")
    file = tmp_path / "x.parquet"
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"x\.parquet: it cannot be read as parquet: .{1,400}$"):
        media.members(file)


def test_a_parquet_file_without_videos_is_one_line(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "x.parquet", {"label": [1], "text": ["a"]})
    assert media.members(file) == ([], "no column of videos, {bytes, path} or bytes, among label, text")
    assert not media.exists(file / "a.mp4")
